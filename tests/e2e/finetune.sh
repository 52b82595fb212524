#!/usr/bin/env bash
# `triaged finetune`: learns from votes and from classes, goes on after kill -9 to the same bytes, and says what is wrong with
# what it is given, with the documented exit code and nothing lost.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
export ASAN_OPTIONS=detect_leaks=0
failures=0
expect() { # CODE TEXT COMMAND...
    local code=$1 text=$2 got=0
    shift 2
    "$@" >"$folder/out" 2>"$folder/err" || got=$?
    if [ "$got" != "$code" ] || ! grep -qF -- "$text" "$folder/err"; then
        echo "FAILED: $* gave $got, wanted $code and '$text'; it said:"
        cat "$folder/err"
        failures=$((failures + 1))
    fi
}
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

# Killed in the first, second and third epoch, and asked to stop; the end is the same to the byte.
for signal in KILL TERM; do
    : >"$folder/killed.err"
    "$build/triaged" finetune "$truth" --out "$folder/killed" "${small[@]}" --set training.epochs_max=16 2>"$folder/killed.err" >/dev/null &
    pids+=($!)
    last=$!
    wait_until 60 grep -qE 'epoch +[0-9]+:' "$folder/killed.err"
    kill -$signal "$last"
    wait "$last" && fail "it ended well in spite of SIG$signal"
    [ "$signal" = KILL ] || grep -q 'goes on from' "$folder/killed.err" || fail "no word of how to go on"
done
finetune "$truth" --out "$folder/killed" --set training.epochs_max=16 >/dev/null 2>"$folder/again.err"
grep -q 'going on from' "$folder/again.err" || fail "it started anew"
cmp "$folder/whole/trunk.safetensors" "$folder/killed/trunk.safetensors" || fail "a resumed run ends elsewhere"
cmp "$folder/whole/curve.csv" "$folder/killed/curve.csv" || fail "a resumed run has another curve"

# Classes, values, binomial votes; weights of an earlier run; a bad image is listed and left out.
awk -F, -v OFS=, 'NR == 1 { print "id_str,file_loc,kind,size"; next } { print $1, f "/" $2, NR % 2 ? "odd one" : "even", NR / 10 }' f="$folder/survey" "$folder/survey/catalog.csv" >"$folder/classes.csv"
sed -i '5s|,[^,]*,|,/nowhere.png,|' "$folder/classes.csv"
finetune "$folder/classes.csv" --labels kind --out "$folder/classes" --weights "$folder/whole/trunk.safetensors" --set training.epochs_max=1 --json >"$folder/classes.json" 2>/dev/null
jq -e '.bad_images == 1 and .validation.accuracy >= 0 and (.validation.interval | length) == 2' "$folder/classes.json" >/dev/null || fail "classes: $(cat "$folder/classes.json")"
[ "$(wc -l <"$folder/classes/bad.csv")" = 2 ] || fail "bad.csv"
finetune "$folder/classes.csv" --labels size --task value --out "$folder/value" --set training.epochs_max=1 >/dev/null 2>&1 || fail "values"
finetune "$truth" --labels smooth-or-featured_smooth --task binomial --out "$folder/binomial" --set training.epochs_max=1 >/dev/null 2>&1 || fail "binomial"

# Bad input
expect 65 "has no column 'nonsense'" finetune "$folder/classes.csv" --labels nonsense --out "$folder/x"
expect 65 "is not a number" finetune "$folder/classes.csv" --labels kind --task value --out "$folder/x"
expect 65 "more than 64 different values: for numbers give --task value" finetune "$folder/classes.csv" --labels size --out "$folder/x"
expect 65 "votes, classes, value or binomial" finetune "$truth" --task nonsense --out "$folder/x"
expect 65 "is no answer of schema" finetune "$truth" --labels smooth --task binomial --out "$folder/x"
expect 65 "has no vote columns" finetune "$folder/classes.csv" --out "$folder/x"
expect 65 "is in both catalogues" finetune "$truth" --test "$truth" --out "$folder/x"
expect 65 "no such file" finetune "$truth" --weights "$folder/none.safetensors" --out "$folder/x"
expect 65 "blocks" finetune "$truth" --weights "$folder/whole/trunk.safetensors" --out "$folder/x" --set trunk.network=efficientnet_b0
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
