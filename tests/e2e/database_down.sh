#!/usr/bin/env bash
# A database that is away at the start is waited for and then named, with exit code 69; one that goes away while the daemon
# runs costs nothing: the feed goes on, status says so, and votes of before and after are applied once.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 60
configure a "[database]
url = $server_url
wait_s = 1
[queue]
retire_votes = 1000" # else all that is on offer may be done just as the database goes
url() { echo "$server_url"; }

start a
code=0
wait "${daemon[a]}" || code=$?
unset "daemon[a]"
[ $code -eq 69 ] || fail "without a database the daemon ended with $code, not 69"
grep -q "the database is away: .*$folder/server/socket.*; trying for 1 s" "$folder/a.log" || fail "the log does not say what is away"
grep -q "error: cannot start: .*$folder/server/socket" "$folder/a.log" || fail "the last word does not name the database"

server start
import a
server stop
sed -i 's/^wait_s = 1/wait_s = 60/' "$folder/a.conf"
: >"$folder/a.log"
start a
wait_until 30 grep -q "the database is away" "$folder/a.log"
server start
ready a
platform a
wait_until 60 status_is a '.cycle.number >= 2 and .champion > 0'

for round in 1 2; do
    if [ $round -eq 1 ]; then # volunteers pause, so that the queue stands still; in round 2 it goes away in the midst of things
        kill -STOP "$platform"
        wait_until 30 status_is a '.votes.waiting == 0 and .cycle.step == "idle" and .queue_length > 0'
    fi
    server stop
    wait_until 30 status_is a '.database != "ok" and (.problems | length > 0)'
    ctl a status >"$folder/said"
    grep -q "PROBLEM *database: " "$folder/said" || fail "status does not show the problem: $(cat "$folder/said")"
    "$build/triage-sim" queue --publish "ipc://$folder/a.publish" --snapshot "ipc://$folder/a.snapshot" --json >"$folder/feed.json" ||
        fail "the feed is away with the database"
    if [ $round -eq 1 ]; then
        ctl a --json queue >"$folder/queue.json"
        jq -e '.entries | length > 0' "$folder/feed.json" >/dev/null || fail "the queue is empty without the database"
        diff <(jq -c '.entries[] | [.id, .rank]' "$folder/feed.json") <(jq -c '.entries[] | [.id, .rank]' "$folder/queue.json")
        kill -CONT "$platform"
    fi
    server start
    wait_until 30 status_is a '.database == "ok" and .problems == []'
    at=$(ctl a --json status | jq .cycle.number)
    wait_until 60 status_is a ".cycle.number > $at"
    echo "round $round: away and back"
done
kill -TERM "$platform" && wait "$platform"
applied() { status_is a ".votes.applied == $(jq .votes_distinct_valid "$folder/a.json")"; }
wait_until 30 applied
truth=$(sql a "SELECT count(*) FROM (SELECT DISTINCT id_str, question, voter FROM triage.vote) v")
[ "$(sql a 'SELECT sum(votes) FROM triage.tally')" = "$truth" ] || fail "the tallies are not the votes"
stop a
server stop
echo "$truth votes, each applied once"
