#!/usr/bin/env bash
# SIGKILL at every fault point (base/fault_points.h) of daemon, worker, import, platform and the database's transactions. After
# each, votes, tallies, pool, queue, feed and models agree, and how long it took to serve again is printed.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
grep -q '^TRIAGE_FAULTS:BOOL=ON' "$2/CMakeCache.txt" || { echo "skipped: this build has no fault points (TRIAGE_FAULTS)"; exit 77; }
survey 40
configure a $'[heads]\nepochs_max = 5\n[cycle]\nvotes_min = 1\nwait_ms = 100\n[votes]\npoll_ms = 50\n[training]\nslice_s = 1\nepochs_max = 1\n[queue]\nretire_votes = 30'
import a
/usr/bin/python3 "$root/tests/support/fault_points.py" "$root/base/fault_points.h" "$build" "$folder" ${TRIAGE_FAULT_POINTS:-}
