#!/usr/bin/env bash
# The database is slow to answer a reader: whatever that one sends meanwhile, and whoever else asks or goes away, one question
# of readers is with it, since the same connection applies the votes. And a stop ends one that waits.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 40
configure a
import a
start a
ready a
sql a "ALTER SYSTEM SET log_statement = 'all'"
sql a "SELECT pg_reload_conf()" >/dev/null
lock() { # the quarantine, until unlock
    psql -X -q -d "$(url a)" -c "BEGIN; LOCK triage.quarantine; SELECT pg_sleep(60)" >/dev/null 2>&1 &
    pids+=($!)
    wait_until 20 locks granted 1
}
unlock() { sql a "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'" >/dev/null; }
locks() { [ "$(sql a "SELECT count(*) FROM pg_locks WHERE relation = 'triage.quarantine'::regclass AND $1")" = "$2" ]; }
asked() { grep -c "execute .*FROM triage.quarantine" "$folder/a/postgres/log" || true; }
lock
/usr/bin/python3 - "$folder/a/run/read.sock" >"$folder/asking" <<'PYTHON' &
import socket, sys, time
for goes_away in (True, False):
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    one.sendall(b'{"verb":"votes"}\n')
    for _ in range(100):
        try:
            one.sendall(b"\n")
        except OSError:  # refused, the second time
            break
        time.sleep(0.01)
    if goes_away:
        one.close()
    print("asked", flush=True)
time.sleep(60)
PYTHON
pids+=($!)
wait_until 20 grep -qz "asked.*asked" "$folder/asking"
wait_until 20 locks "NOT granted" 1
code=0
ctl a votes >"$folder/said" 2>&1 || code=$?
[ $code -eq 1 ] && grep -q "another reader's question" "$folder/said" || fail "another reader got $code: $(cat "$folder/said")"
ctl a status >/dev/null || fail "what needs no database is not answered"
unlock
answered() { ctl a votes >/dev/null 2>&1; }
wait_until 20 answered
[ "$(asked)" = 2 ] || fail "asked $(asked) times, not by the first and by the last reader"

lock
ctl a votes >/dev/null 2>&1 &
pids+=($!)
wait_until 20 locks "NOT granted" 1
stop a
echo "one question of readers at a time"
