#!/usr/bin/env bash
# `triaged evaluate`: every model of a small campaign, the champion in detail with tables that agree with each other, and bad input.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 400
configure a
truth=$folder/survey/truth.csv
evaluate() { "$build/triaged" evaluate --config "$folder/a.conf" "$@" 2>"$folder/err"; }
refused() { # CODE TEXT ARGUMENTS...
    local got=0
    evaluate "${@:3}" >/dev/null || got=$?
    [ $got = "$1" ] && grep -qF -- "$2" "$folder/err" || fail "evaluate ${*:3}: $got, $(cat "$folder/err")"
}
import a "$truth" # with the votes of everyone: enough labels for factors at once
start a
ready a
wait_until 120 status_is a '.galaxies.embedded == 400'
ctl a train now >/dev/null
wait_until 120 status_is a '.champion > 0 and .cycle.labels == 400 and .cycle.step == "idle"'
stop a

evaluate --oracle "$truth" --out "$folder/out" --json >"$folder/evaluation.json" || fail "evaluate: $(cat "$folder/err")"
champion=$(cat "$folder/a/models/champion")
jq -e --argjson champion "$champion" '(.models[] | select(.number == $champion)) as $model | .champion as $detail
    | .galaxies == $detail.galaxies and .galaxies >= 50 and $detail.model == $champion
    and $model.nll == $detail.nll and $model.rmse == $detail.rmse and ($detail.questions | length) == 10
    and $detail.nll <= $detail.nll_unscaled + 0.05
    and all($detail.questions[]; .factor > 0 and .factor <= 1 and .all.galaxies >= .confident.galaxies)
    and any($detail.questions[]; .factor < 1 and .nll != .nll_unscaled)
    and (($detail.questions | map(.galaxies * .nll) | add) / .galaxies - $detail.nll | fabs) < 1e-6' \
    "$folder/evaluation.json" >/dev/null || fail "the summary"
jq -e -s '.[0].champion.questions[0].all == .[1].questions[0].all' "$folder/evaluation.json" "$folder/out/summary.json" >/dev/null ||
    fail "summary.json is not what was printed"

# Accuracy counted again from the confusion matrix; every galaxy reaches the first question.
counted=$(awk -F, '$1 == "smooth-or-featured" && $2 == "all" { total += $5; right += $3 == $4 ? $5 : 0 } END { printf "%d %.6f", total, right / total }' \
    "$folder/out/confusion.csv")
told=$(awk -F, '$1 == "smooth-or-featured" { print $7, $8 }' "$folder/out/questions.csv")
[ "$counted" = "$told" ] && [ "${told%% *}" = "$(jq .galaxies "$folder/evaluation.json")" ] || fail "accuracy: $counted against $told"
awk -F, 'NR > 1 && ($5 < 0 || $5 > 1.000001 || $6 < 0 || $6 > 1) { exit 1 }' "$folder/out/coverage.csv" || fail "coverage.csv"
[ "$(awk -F, '$1 == "smooth-or-featured" && $3 == "votes" && $4 == 80 { print $5 }' "$folder/out/coverage.csv" | sort -u)" = 1.000000 ] ||
    fail "within 80 votes lies everything"
grep -q '^smooth-or-featured,' "$folder/out/answers.csv" && grep -q mass "$folder/out/credible.csv" || fail "answers.csv, credible.csv"
for picture in calibration confusion; do
    rsvg-convert "$folder/out/$picture.svg" -o "$folder/$picture.png" || fail "$picture.svg is no picture"
done
evaluate --oracle "$truth" --out "$folder/again" | grep -q "^champion, model $champion: NLL" || fail "the table"
cmp "$folder/out/summary.json" "$folder/again/summary.json" || fail "twice the same, and two answers"

# Bad input
refused 64 "missing: --oracle CATALOGUE"
refused 65 "nowhere.csv" --oracle "$folder/nowhere.csv"
cut -d, -f1,2 "$truth" >"$folder/bare.csv"
refused 65 "has no vote columns" --oracle "$folder/bare.csv"
touch "$folder/file"
refused 74 "$folder/file" --oracle "$truth" --out "$folder/file/here"
rm "$folder/a/models/champion"
refused 78 "there is no champion yet" --oracle "$truth" --out "$folder/none"
echo "$counted galaxies and accuracy of the first question, NLL $(jq -r '"\(.champion.nll_unscaled) without and \(.champion.nll) with factors"' "$folder/evaluation.json")"
