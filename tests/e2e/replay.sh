#!/usr/bin/env bash
# `triaged replay`: both tracks from end to end, the same bytes for any number of processes and after kill -9, and bad input.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
export ASAN_OPTIONS=detect_leaks=0
survey 160
truth=$folder/survey/truth.csv
small=(--set "instance.schema=$schema" --set images.side=32 --set trunk.side=32 --set trunk.network=efficientnet_lite0 --set heads.passes=10
    --set replay.initial=12 --set replay.step=8 --set replay.steps=2 --set replay.seeds=2 --set heads.epochs_max=12)
replay() { "$build/triaged" replay "$truth" "${small[@]}" "$@"; } # the last word on a key wins
"$build/triaged" finetune "$truth" --out "$folder/trunk" "${small[@]:0:8}" --set training.batch=16 --set training.epochs_max=2 >/dev/null 2>&1 || fail "no trunk"
weights=$folder/trunk/trunk.safetensors

# Every score there is, two seeds: three steps of 12, 20 and 28 galaxies, paired at the first.
arms=random,bald,bald@1,bald-one-vote@2+0.5,bald-binomial,entropy,margin,variance,mixture,epig,featured+0.2,bald@1:batch,entropy+0.25:batch
replay --weights "$weights" --out "$folder/frozen" --set replay.arms=$arms --json >"$folder/frozen.json" 2>"$folder/frozen.err" || fail "frozen: $(cat "$folder/frozen.err")"
jq -e '(.arms | length) == 13 and .seeds == 2 and .reference == "random" and .track == "frozen" and .pool + .test == 160
    and (.arms[0].saving_galaxies | map(.value) == [0, 0, 0]) and (.arms[0].wins.random == 0.5)
    and all(.arms[]; .area > 0 and (.saving_votes | length) == 3 and .questions.all.last_nll.low <= .questions.all.last_nll.value)' \
    "$folder/frozen.json" >/dev/null || fail "summary: $(cat "$folder/frozen.json")"
jq -e -s '.[0] == .[1]' "$folder/frozen.json" <(jq -c . "$folder/frozen/summary.json") >/dev/null || fail "summary.json is not what was printed"
[ "$(grep -c ',all,' "$folder/frozen/curves.csv")" = 78 ] || fail "lines of curves.csv"
[ "$(grep ',all,' "$folder/frozen/curves.csv" | cut -d, -f4 | sort -u | xargs)" = "12 20 28" ] || fail "galaxies asked about"
for seed in 1 2; do # what nobody chose is the same for all, and then the arms differ
    [ "$(awk -F, -v seed=$seed '$2 == seed && $3 == 0 && $6 == "all"' "$folder/frozen/curves.csv" | cut -d, -f4- | sort -u | wc -l)" = 1 ] || fail "arms of seed $seed start apart"
    for arm in $arms; do [ "$(sort -u "$folder/frozen/runs/${arm%%,*}-$seed.order" | wc -l)" = 28 ] || fail "a galaxy was asked about twice"; done
