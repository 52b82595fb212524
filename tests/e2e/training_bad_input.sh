#!/usr/bin/env bash
# What training is given can be wrong in ways that no file shows: no labelled galaxy, every label the same answer, a recipe that
# runs away. It says what is wrong and with which galaxy, and what there was before goes on serving.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 80
runaway=(learning_rate=1 weight_decay=100 schedule=constant warmup_epochs=0) # every step multiplies all values by -99

# finetune names the galaxy.
code=0 set=()
for key in "${runaway[@]}"; do set+=(--set "training.$key"); done
"$build/triaged" finetune "$folder/survey/truth.csv" --out "$folder/run" --set "instance.schema=$schema" --set images.side=32 --set trunk.side=32 \
    --set trunk.network=efficientnet_lite0 --set worker.threads=1 --set training.batch=8 "${set[@]}" >/dev/null 2>"$folder/run.err" || code=$?
[ "$code" = 65 ] || fail "a run that runs away gave $code: $(cat "$folder/run.err")"
grep -qE 'galaxy sim1-0000[0-9]{2}: .*not finite' "$folder/run.err" || fail "no galaxy is named: $(cat "$folder/run.err")"

# No labelled galaxy: heads wait for votes, a trunk that an operator asks for is not begun, and neither harms the queue.
small=$'[training]\ntrunk = off\nbatch = 8\nepochs_max = 2\nslice_s = 2\n[queue]\nretire_votes = 1000\nduplicate_distance = 0'
of_lite0() { sed -i 's/^\[trunk\]/[trunk]\nnetwork = efficientnet_lite0/' "$folder/$1.conf"; }
configure none "$small"
of_lite0 none
import none
start none
ready none
wait_until 60 status_is none '.cycle.step == "idle" and .queue_length == 12'
grep -q 'no training: no labelled galaxy to train on yet' "$folder/none.log" || fail "heads: $(tail -5 "$folder/none.log")"
ctl none train trunk >/dev/null
wait_until 60 grep -q 'training the trunk failed: no labelled galaxy to train the trunk on' "$folder/none.log"
wait_until 10 status_is none '.queue_length == 12 and .champion == 0'
[ "$(ctl none --json train status | jq -r .training.step)" = off ] || fail "a trunk without labels: $(ctl none --json train status)"
stop none

# Every vote for the same answer: there is a model with finite losses, and a trunk is trained and judged like any other.
awk -F, -v OFS=, 'NR > 1 { for (i = 3; i <= NF; i++) $i = 0; $3 = 20 } { print }' "$folder/survey/truth.csv" >"$folder/survey/same.csv"
configure same "$small"
of_lite0 same
import same "$folder/survey/same.csv"
start same
ready same
wait_until 60 status_is same '.champion >= 1 and .cycle.step == "idle" and .galaxies.embedded == 80 and .problems == []'
sql same "SELECT bool_and(holdout_nll BETWEEN 0 AND 100) FROM triage.model" | grep -qx t || fail "losses: $(sql same 'SELECT number, holdout_nll FROM triage.model')"
ctl same train trunk >/dev/null
judged() { grep -qE 'trunk 2 is (in use|given up: heads on it are not better)' "$folder/same.log"; }
wait_until 120 judged
wait_until 60 status_is same '.cycle.step == "idle" and .problems == []'

# A run that runs away: the galaxy is named, the trunk and the model in use stay, what is left of it is set aside.
before=$(ctl same --json status | jq -c '[.champion, .trunk]')
printf '[training]\n' >>"$folder/same.conf"
printf '%s\n' "${runaway[@]}" >>"$folder/same.conf"
ctl same reload >/dev/null
ctl same train trunk >/dev/null
wait_until 120 grep -qE 'training the trunk failed: galaxy sim1-0000[0-9]{2}: .*not finite' "$folder/same.log"
wait_until 60 status_is same '.problems | tostring | test("galaxy sim1-.*not finite")'
[ "$(ctl same --json status | jq -c '[.champion, .trunk]')" = "$before" ] || fail "a run away run changed $before"
[ -s "$folder/same/models/set-aside.labels" ] || fail "nothing is set aside: $(ls "$folder/same/models")"
stop same
echo "training_bad_input: all passed"
