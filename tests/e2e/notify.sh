#!/usr/bin/env bash
# What systemd is told: READY only when requests are answered, WATCHDOG while every part ticks, RELOADING and READY around a
# reload, STOPPING at the end. A hanging worker is ended and replaced meanwhile.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 40
configure a $'[worker]\njob_timeout_s = 5'
import a
export NOTIFY_SOCKET=$folder/notify WATCHDOG_USEC=600000
/usr/bin/python3 - "$NOTIFY_SOCKET" "$build/triagectl" "$folder/a" >"$folder/told" <<'PYTHON' &
import socket, subprocess, sys
path, ctl, state = sys.argv[1:]
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(path)
first = True
while True:
    for line in receiver.recv(4096).decode().splitlines():
        key = line.split("=")[0]
        if key == "READY" and first: # at this very moment the service must answer
            first = False
            key += " " + str(subprocess.run([ctl, "--state", state, "status"], capture_output=True).returncode)
        print(key, flush=True)
PYTHON
pids+=($!)
wait_until 10 test -S "$NOTIFY_SOCKET"
chmod 0777 "$NOTIFY_SOCKET" # also the private PostgreSQL could write to it, and must not: it is ready before we are
unset WATCHDOG_PID
start a
told() { [ "$(grep -cx "$1" "$folder/told")" -ge "$2" ]; }
wait_until 60 grep -q "^READY" "$folder/told"
grep -qx "READY 0" "$folder/told" || fail "told READY before requests are answered: $(head -1 "$folder/told")"
wait_until 20 told WATCHDOG 3
kill -HUP "${daemon[a]}"
wait_until 20 told RELOADING 1
wait_until 20 told READY 1
ready a
wait_until 30 status_is a '.worker.state == "idle"'
worker=$(worker_of a)
restarts=$(ctl a --json status | jq .worker.restarts)
kill -STOP "$worker" # it hangs: the next job makes no progress
ctl a train now >/dev/null
wait_until 60 status_is a ".worker.restarts > $restarts and .worker.state == \"idle\""
gone "$worker" || fail "the hanging worker is still there"
fed=$(grep -cx WATCHDOG "$folder/told")
wait_until 20 told WATCHDOG $((fed + 2))
stop a
wait_until 10 told STOPPING 1
[ "$(tail -1 "$folder/told")" = STOPPING ] || fail "the last word was $(tail -1 "$folder/told")"
[ "$(grep -nx "RELOADING" "$folder/told" | head -1 | cut -d: -f1)" -lt "$(grep -nx "READY" "$folder/told" | head -1 | cut -d: -f1)" ] ||
    fail "READY came before RELOADING"
echo "systemd is told the truth: $(sort "$folder/told" | uniq -c | tr -s '\n ' ' ')"
