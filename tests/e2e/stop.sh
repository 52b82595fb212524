#!/usr/bin/env bash
# SIGTERM ends the daemon within 10 s with exit code 0 from any state, with nothing of it left, and the next start finds
# pool, models and queue as they were.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 150
configure a $'[trunk]\nviews = 8'
import a
stops() { # FROM: within the limit systemd is told of, and completely
    local worker postmaster
    worker=$(ctl a --json status 2>/dev/null | jq .worker.pid) || worker=0
    postmaster=$(head -1 "$folder/a/postgres/data/postmaster.pid" 2>/dev/null) || postmaster=0
    local limit=$((SECONDS + 10)) pid=${daemon[a]} code=0
    kill -TERM "$pid"
    until gone "$pid"; do
        [ $SECONDS -le $limit ] || fail "still running 10 s after SIGTERM while $1"
        pause
    done
    wait "$pid" || code=$?
    unset "daemon[a]"
    [ $code -eq 0 ] || fail "ended with $code while $1"
    for pid in "${worker:-0}" "${postmaster:-0}"; do
        [ "$pid" -le 1 ] || wait_until 2 gone "$pid" # the database removes its pid file just before it ends
    done
}
start a
stops "starting"
start a
wait_until 60 status_is a '.galaxies.embedded >= 32'
stops "embedding"
start a
ready a
wait_until 60 status_is a '.galaxies.embedded == 150 and .queue_length == 12 and .cycle.step == "idle"'
before=$(ctl a --json queue | jq -c '[.entries[] | [.id, .stream]]')
stops "idle"
start a
ready a
wait_until 30 status_is a '.galaxies.embedded == 150 and .queue_length == 12'
[ "$(ctl a --json queue | jq -c '[.entries[] | [.id, .stream]]')" = "$before" ] || fail "the queue is not what it was"
platform a
wait_until 60 status_is a '.champion >= 1'
sed -i 's/^epochs_max = .*/epochs_max = 10000\npatience = 10000/' "$folder/a.conf" # a fit that does not end by itself
ctl a reload >/dev/null
ctl a train now >/dev/null
wait_until 60 status_is a '.cycle.step == "training" and .worker.state == "busy"'
champion=$(ctl a --json status | jq .champion)
stops "training"
sed -i 's/^epochs_max = .*/epochs_max = 20/; /^patience/d' "$folder/a.conf"
start a
ready a
[ "$(ctl a --json status | jq .champion)" -ge "$champion" ] || fail "the champion was lost"
ctl a pause >/dev/null
stops "paused"
start a
ready a
kill -KILL "${daemon[a]}" # and after a kill, with the volunteers going on
wait "${daemon[a]}" 2>/dev/null || true
start a
ready a
kill -STOP "$(ctl a --json status | jq .worker.pid)"
stops "the worker hangs"
echo "every stop was clean"
