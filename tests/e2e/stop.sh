#!/usr/bin/env bash
# SIGTERM ends the daemon within 10 s with exit code 0 from any state, with nothing of it left, and the next start finds
# pool, models and queue as they were.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 150
configure a $'[trunk]\nviews = 8\n[queue]\nretire_votes = 1000' # the volunteers never run out of galaxies
import a
left_over() { # processes of daemon a: its worker, and whatever works in its database's folder
    local process
    for process in /proc/[0-9]*; do
        if tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -qF "worker --endpoint ipc://$folder/a/run/" ||
            [ "$(readlink "$process/cwd" 2>/dev/null)" = "$folder/a/postgres/data" ]; then
            gone "${process#/proc/}" || echo "${process#/proc/}"
        fi
    done
}
nothing_left() { [ -z "$(left_over)" ]; }
stops() { # WHILE: within the limit systemd is told of, and completely
    ends a TERM "$1"
    wait_until 30 nothing_left # a killed server's children end when they notice
}
postmaster() { head -1 "$folder/a/postgres/data/postmaster.pid"; }
as_before() { # the pool and the queue are those of the last run
    ready a
    wait_until 30 status_is a '.galaxies.embedded == 150 and .galaxies.bad == 0 and .queue_length == 12'
}
start a
wait_until 20 test -e "$folder/a/postgres/data/postmaster.pid" # before, signals may not be looked at yet
[ -n "$(left_over)" ] || fail "this test does not see the database"
stops "starting"
start a
wait_until 60 status_is a '.galaxies.embedded >= 32'
stops "embedding"
start a
ready a
wait_until 240 status_is a '.galaxies.embedded == 150 and .queue_length == 12 and .cycle.step == "idle"'
before=$(ctl a --json queue | jq -c '[.entries[] | [.id, .stream]]')
stops "idle"
start a
as_before
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
as_before
ended() { [ "$(grep -c "the private database had ended" "$folder/a.log")" -gt "$1" ]; }
times=$(grep -c "the private database had ended" "$folder/a.log") || true
kill -KILL "$(postmaster)"
wait_until 20 ended "$times"
stops "the database is being started again"
start a
as_before
kill -STOP "$(postmaster)"
stops "the database hangs"
start a
as_before
stopping=$(grep -c "stopping" "$folder/a.log")
told_to_stop() { [ "$(grep -c "stopping" "$folder/a.log")" -gt "$stopping" ]; }
hanging=$(postmaster) code=0
kill -STOP "$hanging" # so that the stop takes a while, and a second SIGTERM finds it under way
kill -TERM "${daemon[a]}"
wait_until 5 told_to_stop
kill -TERM "${daemon[a]}"
wait "${daemon[a]}" || code=$?
unset "daemon[a]"
[ $code -eq 143 ] || fail "a second SIGTERM did not end it at once, but with $code"
kill -CONT "$hanging"
start a
as_before
kill -KILL "${daemon[a]}" # and after a kill, with the volunteers going on
wait "${daemon[a]}" 2>/dev/null || true
start a
as_before
kill -STOP "$(worker_of a)"
stops "the worker hangs"
[ "$(sql a "SELECT 1" 2>/dev/null)" != 1 ] || fail "the database still answers"
start a
as_before
kill -TERM "$platform" && wait "$platform"
stop a
echo "every stop was clean"
