#!/usr/bin/env bash
# The control process is refused its n-th allocation: every one while it answers and through a cycle, every 64th while it starts;
# TRIAGE_STRIDE=1 takes every one there too (./bench faults --run). Four daemons at a time, which mostly wait.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
stride=${TRIAGE_STRIDE:-64} refusals=() failed=''
survey 40
refuse() { # NAME TASK FIRST STRIDE
    configure "$1" $'[heads]\nepochs_max = 5\n[cycle]\nvotes_min = 1\nwait_ms = 100\n[votes]\npoll_ms = 1000\n[queue]\nretire_votes = 1000' # there are always galaxies to ask about
    import "$1"
    /usr/bin/python3 "$root/tests/support/short_of_memory.py" "$build" "$folder" "$@" &
    refusals+=($!)
}
all_of() { # what was begun
    for pid in "${refusals[@]}"; do wait "$pid" || failed=1; done
    [ -z "$failed" ] || fail "a refused allocation"
    refusals=()
}
trap 'for pid in "${refusals[@]}"; do kill "$pid" 2>/dev/null || true; done; clean_up' EXIT
refuse a answers 1 1
refuse b cycle 1 2
refuse c cycle 2 2
[ "$stride" = 1 ] || refuse d start 1 "$stride"
all_of
[ "$stride" = 1 ] || exit 0
for number in 1 2 3 4; do refuse "s$number" start $number 4; done
all_of
