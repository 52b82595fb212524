#!/usr/bin/env bash
# How galaxies are chosen by the running service: typical ones first, never two of the same place on the sky, what looks like an
# artifact for review only, retirement by information; and what triagectl says of it: why, review, diff, progress.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 120
# Every galaxy has a twin half an arcsecond away: 1 and 2, 3 and 4, ...
awk -F, -v OFS=, 'NR > 1 { if (NR % 2) { $3 = ra; $4 = sprintf("%.6f", dec + 0.00014) } else { ra = $3; dec = $4 } } { print }' \
    "$folder/survey/catalog.csv" >"$folder/survey/twins.csv"
configure a $'[queue]\nholdout_share = 0.2\nrandom_share = 0.2\n[score]\npower = 2'
import a "$folder/survey/twins.csv"
start a
ready a
answer() { ctl a --json "$@" >"$folder/answer.json"; }
so() { jq -e "$1" "$folder/answer.json" >/dev/null || fail "not so: $1 in $(cat "$folder/answer.json")"; }
idle() { status_is a '.cycle.step == "idle" and .votes.waiting == 0'; }
pairs() { # of one place on the sky on offer together
    sql a "SELECT count(*) FROM triage.queue q JOIN triage.queue p ON (p.galaxy - 1) / 2 = (q.galaxy - 1) / 2 AND p.galaxy < q.galaxy"
}

# Without a model: typical galaxies beside random ones, at least half from the hold-out.
wait_until 60 status_is a '.galaxies.embedded == 120 and .cycle.step == "idle" and .queue_length >= 8'
answer queue
so '[.entries[] | select(.stream == "active")] | length >= 2 and all(.[]; .probability == 1 and .model == 0)'
so '[.entries[] | select(.stream == "random")] | length >= 6'
so '.choice | test("^typical and random galaxies from [0-9]+ candidates in [0-9]+ kinds; left out: [0-9]+ like another")'
[ "$(pairs)" = 0 ] || fail "$(pairs) pairs of one place are on offer together"
answer why "$(jq -r '[.entries[] | select(.stream == "active")][0].id' "$folder/answer.json")"
so '.words | test("active stream: typical of its kind")'
answer status
so '.progress.known == false and (.progress.words | test("^too early to say: 0 of 5"))'

# With models: twins never together; every score has its parts, its model and its age.
platform a --rate 25
watched() { # at each look no pair is there
    [ "$(pairs)" = 0 ] || fail "$(pairs) pairs of one place are on offer together"
    status_is a '.champion >= 3 and .progress.known'
}
wait_until 120 watched
kill -TERM "$platform" && wait "$platform"
wait_until 30 idle
ctl a pause >/dev/null
wait_until 30 idle
answer status
so '.progress | .active > 0 and .gain > 0 and .ratio > 0 and .ratio_high >= .ratio and (.words | test("nat, [0-9]+ % of the best so far"))'
jq .progress.gain "$folder/answer.json" >"$folder/gain"
sql a "SELECT gain_mean FROM triage.cycle ORDER BY number DESC LIMIT 1" >"$folder/recorded"
jq -ne --slurpfile a "$folder/gain" --slurpfile b "$folder/recorded" '($a[0] - $b[0]) | fabs < 1e-9' >/dev/null ||
    fail "status says $(cat "$folder/gain"), the database $(cat "$folder/recorded")"
checked=0
for id in $(ctl a --json queue | jq -r '.entries[] | select(.model > 0) | .id'); do
    answer why "$id"
    so '. as $w | ([.questions[] | .asked * (.total - .expected)] | add) - ($w.total - $w.expected) | fabs < 1e-4'
    so '((.score - (.total - .expected)) | fabs) < 1e-4'
    so '.model >= 1 and .age_s >= 0 and .age_s < 600 and .votes_due == ([1, 8 - .root_votes] | max) and (.because | length) >= 2'
    so 'all(.questions[]; .exact)' # 8 votes: exact for up to six answers
    checked=$((checked + 1))
