#!/usr/bin/env bash
# Hundreds of bad images in one job all reach the database with their reasons, also when it goes away just then.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 40
{
    cut -d, -f1,2 "$folder/survey/catalog.csv"
    for n in $(seq 600); do echo "absent-$n,absent/'$n' \\.png"; done # text that JSON and SQL must not mistake
} >"$folder/survey/all.csv"
configure a $'[worker]\nembed_chunk = 4096'
import a "$folder/survey/all.csv"
start a
ready a
wait_until 60 status_is a '.worker.state == "busy" and .worker.job == "embed" or .galaxies.bad == 600'
known() { [ "$(sql a "SELECT count(*), count(DISTINCT bad_reason) FROM triage.galaxy WHERE bad_reason ~ 'no such file'" 2>/dev/null)" = "600|$1" ]; }
wait_until 60 known 600
wait_until 30 status_is a '.galaxies.bad == 600 and .galaxies.embedded == 40 and .problems == []'
[ "$(ctl a --json galaxies --bad | jq -c '[.total, (.galaxies | length)]')" = "[600,600]" ] || fail "the list is short: $(ctl a --json galaxies --bad | jq .total)"

# Again, and the database is killed while the worker has them in hand.
wait_until 30 status_is a '.cycle.step == "idle" and .worker.state == "idle"'
ctl a pause >/dev/null
worker=$(worker_of a)
kill -STOP "$worker"
ctl a galaxies --bad --retry >/dev/null
wait_until 30 status_is a '.worker.state == "busy" and .worker.job == "embed"'
! known 600 || fail "still known as bad"
times=$(grep -c "the private database had ended" "$folder/a.log") || true
kill -KILL "$(head -1 "$folder/a/postgres/data/postmaster.pid")"
ended() { [ "$(grep -c "the private database had ended" "$folder/a.log")" -gt "$times" ]; }
wait_until 30 ended
kill -CONT "$worker"
wait_until 60 known 600
wait_until 30 status_is a '.galaxies.bad == 600 and .galaxies.embedded == 40 and .problems == []'
stop a
echo "600 bad images, each with its reason, twice"
