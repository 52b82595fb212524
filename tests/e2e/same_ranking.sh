#!/usr/bin/env bash
# The same votes give the same ranking, to the last digit, whatever the number of threads and the size of batches: a model
# trained, the pool scored, a shortlist refined, the batch drawn with every rule on.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 115 # below ten times the queue: the first cycle comes when all are embedded
rules=$'[queue]\ncluster_share = 0.2\nduplicate_distance = 1\nduplicate_arcsec = 3600\noutlier_distance = 1.6\nartifact_max = 0.3\nholdout_share = 0.2\n[score]\npower = 1'
configure a "$rules"
configure b "$rules"
sed -i 's/^threads = 1/threads = 3/; s/^embed_chunk = 32/embed_chunk = 9/' "$folder/b.conf"
header=$(head -1 "$folder/survey/truth.csv")
[[ $header == id_str,file_loc,smooth-or-featured_smooth,smooth-or-featured_featured-or-disk,smooth-or-featured_artifact,disk-edge-on_yes,* ]] ||
    fail "the truth has other columns: $header"
for name in a b; do
    import $name
    start $name
    ready $name
    wait_until 90 status_is $name '.galaxies.embedded == 115 and .cycle.number == 1 and .cycle.step == "idle"'
    ctl $name pause >/dev/null
    # 7 classifications of each of 90 galaxies: the first question and, of those who saw a disk, the second one
    awk -F, 'NR > 1 && NR <= 91 { for (n = 1; n <= 7; n++) { all = $3 + $4 + $5; at = (n - 0.5) / 7 * all; id = NR * 10 + n
        answer = at < $3 ? "smooth" : at < $3 + $4 ? "featured-or-disk" : "artifact"
        print id ",smooth-or-featured," answer "," $1 ",person-" n
        if (answer == "featured-or-disk") print id ",disk-edge-on," (n % 3 ? "no" : "yes") "," $1 ",person-" n } }' \
        "$folder/survey/truth.csv" >"$folder/votes.csv"
    # None for the gate's galaxies: then the first model is not measured, and serves.
    psql -X -q -d "$(url $name)" <<SQL
CREATE TEMPORARY TABLE cast_vote (LIKE triage.vote INCLUDING DEFAULTS);
\copy cast_vote (classification, question, answer, id_str, voter) FROM '$folder/votes.csv' CSV
INSERT INTO triage.vote (classification, question, answer, id_str, voter) SELECT classification, question, answer, id_str, voter
    FROM cast_vote JOIN triage.galaxy USING (id_str) WHERE split <> 2;
SQL
    wait_until 30 status_is $name ".votes.applied == $(sql $name 'SELECT count(*) FROM triage.vote') and .votes.applied > 300"
    sed -i 's/^size = 12/size = 30/' "$folder/$name.conf"
    ctl $name reload >/dev/null
    ctl $name resume >/dev/null
    wait_until 60 status_is $name '.cycle.number == 2 and .cycle.step == "idle" and .champion == 1'
    ctl $name pause >/dev/null
    ctl $name --json queue | jq '[.entries[] | del(.leased_until_ms)]' >"$folder/$name.queue"
    ctl $name --json review | jq .galaxies >"$folder/$name.review"
    ctl $name --json status | jq -r .progress.choice >"$folder/$name.choice"
    for id in $(jq -r '.[].id' "$folder/$name.queue"); do ctl $name --json why "$id" | jq 'del(.age_s)'; done >"$folder/$name.why"
    stop $name
done
for what in queue review choice why; do
    diff "$folder/a.$what" "$folder/b.$what" || fail "one thread and three give different results: $what"
done
jq -e '[.[] | select(.stream == "active" and .model == 1 and .score > 0 and .probability < 1)] | length > 5' "$folder/a.queue" >/dev/null ||
    fail "hardly anything was drawn by score: $(cat "$folder/a.queue")"
grep -qE "^by score from [0-9]+ candidates" "$folder/a.choice" || fail "not chosen by score: $(cat "$folder/a.choice")"
grep -qE "left out: [1-9][0-9]* like another" "$folder/a.choice" || fail "the rules had nothing to do: $(cat "$folder/a.choice")"
echo "one thread and three choose the same: $(cat "$folder/a.choice")"
