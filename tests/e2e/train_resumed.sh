#!/usr/bin/env bash
# A run of the service's trunk that an operator stopped and went on with, over restarts, and whose worker and daemon were killed, ends
# with the same bytes as one that nothing disturbed. What an operator discards stays away, though a slice is still at work.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 150
# A run must take several slices, and a sanitizer makes it some ten times slower.
if grep -q '^TRIAGE_SANITIZE:BOOL=ON' "$build/CMakeCache.txt"; then epochs=8; else epochs=40; fi
settings=$'[training]\ntrunk = off\nslice_s = 1\nbatch = 8\nlearning_rate = 0.003\nepochs_max = '"$epochs"$'\npatience = 0\n[queue]\nretire_votes = 1000\nduplicate_distance = 0'
configure a "$settings"
configure b "$settings"
sed -i 's/^\[trunk\]/[trunk]\nnetwork = efficientnet_lite0/' "$folder"/[ab].conf
training_is() { ctl "$1" --json train status | jq -e "$2" >/dev/null; }
idle() { wait_until 120 status_is "$1" '.cycle.step == "idle" and .champion >= 1 and .galaxies.embedded == 150 and .votes.waiting == 0'; }
keep_weights() { cp "$folder/$1/models/trunk-000002.safetensors" "$folder/$1.weights" 2>/dev/null; } # a trunk the gate refuses is deleted
for name in a b; do
    import $name "$folder/survey/truth.csv"
    start $name
    ready $name
    idle $name
done
stop b

# Undisturbed.
ctl a train trunk >/dev/null
keep_labels() { cp "$folder/$1/models/trunk-000002.labels" "$folder/$1.labels" 2>/dev/null; }
wait_until 60 keep_labels a
wait_until 300 keep_weights a
stop a

# Stopped: a restart and a cycle change nothing; then gone on with, and killed.
start b
ready b
idle b
ctl b train trunk >/dev/null
wait_until 180 training_is b '.training.step == "training" and .training.share > 0'
[ "$(ctl b train stop)" = "trunk 2 is stopped: 'triagectl train trunk' goes on with it, 'triagectl train discard' deletes it" ] || fail "stop"
ctl b train status | grep -q '^trunk 2: training, stopped' || fail "$(ctl b train status)"
wait_until 60 status_is b '.worker.state == "idle"'
keep_labels b
cp "$folder/b/models/trunk-000002.checkpoint" "$folder/checkpoint"
stop b
start b
ready b
idle b
training_is b '.training.step == "training" and .training.stopped and .training.trunk == 2' || fail "a restart forgot the stop: $(ctl b train status)"
cycle=$(ctl b --json status | jq .cycle.number)
ctl b train now >/dev/null
wait_until 60 status_is b ".cycle.number > $cycle and .cycle.step == \"idle\""
cmp "$folder/checkpoint" "$folder/b/models/trunk-000002.checkpoint" || fail "a run that is stopped goes on"
ctl b train trunk >/dev/null
wait_until 60 status_is b '.worker.job == "train"'
kill -KILL "$(worker_of b)"
wait_until 60 status_is b '.worker.job == "train"'
murder b
start b
ready b
training_is b '.training.step == "training" and (.training.stopped | not)' || fail "the run is lost: $(ctl b train status)"
wait_until 300 keep_weights b
cmp "$folder/a.labels" "$folder/b.labels" || fail "not the same labels"
cmp "$folder/a.weights" "$folder/b.weights" || fail "stopped, killed and gone on with, a run ends otherwise"

# Discarded: a worker that stands still has the slice in hand and writes only after that. Nothing of it stays, not over a restart
# and not if the daemon was killed before it could delete what came late.
wait_until 300 training_is b '.training.step == "off"'
[ "$(ctl b train discard 2>&1)" = "triagectl: no trunk is being trained" ] || fail "discarded nothing: $(ctl b train discard 2>&1 || true)"
worker=$(worker_of b)
wait_until 60 status_is b '.worker.state == "idle" and .cycle.step == "idle"'
kill -STOP "$worker"
ctl b train trunk >/dev/null
wait_until 60 status_is b '.worker.job == "train"'
trunk=$(ctl b --json train status | jq .training.trunk)
run=$folder/b/models/trunk-$(printf %06d "$trunk")
ctl b train discard >/dev/null
kill -CONT "$worker"
wait_until 60 status_is b '.worker.state == "idle"'
! ls "$run".* 2>/dev/null || fail "files of a run that was discarded stay"
stop b
cp "$folder/b.labels" "$run.labels"
start b
ready b
training_is b '.training.step == "off"' || fail "a run that was discarded goes on: $(ctl b train status)"
! ls "$run".* 2>/dev/null || fail "what came late stays"
stop b
echo "train_resumed: all passed"