done
[ "$(cat "$folder"/frozen/runs/*-1.order | sort -u | wc -l)" -gt 40 ] || fail "all arms ask about the same galaxies"
cmp -s "$folder/frozen/runs/random-1.order" "$folder/frozen/runs/random-2.order" && fail "two seeds draw the same galaxies"
test_ids=$(awk -F, 'NR > 1 { print $1 }' "$truth" | sort | comm -23 - <(cat "$folder"/frozen/runs/*.order | sort -u) | wc -l)
[ "$test_ids" -ge "$(jq .test "$folder/frozen.json")" ] || fail "a test galaxy was asked about"
grep -q '</svg>' "$folder/frozen/curves.svg" || fail "curves.svg"

# The rules of the batch change what is asked; with all of them off, and a question that needs no better scores, nothing.
order() { cat "$folder/$1/runs/$2-1.order"; }
off=(--set queue.cluster_share=0 --set queue.duplicate_distance=0 --set queue.outlier_distance=0 --set queue.artifact_max=1)
replay --weights "$weights" --out "$folder/off" --set replay.arms=random,bald@1,bald@1:batch --set score.questions=disk-edge-on "${off[@]}" >/dev/null 2>"$folder/err" || fail "rules off: $(cat "$folder/err")"
[ "$(order off bald@1)" = "$(order off bald@1:batch)" ] || fail "rules that are off change what is asked"
[ "$(order off bald@1)" != "$(order off random)" ] || fail "a score changes nothing"
replay --weights "$weights" --out "$folder/capped" --set replay.arms=random,bald@1,bald@1:batch --set score.questions=disk-edge-on "${off[@]}" --set queue.cluster_share=0.125 --set queue.clusters=12 >/dev/null 2>&1 || fail "rules on"
[ "$(order capped bald@1)" = "$(order off bald@1)" ] || fail "rules change an arm that has none"
[ "$(order capped bald@1)" != "$(order capped bald@1:batch)" ] || fail "one of a kind changes nothing"

# One process or several, and more arms or seeds later: the same bytes.
replay --weights "$weights" --out "$folder/single" --set replay.arms=random,bald@1 --set replay.seeds=1 --set worker.threads=1 >/dev/null 2>&1 || fail "single"
replay --weights "$weights" --out "$folder/single" --set replay.arms=random,bald@1,epig >"$folder/out" 2>&1 || fail "more arms: $(cat "$folder/out")"
grep -q '^bald@1 ' "$folder/out" || fail "table: $(cat "$folder/out")"
for run in random-1 random-2 bald@1-1 bald@1-2 epig-2; do
    cmp "$folder/frozen/runs/$run.csv" "$folder/single/runs/$run.csv" || fail "$run depends on the number of processes"
done

# The network afresh at every step; killed in the middle, it ends the same.
scratch=(--set replay.track=scratch --set "replay.arms=random,bald-binomial" --set replay.seeds=1 --set training.batch=4 --set training.epochs_max=2 --set training.dropout=0.5)
replay --out "$folder/whole" "${scratch[@]}" >/dev/null 2>"$folder/err" || fail "scratch: $(cat "$folder/err")"
"$build/triaged" replay "$truth" "${small[@]}" "${scratch[@]}" --out "$folder/killed" >/dev/null 2>&1 &
last=$!
pids+=("$last")
one_step() { grep -q '^0,.*,all,' "$folder/killed/runs/random-1.csv" 2>/dev/null; }
wait_until 60 one_step
kill -KILL "$last"
wait "$last" 2>/dev/null && fail "it ended well in spite of SIGKILL"
replay --out "$folder/killed" "${scratch[@]}" >/dev/null 2>&1 || fail "it does not go on"
cmp "$folder/whole/curves.csv" "$folder/killed/curves.csv" || fail "a resumed run ends elsewhere"

# Bad input
expect 64 "missing: --out FOLDER" replay
expect 65 "arm 'bold@1': unknown score 'bold'" replay --weights "$weights" --out "$folder/x1" --set replay.arms=random,bold@1
expect 65 "a power is written @4" replay --weights "$weights" --out "$folder/x1" --set replay.arms=bald@-1
expect 65 "a random share is written +0.2" replay --weights "$weights" --out "$folder/x1" --set replay.arms=bald+2
expect 65 "the rules of the batch are written :batch" replay --weights "$weights" --out "$folder/x1" --set replay.arms=bald:bunch
expect 65 "replay.arms names no arm" replay --weights "$weights" --out "$folder/x1" --set replay.arms=,
expect 65 "needs a trunk that was trained: give --weights FILE" replay --out "$folder/x2"
expect 65 "nowhere.safetensors" replay --weights "$folder/nowhere.safetensors" --out "$folder/x3"
expect 65 "lower replay.steps" replay --weights "$weights" --out "$folder/x4" --set replay.steps=100
expect 65 "has no question 'colour'" replay --weights "$weights" --out "$folder/x5" --set score.questions=colour
expect 78 "holds runs with other settings" replay --weights "$weights" --out "$folder/frozen" --set replay.step=9
sed -i '2s/.*/nonsense/' "$folder/single/runs/epig-1.csv"
expect 65 "is no line of a run: delete the file to do it again" replay --weights "$weights" --out "$folder/single" --set replay.arms=random,bald@1,epig
[ "$failures" = 0 ] || exit 1
echo "simulated campaigns end, repeat and go on as they should"
