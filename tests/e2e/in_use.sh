#!/usr/bin/env bash
# What is in use already is said by name, with an exit code: an endpoint of the feed, a TCP port, the state folder. And
# what a killed daemon leaves behind does not stop the next one.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 30
configure a
import a
start a
ready a
refuses() { # NAME TEXT
    local code=0
    timeout 60 "$build/triaged" run --config "$folder/$1.conf" >"$folder/said" 2>&1 || code=$?
    [ $code -eq 69 ] || fail "ended with $code, not 69: $(cat "$folder/said")"
    grep -qF -- "$2" "$folder/said" || fail "nothing says '$2': $(cat "$folder/said")"
}
refuses a "another triaged works in $folder/a"
status_is a '.ready and .database == "ok"' || fail "the second daemon disturbed the first"

# a TCP port that somebody else listens on; the system chooses it
/usr/bin/python3 - "$folder/port" <<'PYTHON' &
import os, signal, socket, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(listener.getsockname()[1]))
os.rename(sys.argv[1] + ".new", sys.argv[1])
signal.pause()
PYTHON
pids+=($!)
wait_until 10 test -e "$folder/port"
configure b
import b
sed -i "s|^publish = .*|publish = tcp://127.0.0.1:$(cat "$folder/port")|" "$folder/b.conf"
refuses b "tcp://127.0.0.1:$(cat "$folder/port")"
grep -q "feed.publish" "$folder/said" || fail "the key to change is not named: $(cat "$folder/said")"
[ ! -e "$folder/b/postgres/data/postmaster.pid" ] || fail "a refused start left its database running"

# a path that another daemon listens on is not taken from it, one left over is
sed -i "s|^publish = .*|publish = ipc://$folder/a.publish|" "$folder/b.conf"
refuses b "ipc://$folder/a.publish is in use"
ctl a --json status >"$folder/status.json"
jq -e '.ready and .worker.restarts == 0' "$folder/status.json" >/dev/null || fail "the refused one disturbed the first"
murder a
worker=$(jq .worker.pid "$folder/status.json")
wait_until 10 gone "$worker" # a killed daemon takes its worker along
start a
ready a
stop a
echo "what is in use is named"
