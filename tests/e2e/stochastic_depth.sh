#!/usr/bin/env bash
# Stochastic depth when predicting (MC dropout): two views of a galaxy without augmentation are the same image, so that only trunks
# that skip other blocks can disagree about it.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 60
lines=$'dropout = 0\ncount = 1\nlearning_rate = 0.01\n[training]\ntrunk = off\naugmentation = none\n[queue]\nretire_votes = 1000\nduplicate_distance = 0'
for name in flat deep; do
    configure $name $'[heads]\n'"$lines"
    depth=$([ $name = flat ] && echo 0 || echo 0.2)
    sed -i "s/^calibration_images.*/&\nmc_views = 2\nmc_stochastic_depth = $depth/" "$folder/$name.conf"
    import $name
    start $name
    ready $name
    # Only galaxies to learn from have votes: nothing stops the heads before they tell galaxies apart.
    sql $name "INSERT INTO triage.vote (classification, question, answer, id_str, voter)
        SELECT 10 * key + n, 'smooth-or-featured', CASE key % 2 WHEN 0 THEN 'smooth' ELSE 'featured-or-disk' END, id_str, 'person-' || n
        FROM triage.galaxy, generate_series(1, 8) n WHERE split = 0"
    wait_until 120 status_is $name '.cycle.step == "idle" and .champion >= 1 and .galaxies.embedded == 60 and .votes.waiting == 0'
    ctl $name --json queue | jq -c '[.entries[] | [.id, .score, .total, .expected]]' >"$folder/$name.scores"
    stop $name
done
jq -e 'length == 12 and all(.[2] == .[3]) and (map(.[2]) | unique | length) == 12' "$folder/flat.scores" >/dev/null ||
    fail "two equal views disagree, or galaxies are all alike: $(cat "$folder/flat.scores")"
# Two trunks skip the same blocks for about one galaxy in seven.
jq -e 'length == 12 and all(.[2] >= .[3]) and (map(select(.[2] > .[3] + 1e-6)) | length) >= 6' "$folder/deep.scores" >/dev/null ||
    fail "stochastic depth gives no information: $(cat "$folder/deep.scores")"
echo "stochastic depth: $(jq '[.[][1]] | add / length' "$folder/deep.scores") nat on average, $(jq '[.[][1]] | add / length' "$folder/flat.scores") without"