done
[ "$checked" -gt 3 ] || fail "only $checked galaxies on offer were scored"
ctl a why "$(ctl a --json queue | jq -r '[.entries[] | select(.model > 0)][0].id')" | grep -qE '^- [0-9]+ % of it from .*asked with probability' ||
    fail "why does not say which question it comes from"

# diff: a model against itself, and against another; what it says adds up
answer diff 1 1
so '.rank_correlation == 1 and .top_tenth_shared == 1 and .compared >= 100 and all(.moved[]; .rank[0] == .rank[1] and .change == 0)'
answer diff 1 3 --top 7
so '.models == [1, 3] and (.moved | length) == 7 and .rank_correlation < 1 and .moved[0].rank[0] != .moved[0].rank[1]'
so '[.moved[] | (.rank[0] - .rank[1]) | fabs] as $m | $m == ($m | sort | reverse)'
so 'all(.moved[]; .change as $c | (.asked[1] * .information[1] - .asked[0] * .information[0] - $c) | fabs < 1e-6)'
so '. as $d | ([.questions[].information[1]] | add) - $d.mean_score[1] | fabs < 1e-3'
so 'all(.moved[]; .because | test("is asked with probability|passes disagree on"))'
code=0
ctl a diff 1 4000 >/dev/null 2>&1 || code=$?
[ $code = 66 ] || fail "a model that is not there: $code"
code=0
ctl a diff 1 >/dev/null 2>&1 || code=$?
[ $code = 64 ] || fail "one model: $code"

# The gain is known again after a restart.
stop a
start a
ready a
answer status
so '.progress.known and .progress.gain > 0'

# Artifacts: with a limit below every expectation all that may be scored is held back and listed, none is on offer for its score.
sed -i 's/^size = 12/size = 10\nartifact_max = 0\nreview_size = 5/' "$folder/a.conf"
ctl a reload >/dev/null
ctl a exclude "$(ctl a --json queue | jq -r '.entries[0].id')" >/dev/null
listed() { answer review && jq -e '.galaxies | length == 5' "$folder/answer.json" >/dev/null; }
wait_until 60 listed
so 'all(.galaxies[]; .reason == "artifact" and .value > 0 and .value < 1 and .score >= 0 and .model >= 3)'
so '[.galaxies[].score] as $s | $s == ($s | sort | reverse)'
held=$(jq -r '.galaxies[0].id' "$folder/answer.json")
wait_until 30 idle
answer why "$held"
so '.words | test("^held back for review: [0-9]+ % of the volunteers are expected to call it an artifact")'
[ "$(sql a "SELECT count(*) FROM triage.review r JOIN triage.queue q USING (galaxy)")" = 0 ] || fail "a galaxy is on offer and held back"

# Retirement by information: with a limit above every score, all galaxies with two classifications are done; hold-outs are not.
sed -i 's/^artifact_max = 0/retire_information = 1000\nretire_votes_min = 2/' "$folder/a.conf"
ctl a reload >/dev/null
ctl a exclude "$(ctl a --json queue | jq -r '.entries[0].id')" >/dev/null
retired() { [ "$(sql a "SELECT count(*) FROM triage.galaxy WHERE retired_why = 'information'")" -gt 0 ]; }
wait_until 60 retired
wait_until 30 idle
[ "$(sql a "SELECT count(*) FROM triage.galaxy WHERE retired_why = 'information' AND (split <> 0 OR root_votes < 2)")" = 0 ] ||
    fail "a hold-out galaxy, or one with too few votes, was retired"
[ "$(sql a "SELECT count(*) FROM triage.galaxy WHERE split = 0 AND root_votes >= 2 AND retired_at IS NULL AND NOT excluded AND NOT pinned")" = 0 ] ||
    fail "galaxies that would teach less than the limit are not retired"
[ "$(sql a "SELECT count(*) FROM triage.queue q JOIN triage.galaxy g ON g.key = q.galaxy WHERE g.retired_at IS NOT NULL")" = 0 ] ||
    fail "a retired galaxy is on offer"
stop a
echo "galaxies are chosen by the rules, and triagectl says why"
