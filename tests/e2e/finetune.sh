#!/usr/bin/env bash
# `triaged finetune`: learns from votes and from classes, goes on after kill -9 to the same bytes, and says what is wrong with
# what it is given, with the documented exit code and nothing lost.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
export ASAN_OPTIONS=detect_leaks=0
small=(--set "instance.schema=$schema" --set images.side=32 --set trunk.side=32 --set training.batch=16 --set training.patience=0
    --set worker.threads=1 --set trunk.network=efficientnet_lite0)
finetune() { "$build/triaged" finetune "${small[@]}" "$@"; } # the last word on a key wins

survey 80
truth=$folder/survey/truth.csv
finetune "$truth" --out "$folder/whole" --set training.epochs_max=16 --json >"$folder/whole.json" 2>/dev/null
jq -e '.epochs == 16 and .validation.questions["smooth-or-featured"].nll > 0 and .validation.questions["smooth-or-featured"].constant_nll > 0
    and .trained_on + .validation.galaxies == 80' "$folder/whole.json" >/dev/null || fail "report: $(cat "$folder/whole.json")"
[ "$(wc -l <"$folder/whole/curve.csv")" = 18 ] || fail "rows of curve.csv"
head -1 "$folder/whole/curve.csv" | grep -q 'epoch,learning_rate,train_loss,validation_loss,quality,smooth-or-featured,' || fail "curve.csv"
xmllint --noout "$folder/whole/curve.svg" 2>/dev/null || grep -q '</svg>' "$folder/whole/curve.svg" || fail "curve.svg"

# Killed after its first epoch, then gone on with and asked to stop; the end is the same to the byte.
for signal in KILL TERM; do
    : >"$folder/killed.err"
    "$build/triaged" finetune "$truth" --out "$folder/killed" "${small[@]}" --set training.epochs_max=16 2>"$folder/killed.err" >/dev/null &
    pids+=($!)
    last=$!
    wait_until 60 grep -qE 'epoch +[0-9]+:' "$folder/killed.err"
    kill -$signal "$last"
    code=0
    wait "$last" || code=$?
    [ $code -ne 0 ] || fail "it ended well in spite of SIG$signal"
    [ "$signal" = KILL ] || { [ $code -eq 75 ] && grep -q 'goes on from' "$folder/killed.err"; } || fail "ended with $code and no word of how to go on"
done
finetune "$truth" --out "$folder/killed" --set training.epochs_max=16 >/dev/null 2>"$folder/again.err"
grep -q 'going on from' "$folder/again.err" || fail "it started anew"
cmp "$folder/whole/trunk.safetensors" "$folder/killed/trunk.safetensors" || fail "a resumed run ends elsewhere"
cmp "$folder/whole/head.safetensors" "$folder/killed/head.safetensors" || fail "a resumed run ends with another head"
cmp "$folder/whole/curve.csv" "$folder/killed/curve.csv" || fail "a resumed run has another curve"

# What is predicted is what was judged: the report's RMSE of a question, from predictions.csv and the catalogue alone.
head -1 "$folder/whole/predictions.csv" | grep -qx "id_str,part,$(head -1 "$truth" | cut -d, -f3- | tr -d '\r')" || fail "header of predictions.csv: $(head -1 "$folder/whole/predictions.csv")"
rmse_of() { # PREDICTIONS QUESTION
    awk -F, -v question="$2_" '
        FNR == 1 { for (i = 1; i <= NF; i++) if (index($i, question) == 1) { column[FILENAME, ++n[FILENAME]] = i }; next }
        NR == FNR { for (k = 1; k <= n[FILENAME]; k++) votes[$1, k] = $(column[FILENAME, k]); next }
        { total = 0; for (k = 1; k <= n[FILENAME]; k++) total += votes[$1, k]
          for (k = 1; k <= n[FILENAME] && total; k++) { sum += (votes[$1, k] / total - $(column[FILENAME, k])) ^ 2; count++ } }
        END { printf "%.4f", sqrt(sum / count) }' "$truth" "$1"
}
for question in smooth-or-featured bar; do
    wanted=$(jq --arg q $question '.validation.questions[$q].rmse' "$folder/whole.json")
    [ "$(rmse_of "$folder/whole/predictions.csv" $question)" = "$(printf %.4f "$wanted")" ] || fail "RMSE of $question: $(rmse_of "$folder/whole/predictions.csv" $question), reported $wanted"
done

