#!/usr/bin/env bash
# Under the system calls and address families that the unit leaves it, as a user without rights: the private database, the worker and
# what oneDNN makes, the feed on TCP, votes, a fit, a ranking, reading the configuration again, and the stop. With "device" as third
# argument the worker computes on the first CUDA device.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
command -v systemd-analyze >/dev/null || { echo "skipped: systemd-analyze is not installed"; exit 77; }
export ASAN_OPTIONS=detect_leaks=0 # which needs ptrace, and the unit has none
survey 60
port=$((20000 + RANDOM % 20000))
configure a "[feed]
publish = tcp://127.0.0.1:$port
snapshot = tcp://127.0.0.1:$((port + 1))
[worker]
backend = ${backend:=$([ "${3:-cpu}" = device ] && echo cuda || echo cpu)}"
user=()
if [ "$(id -u)" = 0 ]; then
    user=(setpriv --reuid=postgres --regid=postgres --clear-groups)
    mkdir "$folder/a" && chown postgres:postgres "$folder/a"
fi
as_unit=("${user[@]}" /usr/bin/python3 "$root/tests/support/as_unit.py" "$root/systemd/triaged.service")
allowed() { "${as_unit[@]}" /usr/bin/python3 -c "$1" >"$folder/said" 2>&1; }
allowed 'import socket; socket.socket(socket.AF_INET)' || fail "the sandbox forbids what the unit allows: $(cat "$folder/said")"
allowed 'import socket; socket.socket(socket.AF_VSOCK)' && fail "the sandbox allows other address families"
grep -q 'Address family not supported' "$folder/said" || fail "refused for another reason: $(cat "$folder/said")"
code=0
allowed 'import os; os.chroot("/")' || code=$?
[ $code -eq 159 ] || fail "another system call did not end the process (128 + SIGSYS): $code"

"${user[@]}" "$build/triaged" import --config "$folder/a.conf" "$folder/survey/catalog.csv" >>"$folder/a.log" 2>&1
"${as_unit[@]}" "$build/triaged" run --config "$folder/a.conf" >>"$folder/a.log" 2>&1 &
daemon[a]=$!
ready a
"$build/triage-sim" platform --database "$(url a)" --publish "tcp://127.0.0.1:$port" --snapshot "tcp://127.0.0.1:$((port + 1))" \
    --schema "$schema" --oracle "$folder/survey/truth.csv" --rate 60 --seed 3 --status "$folder/a.json" >/dev/null 2>>"$folder/a.log" &
platform=$!
pids+=("$platform")
wait_until 90 status_is a '.champion > 0 and .galaxies.embedded > 0 and .queue_length > 0'
kill -HUP "${daemon[a]}"
wait_until 30 grep -q '\[reloaded\]' "$folder/a.log"
kill -TERM "$platform" && wait "$platform"
all_counted() { status_is a ".votes.applied == $(jq .votes_distinct_valid "$folder/a.json") and .worker.restarts <= 1"; }
wait_until 60 all_counted # one restart: the reload's
status_is a ".worker.backend == \"$backend\" and .worker.fallback == \"\"" || fail "the worker computes elsewhere: $(ctl a --json status | jq -c .worker)"
stop a
! grep -E 'signal 31|ABORT' "$folder/a.log" || fail "a process was ended by the sandbox"
echo "serves under what the unit allows, on $backend: $(jq .votes_distinct_valid "$folder/a.json") votes"
