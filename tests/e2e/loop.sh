#!/usr/bin/env bash
# The loop closes, and totals agree whatever is killed: simulated galaxies and volunteers, several cycles, SIGKILL of the
# worker, of the daemon and of its private database. At the end every distinct valid vote is applied once, the tallies
# are those of the votes, and a subscriber has exactly the daemon's queue.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 150
configure a
import a
start a
ready a
platform a --force-gap-after 50

cycles() { status_is a ".cycle.number >= $1 and .champion > 0"; }
wait_until 60 cycles 3
kill -KILL "$(ctl a --json status | jq .worker.pid)"
wait_until 60 status_is a '.worker.restarts == 1 and .worker.state != "down"'
at=$(ctl a --json status | jq .cycle.number)
wait_until 60 cycles $((at + 2))
murder a
start a
ready a
at=$(ctl a --json status | jq .cycle.number)
[ "$at" -ge 5 ] || fail "the cycle number went back to $at"
wait_until 60 cycles $((at + 1))
kill -KILL "$(head -1 "$folder/a/postgres/data/postmaster.pid")"
wait_until 60 status_is a '.database != "ok"'
wait_until 60 status_is a '.database == "ok"'
at=$(ctl a --json status | jq .cycle.number)
wait_until 60 cycles $((at + 2))

# Volunteers stop, everything in flight arrives, nothing moves while we compare.
kill -TERM "$platform" && wait "$platform"
applied() { [ "$(sql a 'SELECT applied FROM triage.cursor' 2>/dev/null)" = "$(jq .votes_distinct_valid "$folder/a.json")" ]; }
wait_until 30 applied
wait_until 30 status_is a '.votes.waiting == 0 and .cycle.step == "idle"'
ctl a pause >/dev/null
[ "$(jq '.feed.gaps >= 1' "$folder/a.json")" = true ] || fail "no gap was forced"

# The daemon's count and the tallies against the raw votes, by SQL that shares nothing with triage.apply_votes().
[ "$(ctl a --json votes | jq .applied)" = "$(jq .votes_distinct_valid "$folder/a.json")" ] || fail "votes applied differ"
truth=$(sql a "SELECT count(*) FROM (SELECT DISTINCT id_str, question, voter FROM triage.vote) v")
[ "$(jq .votes_distinct_valid "$folder/a.json")" = "$truth" ] || fail "the platform counted otherwise than the table: $truth"
tallied=$(sql a "SELECT sum(votes) FROM triage.tally")
[ "$tallied" = "$truth" ] || fail "the tallies hold $tallied votes of $truth"

"$build/triage-sim" queue --publish "ipc://$folder/a.publish" --snapshot "ipc://$folder/a.snapshot" --json >"$folder/feed.json"
ctl a --json queue >"$folder/queue.json"
[ "$(jq '.entries | length' "$folder/queue.json")" -gt 0 ] || fail "the queue is empty"
diff <(jq -c '.seq, (.entries[] | [.id, .rank, .stream])' "$folder/feed.json") <(jq -c '.seq, (.entries[] | [.id, .rank, .stream])' "$folder/queue.json")
stop a
echo "$truth votes, each applied once; a subscriber's queue is the daemon's"