# Classes, values, binomial votes; weights of an earlier run; a bad image is listed and left out.
awk -F, -v OFS=, 'NR == 1 { print "id_str,file_loc,kind,size"; next } { print $1, f "/" $2, NR % 2 ? "odd one" : "even", NR / 10 }' f="$folder/survey" "$folder/survey/catalog.csv" >"$folder/classes.csv"
sed -i '5s|,[^,]*,|,nowhere.png,|' "$folder/classes.csv"
finetune "$folder/classes.csv" --labels kind --out "$folder/classes" --weights "$folder/whole/trunk.safetensors" --set training.epochs_max=1 --json >"$folder/classes.json" 2>/dev/null
jq -e '.bad_images == 1 and .validation.accuracy >= 0 and (.validation.interval | length) == 2' "$folder/classes.json" >/dev/null || fail "classes: $(cat "$folder/classes.json")"
[ "$(wc -l <"$folder/classes/bad.csv")" = 2 ] || fail "bad.csv"
accuracy=$(awk -F, 'FNR == 1 { if (NR != FNR) { first = $3; second = $4 } next } NR == FNR { kind[$1] = $3; next }
    { sum = $3 + $4; if (sum < 0.9999 || sum > 1.0001) exit 1; right += kind[$1] == ($3 >= $4 ? first : second); n++ } END { printf "%.6f", right / n }' "$folder/classes.csv" "$folder/classes/predictions.csv")
[ "$accuracy" = "$(jq .validation.accuracy "$folder/classes.json" | xargs printf %.6f)" ] || fail "accuracy of predictions.csv: $accuracy"
finetune "$folder/classes.csv" --labels size --task value --out "$folder/value" --set training.epochs_max=1 >/dev/null 2>&1 || fail "values"
head -1 "$folder/value/predictions.csv" | grep -qx 'id_str,part,size' || fail "predictions of a value"
finetune "$truth" --labels smooth-or-featured_smooth --task binomial --out "$folder/binomial" --set training.epochs_max=1 >/dev/null 2>&1 || fail "binomial"
head -1 "$folder/binomial/predictions.csv" | grep -qx 'id_str,part,other,smooth-or-featured_smooth' || fail "predictions of a binomial"

# A second phase starts where the first ended, with its head: epoch 0 of its curve is the first one's best epoch.
finetune "$folder/classes.csv" --labels kind --out "$folder/second" --weights "$folder/classes/trunk.safetensors" --head "$folder/classes/head.safetensors" \
    --set training.epochs_max=1 --set training.blocks=2 --json >"$folder/second.json" 2>/dev/null
start=$(sed -n 2p "$folder/second/curve.csv" | cut -d, -f4)
best=$(awk -F, -v epoch="$(jq .best_epoch "$folder/classes.json")" '$1 == epoch { print $4 }' "$folder/classes/curve.csv")
[ "$start" = "$best" ] || fail "the second phase started at $start, the first had reached $best"
jq -e '.blocks == 2 and .norm == "live" and .warm_start == 1' "$folder/second.json" >/dev/null || fail "the recipe in the report: $(cat "$folder/second.json")"
finetune "$folder/classes.csv" --labels kind --out "$folder/shrunk" --weights "$folder/classes/trunk.safetensors" --head "$folder/classes/head.safetensors" \
    --set training.epochs_max=1 --set training.warm_start=0.5 --json 2>/dev/null | jq -e '.norm == "live" and .warm_start == 0.5' >/dev/null || fail "the recipe of a shrunk start"
[ "$(sed -n 2p "$folder/shrunk/curve.csv" | cut -d, -f4)" != "$best" ] || fail "training.warm_start changed nothing"
expect 78 "training.warm_start = 0.5 perturbs weights" finetune "$truth" --out "$folder/x" --set training.warm_start=0.5 --set training.norm=frozen
expect 65 "was made for a trunk" finetune "$folder/classes.csv" --labels kind --out "$folder/x" --head "$folder/classes/head.safetensors"
expect 65 "is a head for classes, not for votes" finetune "$truth" --out "$folder/x" --weights "$folder/classes/trunk.safetensors" --head "$folder/classes/head.safetensors"

# Galaxies without labels in the test catalogue are predicted, and judged nowhere; a run that is over does it without training.
{ head -1 "$folder/classes.csv" && sed -n '2,4p' "$folder/classes.csv" | sed -E 's/^([^,]*),([^,]*),[^,]*,/new_\1,\2,,/'; } >"$folder/new.csv"
finetune "$folder/classes.csv" --labels kind --test "$folder/new.csv" --out "$folder/second" --weights "$folder/classes/trunk.safetensors" --head "$folder/classes/head.safetensors" \
    --set training.epochs_max=1 --set training.blocks=2 --json >"$folder/again.json" 2>/dev/null
jq -e '.epochs == 1 and .test == null and .unlabelled == 3' "$folder/again.json" >/dev/null || fail "a run that is over: $(cat "$folder/again.json")"
[ "$(grep -c '^new_.*,unlabelled,' "$folder/second/predictions.csv")" = 3 ] || fail "predictions without labels: $(cat "$folder/second/predictions.csv")"

# Random views, averaged: other numbers than the plain view's, near to them.
finetune "$folder/classes.csv" --labels kind --out "$folder/second" --weights "$folder/classes/trunk.safetensors" --head "$folder/classes/head.safetensors" \
    --set training.epochs_max=1 --set training.blocks=2 --set trunk.mc_views=5 >/dev/null 2>&1
awk -F, 'FNR == 1 { next } NR == FNR { plain[$1] = $3; next } { far = $3 - plain[$1]; far = far < 0 ? -far : far; n += far > 0; if (far > 0.5) exit 1 }
    END { exit n == 0 }' "$folder/classes/predictions.csv" "$folder/second/predictions.csv" || fail "predictions of several views"

# The published numbers of parameters (facts of Walmsley et al. 2020, and of timm with the 34 answers of decals_dr5).
summary() { # NETWORK SIDE JQ-CONDITION
    printf '[instance]\nschema = decals_dr5\n[images]\nside = %s\n[trunk]\nnetwork = %s\nside = %s\n' "$2" "$1" "$2" >"$folder/net.conf"
    "$build/triaged" model summary --config "$folder/net.conf" --json | jq -e "$3" >/dev/null || fail "summary of $1"
}
summary walmsley2020 128 '.with_binomial_head == 1335394'
summary efficientnet_b0 224 '.trunk_parameters == 4048988 and .head_parameters == 43554'

# Bad input
expect 65 "has no column 'nonsense'" finetune "$folder/classes.csv" --labels nonsense --out "$folder/x"
expect 65 "is not a number" finetune "$folder/classes.csv" --labels kind --task value --out "$folder/x"
expect 65 "more than 64 different values: for numbers give --task value" finetune "$folder/classes.csv" --labels size --out "$folder/x"
expect 65 "votes, classes, value or binomial" finetune "$truth" --task nonsense --out "$folder/x"
expect 65 "is no answer of schema" finetune "$truth" --labels smooth --task binomial --out "$folder/x"
expect 65 "has no vote columns" finetune "$folder/classes.csv" --out "$folder/x"
{ cat "$truth" && sed -n 7p "$truth"; } >"$folder/survey/twice.csv"
expect 65 "is already on line 7" finetune "$folder/survey/twice.csv" --out "$folder/x"
expect 65 "is in both catalogues" finetune "$truth" --test "$truth" --out "$folder/x"
expect 65 "no such file" finetune "$truth" --weights "$folder/none.safetensors" --out "$folder/x"
expect 65 "holds weights of efficientnet_lite0, the network is efficientnet_b0" finetune "$truth" --weights "$folder/whole/trunk.safetensors" --out "$folder/x" --set trunk.network=efficientnet_b0
sed 's/odd one/even/' "$folder/classes.csv" >"$folder/same.csv"
expect 65 "is the same: there is nothing to tell apart" finetune "$folder/same.csv" --labels kind --out "$folder/x"
sed -E '2,$ s/,(odd one|even),/,,/' "$folder/classes.csv" >"$folder/unlabelled.csv"
expect 65 "has no label at all" finetune "$folder/unlabelled.csv" --labels kind --out "$folder/x"
expect 65 "at least 2 galaxies per batch" finetune "$truth" --out "$folder/x" --set training.batch=1
expect 64 "missing: --out FOLDER" finetune "$truth"
expect 78 "is out of range" finetune "$truth" --out "$folder/x" --set training.batch=0
expect 78 "is not of the form section.key=value" finetune "$truth" --out "$folder/x" --set nonsense
expect 78 "another training recipe" finetune "$truth" --out "$folder/whole" --set training.epochs_max=17
head -c 100000 "$folder/whole/checkpoint" >"$folder/cut" && cp "$folder/cut" "$folder/whole/checkpoint"
expect 65 "is cut short" finetune "$truth" --out "$folder/whole" --set training.epochs_max=16
[ "$failures" = 0 ] || fail "$failures checks"
echo "finetune: all passed"
