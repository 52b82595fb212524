#!/usr/bin/env bash
# The service teaches its trunk by itself: in slices between cycles, through a full disk, other settings, SIGKILL of worker and
# daemon and a damaged checkpoint, then embeds every galaxy again, and uses the new trunk only if the gate says so. An operator can
# look, start it, discard it, and go back.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 600
configure a $'network = efficientnet_lite0\n[training]\ntrunk = auto\nlabels_min = 100\nslice_s = 3\nbatch = 32\nlearning_rate = 0.003\nepochs_max = 24\npatience = 0\n[queue]\nretire_votes = 1000\nduplicate_distance = 0'
sed -i '/^network = /d; s/^\[trunk\]/[trunk]\nnetwork = efficientnet_lite0/' "$folder/a.conf"
import a "$folder/survey/truth.csv"
start a
ready a
training() { ctl a --json train status; }
training_is() { training | jq -e "$1" >/dev/null; }
one_trunk() { # every galaxy that was scored has an embedding of the champion's trunk
    local trunk
    trunk=$(training | jq .trunk)
    [ "$(sql a "SELECT trunk FROM triage.model ORDER BY number DESC LIMIT 1")" = "$trunk" ] || fail "the newest model is not of trunk $trunk"
}

# The first trunk is random; with 600 labelled galaxies training begins at once and survives what happens to it.
wait_until 300 training_is '.training.step == "training" and .training.epoch >= 1'
[ -s "$folder/a/models/trunk-000002.checkpoint" ] || fail "no checkpoint"
cp "$folder/a/models/trunk-000002.labels" "$folder/labels"

# A checkpoint that lost its end is set aside, and the run begins again with the same labels.
worker=$(worker_of a)
murder a
wait_until 30 gone "$worker" # it may still write
truncate -s 100000 "$folder/a/models/trunk-000002.checkpoint"
start a
ready a
wait_until 180 grep -q 'is cut short.*set aside, trunk 2 is trained from the beginning' "$folder/a.log"
[ "$(stat -c %s "$folder/a/models/set-aside.checkpoint")" = 100000 ] || fail "the damaged checkpoint is not set aside"
wait_until 180 training_is '.training.step == "training" and .training.epoch >= 1'

[ "$(wc -l <"$folder/a/models/curve.csv")" -ge 3 ] || fail "no curve of a run under way"

# A disk that is full (here a limit on the size of files) costs a slice, not the run: status says so, and with room it goes on.
prlimit --pid "$(worker_of a)" --fsize=200000:unlimited
wait_until 180 status_is a '.problems | tostring | test("training the trunk: .*checkpoint.*File too large")'
training_is '.training.step == "training" and .training.trunk == 2' || fail "a full disk ended the run: $(training)"
[ -s "$folder/a/models/trunk-000002.checkpoint" ] || fail "a full disk took the checkpoint"
prlimit --pid "$(worker_of a)" --fsize=unlimited:unlimited
epoch=$(training | jq .training.epoch)
wait_until 180 training_is ".training.epoch > $epoch"

# Settings that change meanwhile are for the next run: this one goes on with its own.
sed -i 's/^learning_rate = .*/learning_rate = 0.002/' "$folder/a.conf"
ctl a reload >/dev/null
epoch=$(training | jq .training.epoch)
wait_until 180 training_is ".training.step == \"training\" and .training.epoch > $epoch"
cmp "$folder/labels" "$folder/a/models/trunk-000002.labels" || fail "the settings of a run changed"
kill -KILL "$(worker_of a)"
epoch=$(training | jq .training.epoch)
wait_until 180 training_is ".training.epoch > $epoch"
murder a
start a
ready a
training_is '.training.step != "off" and .training.trunk == 2' || fail "training did not go on: $(training)"
cmp "$folder/labels" "$folder/a/models/trunk-000002.labels" || fail "the labels of a run changed"
wait_until 900 training_is '.training.step == "off"'
training_is '.trunk == 2 and .training.labels >= 500' || fail "the trained trunk is not in use: $(training); $(tail -5 "$folder/a.log")"
one_trunk
wait_until 60 status_is a '.cycle.step == "idle" and .galaxies.embedded == 600 and .queue_length == 12'
! ls "$folder"/a/models/trunk-000002.{labels,checkpoint} 2>/dev/null || fail "what only a run needs stays"
[ "$(head -1 "$folder/a/models/curve.csv" | cut -d, -f1-4)" = epoch,learning_rate,train_loss,validation_loss ] || fail "no curve"
"$build/triaged" evaluate --config "$folder/a.conf" --oracle "$folder/survey/truth.csv" --json >"$folder/evaluation.json" || fail "evaluate"
jq -e '(.models | last | .nll) < (.models | first | .nll)' "$folder/evaluation.json" >/dev/null || fail "trunk 2 is no better: $(cat "$folder/evaluation.json")"

# It does not train again on the same labels; an operator can ask for it, and discard it.
training_is '.training.step == "off"' || fail "it trains again at once"
[ "$(ctl a train stop 2>&1)" = "triagectl: no trunk is being trained" ] || fail "stop without a run: $(ctl a train stop 2>&1 || true)"
ctl a train trunk >/dev/null
wait_until 180 training_is '.training.step == "training" and .training.trunk == 3 and .training.share > 0'
ctl a train discard >/dev/null
training_is '.training.step == "off" and .trunk == 2' || fail "not discarded: $(training)"
! ls "$folder"/a/models/trunk-000003* 2>/dev/null || fail "files of a run that was given up stay"
ctl a train trunk >/dev/null # its number is never given again: galaxies may have embeddings of it
wait_until 180 training_is '.training.step == "training" and .training.trunk == 5'
ctl a train discard >/dev/null

# A rollback that cannot be written changes nothing, the trunk in use neither.
{ head -1 "$folder/survey/truth.csv"; sed -n '2s/^sim1-[0-9]*/late/p' "$folder/survey/truth.csv"; } >"$folder/survey/late.csv"
import a "$folder/survey/late.csv"
embedded() { [ "$(grep -c "embedded 601 galaxies" "$folder/a.log")" = "$1" ]; }
cycle=$(ctl a --json status | jq .cycle.number)
wait_until 60 embedded 1
wait_until 60 status_is a ".cycle.number > $cycle and .cycle.step == \"idle\""
mv "$folder/a/models/previous" "$folder/previous"
mkdir "$folder/a/models/previous"
champion=$(ctl a --json status | jq .champion)
refused() { ! ctl a rollback 1 >"$folder/said" 2>&1 && grep -q "models/previous" "$folder/said"; }
wait_until 60 refused # while a model is trained for other reasons
status_is a ".champion == $champion and .trunk == 2" || fail "a refused rollback left another trunk: $(ctl a --json status)"
rmdir "$folder/a/models/previous"
mv "$folder/previous" "$folder/a/models/previous"

# Back to a model of the first trunk, whose embeddings are still there; a galaxy that it has not seen follows, and another restart
# changes nothing.
ctl a rollback 1 >/dev/null
wait_until 60 status_is a '.champion == 1 and .trunk == 1 and .cycle.step == "idle"'
wait_until 60 embedded 2
murder a
start a
ready a
status_is a '.champion == 1 and .trunk == 1' || fail "a restart forgot the rollback: $(ctl a --json status)"
wait_until 60 status_is a '.cycle.step == "idle" and .queue_length == 12 and .galaxies.embedded == 601'
stop a
echo "train_trunk: all passed"
