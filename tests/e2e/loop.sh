#!/usr/bin/env bash
# The loop closes, and totals agree whatever is killed: simulated galaxies and volunteers, several cycles, SIGKILL of the
# worker, of the daemon in the middle of a cycle, and of its private database. After each, every distinct valid vote is
# applied once, in the tables and in the pool; the models are there; a subscriber has exactly the daemon's queue.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 150
configure a
import a
start a
ready a
platform a --force-gap-after 50

cycles() { status_is a ".cycle.number >= $1 and .champion > 0"; }
number() { ctl a --json status | jq .cycle.number; }
settled() { status_is a '.votes.waiting == 0 and .cycle.step == "idle"'; }
earlier=0 # valid votes of the volunteers before these; new ones come behind them
cast() { echo $((earlier + $(jq .votes_distinct_valid "$folder/a.json"))); }
applied() { status_is a ".votes.applied == $(cast)"; }
distinct="SELECT count(*) FROM (SELECT DISTINCT id_str, question, voter FROM triage.vote) v"

agree() { # AFTER: volunteers pause, everything in flight arrives, and nothing moves while we compare
    local truth id
    kill -TERM "$platform" && wait "$platform"
    wait_until 30 applied
    wait_until 30 settled
    ctl a pause >/dev/null
    wait_until 30 settled
    # by SQL that shares nothing with triage.apply_votes()
    truth=$(sql a "$distinct")
    [ "$(cast)" = "$truth" ] || fail "after $1 the platform counted $(cast) valid votes, the table $truth"
    [ "$truth" -gt "$earlier" ] || fail "after $1 nobody voted"
    [ "$(ctl a --json votes | jq .applied)" = "$truth" ] || fail "after $1 the daemon applied $(ctl a --json votes) of $truth"
    [ "$(sql a "SELECT sum(votes) FROM triage.tally")" = "$truth" ] || fail "after $1 the tallies are not the $truth votes"
    sql a "SELECT id_str, question, answer, count(DISTINCT voter) FROM triage.vote GROUP BY 1, 2, 3 ORDER BY 1, 2, 3" >"$folder/voted"
    for id in $(cut -d'|' -f1 "$folder/voted" | uniq | head -20); do # the pool's tallies, vote by vote
        ctl a --json why "$id" |
            jq -r '.id as $id | .questions[] | .name as $q | .votes | to_entries[] | select(.value > 0) | [$id, $q, .key, .value] | join("|")'
    done | LC_ALL=C sort >"$folder/pooled"
    diff <(cut -d'|' -f1 "$folder/voted" | uniq | head -20 | grep -f - -F "$folder/voted" | LC_ALL=C sort) "$folder/pooled" ||
        fail "after $1 the pool holds other votes than were cast"
    "$build/triage-sim" queue --publish "ipc://$folder/a.publish" --snapshot "ipc://$folder/a.snapshot" --json >"$folder/feed.json"
    ctl a --json queue >"$folder/queue.json"
    [ "$(jq '.entries | length' "$folder/queue.json")" -gt 0 ] || fail "after $1 the queue is empty"
    diff <(jq -c '.seq, (.entries[] | [.id, .rank, .stream])' "$folder/feed.json") \
        <(jq -c '.seq, (.entries[] | [.id, .rank, .stream])' "$folder/queue.json") || fail "after $1 a subscriber has another queue"
    for id in $(ctl a --json models | jq '.models[] | .number'); do
        [ -s "$folder/a/models/$(printf %06d "$id").model" ] || fail "after $1 model $id has no file"
    done
    [ "$(cat "$folder/a/models/champion")" = "$(ctl a --json status | jq .champion)" ] || fail "after $1 the champion differs"
    echo "after $1: $truth votes, each applied once; $(ctl a --json models | jq '.models | length') models, cycle $(number)"
    ctl a resume >/dev/null
    earlier=$truth
}

wait_until 60 cycles 3
gap() { jq -e '.feed.gaps >= 1' "$folder/a.json" >/dev/null; }
wait_until 30 gap # the lost message was missed, and mended
agree "three cycles"

platform a --seed 4
kill -KILL "$(worker_of a)"
wait_until 60 status_is a '.worker.restarts == 1 and .worker.state != "down"'
wait_until 60 cycles $(($(number) + 2))
agree "the worker was killed"

platform a --seed 5
wait_until 30 status_is a '.cycle.step != "idle"'
at=$(number)
murder a
start a
ready a
[ "$(number)" -ge $((at - 1)) ] || fail "the cycle number went back from $at to $(number)"
wait_until 60 cycles $((at + 2))
agree "the daemon was killed"

platform a --seed 6
times=$(grep -c "the private database had ended" "$folder/a.log") || true
kill -KILL "$(head -1 "$folder/a/postgres/data/postmaster.pid")"
ended() { [ "$(grep -c "the private database had ended" "$folder/a.log")" -gt "$times" ]; }
wait_until 60 ended
wait_until 60 status_is a '.database == "ok"'
wait_until 60 cycles $(($(number) + 2))
agree "the database was killed"
stop a
