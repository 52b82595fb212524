#!/usr/bin/env bash
# Votes at the command line: files imported beside a running daemon and without one, marks and rules, a stuck writer seen in
# the status, votes that come before their galaxies, tallies made again while the daemon runs, weights.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
triaged() { "$build/triaged" "$@" --config "$folder/a.conf"; }
survey 20
configure a
head -11 "$folder/survey/catalog.csv" >"$folder/survey/half.csv" # ten of twenty galaxies
import a "$folder/survey/half.csv"
cat >"$folder/votes.csv" <<'CSV'
classification,question,answer,id_str,voter,marks,classified_at
5,smooth-or-featured,smooth,sim1-000001,ada,,2026-01-02 03:04:05 UTC
3,smooth-or-featured,featured-or-disk,sim1-000001,ada,,
7,smooth-or-featured,smooth,sim1-000001,bob,seen_before,
8,smooth-or-featured,smooth,sim1-000002,bob,gold_standard,
9,smooth-or-featured,smooth,sim1-000020,bob,,
10,smooth-or-featured,square,sim1-000002,bob,,
eleven,smooth-or-featured,smooth,sim1-000002,bob,,
CSV
printf '[workflow]\n[T0]\nquestion = colour\nred = Red\n' >"$folder/other.ini"
# without a daemon: the private database is started and stopped
triaged votes import "$folder/votes.csv" --json | jq -e '.rows == 7 and .votes == 6 and .added == 6 and .rejected == 1' >/dev/null || fail import
triaged votes import "$folder/votes.csv" | grep -q "imported before" || fail "a second import"
# galaxies that are known keep what they have, and it is said; so are columns of no meaning, and the line of a bad location
sed '1s/$/,smooth-or-featured_smooth,smooth_or_featured/; 2,$s/$/,3,1/' "$folder/survey/half.csv" >"$folder/survey/voted.csv"
triaged import "$folder/survey/voted.csv" --json >"$folder/out"
jq -e '.known == 10 and .vote_columns == 1 and .votes_imported == false and .votes_left_out == 10 and (.ignored | test("smooth_or_featured"))' "$folder/out" || fail "$(cat "$folder/out")"
triaged import "$folder/survey/voted.csv" >"$folder/out"
grep -q '1 vote columns left out,.*passed over: .*smooth_or_featured' "$folder/out" && grep -q '^votes of 10 known galaxies left out: ' "$folder/out" || fail "$(cat "$folder/out")"
printf 'id_str,file_loc\nx,x.png\ny,/etc/hostname\n' >"$folder/survey/away.csv"
expect 65 "$folder/survey/away.csv:3: the file location" triaged import "$folder/survey/away.csv"
expect 65 "a workflow is for one tree" triaged votes import "$folder/votes.csv" --workflow "$folder/other.ini"
[ $failures -eq 0 ] || exit 1
start a
ready a
wait_until 20 status_is a '.votes.applied == 1 and .votes.repeated == 1 and .votes.ignored == 2 and .votes.quarantined == 2'
[ "$(sql a "SELECT id_str || ' ' || answer FROM triage.tally_by_name WHERE votes > 0")" = "sim1-000001 featured-or-disk" ] || fail "not the first by classification"
ctl a votes quarantine | grep -q "1 x row of votes.csv, .* bytes, .*: classification 'eleven' is not a whole number" || fail "$(ctl a votes quarantine)"
ctl a --json votes stats | jq -e '.applied == 1 and .lag_s == 0 and (has("quarantine") | not)' >/dev/null || fail "$(ctl a --json votes stats)"
# the other half of the galaxies: the vote that was there before them counts
import a
wait_until 20 status_is a '.galaxies.total == 20 and .votes.applied == 2 and .votes.quarantined == 1'
# a writer that does not end: seen, named, and nothing is lost
mkfifo "$folder/stuck"
PGAPPNAME=stuck-platform psql -X -q -d "$(url a)" <"$folder/stuck" >/dev/null &
pids+=($!)
exec 9>"$folder/stuck"
echo "BEGIN; INSERT INTO triage.vote (classification, question, answer, id_str) VALUES (100, 'smooth-or-featured', 'smooth', 'sim1-000003');" >&9
open() { [ "$(sql a "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stuck-platform' AND backend_xid IS NOT NULL")" = 1 ]; }
wait_until 20 open
sql a "INSERT INTO triage.vote (classification, question, answer, id_str, created_at)
    VALUES (101, 'smooth-or-featured', 'smooth', 'sim1-000003', clock_timestamp() - interval '3 minutes')"
wait_until 20 status_is a '.votes.lag_s > 170 and any(.problems[]; test("votes wait for .*stuck-platform.* must end first"))'
status_is a '.votes.applied == 2' || fail "a vote above the horizon was applied"
echo "COMMIT;" >&9
wait_until 20 status_is a '.votes.applied == 4 and .votes.lag_s == 0 and .problems == []'
exec 9>&-
# tallies that somebody spoilt are made again, and the daemon's pool follows
sql a "UPDATE triage.tally SET votes = votes + 5"
triaged votes rebuild --json | jq -e '.applied == 4' >/dev/null || fail rebuild
wait_until 20 status_is a '.votes.applied == 4 and .ready'
[ "$(sql a "SELECT sum(votes) FROM triage.tally")" = 4 ] || fail "$(sql a 'SELECT * FROM triage.tally')"
triaged votes weigh --json | jq -e '.voters == 0' >/dev/null || fail "weights from nothing"
triaged votes retry --json | jq -e '.votes == 0' >/dev/null || fail retry
[ "$(sql a "SELECT count(*) FROM pg_inherits WHERE inhparent = 'triage.vote'::regclass")" -ge 2 ] || fail "no partitions ahead"
stop a
# tallies made again between the page that is read last and the cursor: the pool holds the new ones all the same. A server of the
# test's own holds each table until the daemon waits for it.
locks() { psql -X -A -t -q -d "$server_url" -c "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'triage.$1'::regclass"; }
waits_for() { [ "$(locks "$1")" = 1 ]; }
holds() { [ "$(psql -X -A -t -q -d "$server_url" -c "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation = 'triage.$1'::regclass")" = 1 ]; }
server start
configure c "[database]
url = $server_url"
import c
# stopped while somebody else holds a table: code 75, and nothing about memory
mkfifo "$folder/held"
psql -X -q -d "$server_url" <"$folder/held" >/dev/null &
pids+=($!)
exec 7>"$folder/held"
echo "BEGIN; LOCK TABLE triage.vote, triage.galaxy;" >&7
wait_until 20 holds vote
for what in "vote votes import $folder/votes.csv" "galaxy import $folder/survey/catalog.csv"; do
    code=0
    # shellcheck disable=SC2086
    "$build/triaged" ${what#* } --config "$folder/c.conf" 2>"$folder/said" &
    pids+=($!)
    wait_until 20 waits_for "${what%% *}"
    kill -TERM "${pids[-1]}"
    wait "${pids[-1]}" || code=$?
    [ $code -eq 75 ] && grep -q "stopped by a signal" "$folder/said" || fail "$what: ended with $code: $(cat "$folder/said")"
done
echo "COMMIT;" >&7
exec 7>&-
psql -X -q -d "$server_url" -c "UPDATE triage.tally SET votes = votes + 5; INSERT INTO triage.tally (galaxy, answer_index, votes) VALUES (1, 0, 5) ON CONFLICT DO NOTHING"
mkfifo "$folder/tally" "$folder/cursor"
psql -X -q -d "$server_url" <"$folder/tally" >/dev/null &
pids+=($!)
exec 8>"$folder/tally"
psql -X -q -d "$server_url" <"$folder/cursor" >/dev/null &
pids+=($!)
exec 9>"$folder/cursor"
echo "BEGIN; LOCK TABLE triage.tally;" >&8
wait_until 20 holds tally
start c
wait_until 60 waits_for tally
echo "BEGIN; LOCK TABLE triage.cursor;" >&9
wait_until 20 holds cursor
echo "COMMIT;" >&8
wait_until 60 waits_for cursor
echo "SELECT triage.rebuild_tallies(); COMMIT;" >&9
exec 8>&- 9>&-
ready c
grep -q "tallies changed while they were read" "$folder/c.log" || fail "it did not notice"
# galaxy 1 has no votes, in the database and in the pool
[ "$(psql -X -A -t -q -d "$server_url" -c "SELECT COALESCE(sum(votes), 0) FROM triage.tally WHERE galaxy = 1")" = 0 ] || fail "not made again"
pooled=$(od -An -tu2 -j4096 -N2 "$folder/c/pool/tally.column") # the first count of the first galaxy, behind the header
[ "$((pooled))" = 0 ] || fail "the pool kept $pooled"
stop c
server stop
# other rules: every vote is counted again by them at the next start
configure a '[votes]
voter = last
count_also = seen_before, gold_standard'
start a
ready a
status_is a '.votes.applied == 6 and .votes.ignored == 0 and .votes.repeated == 1' || fail "$(ctl a status)"
[ "$(sql a "SELECT string_agg(id_str || ' ' || answer || ' ' || votes, ', ' ORDER BY id_str, answer) FROM triage.tally_by_name WHERE votes > 0 AND id_str < 'sim1-000003'")" = \
    "sim1-000001 smooth 2, sim1-000002 smooth 1" ] || fail "the last vote and marked ones count now"
stop a
code=0
for arguments in "votes" "votes import" "votes rebuild $folder/votes.csv" "votes nonsense" "votes rebuild --labels x"; do
    code=0
    # shellcheck disable=SC2086
    "$build/triaged" $arguments --config "$folder/a.conf" >/dev/null 2>&1 || code=$?
    [ $code -eq 64 ] || fail "'triaged $arguments' ends with $code"
done
configure b '[votes]
count_also = seen'
code=0
"$build/triaged" run -n --config "$folder/b.conf" 2>"$folder/said" || code=$?
[ $code -eq 78 ] && grep -q "votes.count_also: 'seen' is no mark" "$folder/said" || fail "$(cat "$folder/said")"
echo "votes are taken from files, by rules, and seen when they wait"
