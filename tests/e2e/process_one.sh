#!/usr/bin/env bash
# As process 1 of a container the service works like anywhere else: its worker stays, models are trained, and it ends on SIGTERM.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
unshare --fork --pid --mount-proc true 2>/dev/null || { echo "a process namespace cannot be made here"; exit 77; }
survey 60
configure a
import a
unshare --fork --pid --mount-proc "$build/triaged" run --config "$folder/a.conf" >>"$folder/a.log" 2>&1 &
outer=$!
pids+=("$outer")
ready a
platform a
wait_until 90 status_is a '.champion > 0 and .cycle.number >= 3'
status_is a '.worker.restarts == 0' || fail "the worker ended $(ctl a --json status | jq .worker.restarts) times"
kill -TERM "$platform" && wait "$platform"
inner=$(pgrep -P "$outer")
grep -qE "^NSpid:.*\s1$" "/proc/$inner/status" || fail "not process 1: $(grep NSpid "/proc/$inner/status")"
kill -TERM "$inner"
wait_until 15 gone "$inner"
code=0
wait "$outer" || code=$?
[ $code -eq 0 ] || fail "it ended with $code"
echo "process 1 does all the rest do"
