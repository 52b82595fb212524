#!/usr/bin/env bash
# The service teaches its trunk when it has labelled galaxies enough, when they have doubled, and when models stop being promoted;
# not before.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 300
catalogue() { # FIRST LAST: these galaxies of the survey, with all their votes
    sed -n "1p; $(($1 + 1)),$(($2 + 1))p" "$folder/survey/truth.csv" >"$folder/survey/part.csv"
    import a "$folder/survey/part.csv"
}
lines=$'[training]\ntrunk = auto\nlabels_min = 40\nstalled_fits = 1000\nbatch = 16\nepochs_max = 1\n[queue]\nretire_votes = 1000\nduplicate_distance = 0'
configure a "$lines"
sed -i 's/^\[trunk\]/[trunk]\nnetwork = efficientnet_lite0/' "$folder/a.conf"
training_is() { ctl a --json train status | jq -e "$1" >/dev/null; }
begun() { grep -o 'trained again, as number .*' "$folder/a.log" | sed -n "$1p"; } # the RUN-th run that began
has_begun() { [ -n "$(begun "$1")" ]; }
is_over() { has_begun "$1" && training_is '.training.step == "off"' && status_is a '.cycle.step == "idle"'; }
labels() { echo $(($(sql a "SELECT labels FROM triage.model ORDER BY number DESC LIMIT 1"))); } # of the last model, 0 = none
fitted() { [ "$(labels)" -gt "$1" ] && status_is a '.cycle.step == "idle" and .votes.waiting == 0'; }
cycle() {
    local number
    number=$(ctl a --json status | jq .cycle.number)
    ctl a train now >/dev/null
    wait_until 240 status_is a ".cycle.number > $number and .cycle.step == \"idle\""
}

# Enough: 30 are not, 60 are (some are for tests only).
catalogue 1 30
start a
ready a
wait_until 240 fitted 0
cycle
! has_begun 1 || fail "trained with too few: $(begun 1)"
catalogue 31 80
wait_until 300 is_over 1
first=$(ctl a --json train status | jq .training.labels)
[ "$first" -ge 40 ] || fail "labels of the first run: $first"

# Half as many again are not twice as many.
catalogue 81 110
wait_until 240 fitted "$first"
cycle
now=$(labels)
[ "$now" -lt $((2 * first)) ] || fail "this test's numbers are wrong: $now labels after $first"
! has_begun 2 || fail "trained again with $now labels: $(begun 2)"
catalogue 111 200
wait_until 300 is_over 2
[[ $(begun 2) =~ :\ ([0-9]+)\ labelled\ galaxies,\ ([0-9]+)\ the\ last\ time ]] || fail "$(begun 2)"
((BASH_REMATCH[2] == first && BASH_REMATCH[1] >= 2 * first)) || fail "not for doubled labels: $(begun 2)"

# Heads that start anew and learn nothing: a model is promoted only by luck, and one refused is enough. Not without a new label.
sed -i 's/^stalled_fits = .*/stalled_fits = 1/; s/^\[heads\]/[heads]\nlearning_rate = 1e-7\nbias_rate = 1e-7\nwarm_start = 0/' "$folder/a.conf"
ctl a reload >/dev/null
second=$(ctl a --json train status | jq .training.labels)
stalled() { training_is '.training.stalled >= 1'; }
for _ in $(seq 20); do
    ! stalled || break
    cycle
done
stalled || fail "twenty models that learn nothing were promoted"
! has_begun 3 || fail "trained again without a new label: $(begun 3)"
catalogue 201 220
for _ in $(seq 20); do
    ! has_begun 3 || break
    cycle
done
wait_until 300 is_over 3
[[ $(begun 3) =~ :\ ([0-9]+)\ labelled\ galaxies,\ ([0-9]+)\ the\ last\ time,\ ([0-9]+)\ models ]] || fail "$(begun 3)"
((BASH_REMATCH[2] == second && BASH_REMATCH[1] < 2 * second && BASH_REMATCH[3] >= 1)) ||
    fail "not for stalled models: $(begun 3)"
stop a
echo "train_triggers: $(begun 1); $(begun 2); $(begun 3)"
