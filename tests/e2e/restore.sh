#!/usr/bin/env bash
# A dump restored into another server, whose transaction numbers are others: every vote is counted again, once, and new ones
# after them; a daemon that starts on it says so, and so does one whose server is replaced while it runs.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 20
configure a
import a
start a
ready a
vote() { echo "INSERT INTO triage.vote (classification, question, answer, id_str, voter)
    SELECT i, 'smooth-or-featured', CASE i % 3 WHEN 0 THEN 'smooth' ELSE 'featured-or-disk' END, 'sim1-' || lpad((1 + i % 20)::text, 6, '0'), 'u:' || i % 7
    FROM generate_series($1, $2) i"; }
sql a "$(vote 1 300)"
for _ in 1 2 3; do sql a "SELECT txid_current()" >/dev/null; done # its numbers run ahead of a fresh server's
wait_until 20 status_is a '.votes.applied + .votes.repeated == 300'
tallies() { psql -X -A -t -q -d "$1" -c "SELECT id_str, question, answer, votes FROM triage.tally_by_name WHERE votes > 0 ORDER BY 1, 2, 3"; }
tallies "$(url a)" >"$folder/before"
pg_dump -d "$(url a)" -n triage >"$folder/dump"
stop a
server start
psql -X -q -v ON_ERROR_STOP=1 -d "$server_url" <"$folder/dump" >/dev/null
psql -X -q -d "$server_url" -c "$(vote 301 320)" # written before any daemon has seen it
configure b "[database]
url = $server_url"
start b
ready b
wait_until 20 status_is b '.votes.applied + .votes.repeated == 320'
grep -q "the tallies were made again from every vote: the database was restored into another server" "$folder/b.log" || fail "it did not say so"
psql -X -q -d "$server_url" -c "$(vote 321 340)"
wait_until 20 status_is b '.votes.applied + .votes.repeated == 340'
diff <(tallies "$server_url") <(psql -X -A -t -q -d "$server_url" -c "SELECT id_str, question, answer, count(*) FROM
    (SELECT DISTINCT ON (id_str, voter) * FROM triage.vote ORDER BY id_str, voter, classification) v GROUP BY 1, 2, 3 ORDER BY 1, 2, 3") ||
    fail "not the totals of the votes"
[ -s "$folder/before" ] || fail "nothing was counted before"
# while it runs: the cursor is another server's again
psql -X -q -d "$server_url" -c "UPDATE triage.cursor SET system_identifier = 17; UPDATE triage.vote SET xid = '9000000000' WHERE classification < 100"
psql -X -q -d "$server_url" -c "$(vote 341 345)"
wait_until 20 status_is b '.votes.applied + .votes.repeated == 345 and .problems == []'
stop b
server stop
echo "every vote was counted once after each restore"
