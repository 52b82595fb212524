#!/bin/bash
# An encrypted feed: keys given, listed and revoked while the daemon runs, both clients with them, refused handshakes in
# status and log, subscribers' lag in status, and no secret in log, arguments, environment or status, nor in a core file, since
# none is written. Half-secured daemons do not start.
# Arguments: source folder, build folder.
# shellcheck source=tests/support/daemon.sh
. "$1/tests/support/daemon.sh" "$@"

survey 40
configure one "[feed]
security = curve"
sed -i '/^security = plaintext/d' "$folder/one.conf"
keys=$folder/one/keys
follow=("$build/triage-sim" queue --publish "ipc://$folder/one.publish" --snapshot "ipc://$folder/one.snapshot" --json)
import one
start one
ready one
[ "$(stat -c %a "$keys" "$keys/server.key" | xargs)" = "700 600" ] || fail "the daemon's key is not private"
[ "$(ctl one --json keys list | jq '.keys | length')" = 0 ] || fail "somebody has a key already"
status_is one '.feed.security == "curve" and .feed.rejected == 0' || fail "status of the feed"

# Nobody without a key, and it is seen.
code=0
"${follow[@]}" --timeout 3 2>"$folder/said" || code=$?
[ $code -eq 75 ] && grep -q 'need --key FILE' "$folder/said" || fail "without a key it ended with $code: $(cat "$folder/said")"
wait_until 20 status_is one '.feed.rejected > 0 and (.feed.rejection | test("no encryption"))'
wait_until 20 grep -q 'handshakes refused' "$folder/one.log"
ctl one status | grep -q 'handshakes refused' || fail "status does not show the refusals"

# Keys.
cd "$folder"
ctl one keys new platform --role connector >/dev/null 2>&1 || fail "no key for a connector"
ctl one keys new reader --out "$folder/reader.key" --json 2>/dev/null | jq -e '.ok and .role == "subscriber"' >/dev/null || fail "no key for a subscriber"
[ "$(stat -c %a platform.key)" = 600 ] || fail "the key file is readable by others"
[ "$(ctl one --json keys list | jq -r '[.keys[] | .name + " " + .role] | join(", ")')" = "platform connector, reader subscriber" ] ||
    fail "the list: $(ctl one keys list)"
refused() { # CODE WORDS...
    local code=0
    ctl one "${@:2}" >/dev/null 2>"$folder/refusal" || code=$?
    [ $code -eq "$1" ] || fail "'${*:2}' ended with $code: $(cat "$folder/refusal")"
}
refused 1 keys new platform --out other.key
[ ! -e other.key ] || fail "a key file was written for a refused key"
refused 64 keys new platform # its file is there
refused 1 keys new ../x --out other.key
refused 64 keys new x --role king
refused 64 keys
refused 64 keys list all
refused 66 keys revoke nobody
code=0
"$build/triagectl" -s "$folder/one/run/read.sock" keys list 2>/dev/null || code=$?
[ $code -eq 1 ] || fail "the read-only socket lists keys"

# Both clients follow with their keys, and status shows them.
"${follow[@]}" --key platform.key >followed.json || fail "the connector cannot follow"
ctl one --json queue >queue.json
jq -e --slurpfile q queue.json '.epoch == $q[0].epoch and ([.entries[].id] == [$q[0].entries[].id]) and (.entries | length) > 5' \
    followed.json >/dev/null || fail "the connector has another queue"
python=/usr/bin/python3
$python -c 'import zmq, msgpack' 2>/dev/null || { echo "without python3-zmq and python3-msgpack: skipped" && exit 77; }
export PYTHONDONTWRITEBYTECODE=1
$python "$root/clients/python/triage_feed.py" --publish "ipc://$folder/one.publish" --snapshot "ipc://$folder/one.snapshot" \
    --key reader.key --name "a reader" >reader.out 2>&1 &
reader=$!
pids+=("$reader")
wait_until 30 status_is one '[.feed.subscribers[] | select(.name == "a reader" and .key == "reader" and .lag == 0)] | length == 1'
ctl one status | grep -q 'a reader, key reader: 0 behind' || fail "status does not show the reader: $(ctl one status)"
chmod 0644 platform.key
"${follow[@]}" --key platform.key --timeout 3 >/dev/null 2>refusal && fail "a key file that others can read was used"
grep -q "others can read it" refusal || fail "unclear: $(cat refusal)"
chmod 0600 platform.key

# Revoked while it follows: its rows end, it is refused from now on, and others go on.
ctl one keys revoke reader >/dev/null || fail "the key is not revoked"
status_is one '[.feed.subscribers[] | select(.key == "reader")] | length == 0' || fail "the revoked reader is still listed"
wait_until 30 status_is one '.feed.rejection | test("unknown or revoked")'
"${follow[@]}" --key platform.key >/dev/null || fail "revoking one key hurt another"
[ "$(ctl one --json keys list | jq -r '.keys[].name')" = platform ] || fail "the list after revoking"
kill "$reader"

# A list changed by hand is read again without a restart; a broken one is refused and the former one stays.
cp "$keys/clients" clients.saved
echo "[broken" >>"$keys/clients"
refused 1 reload
"${follow[@]}" --key platform.key >/dev/null || fail "a broken list locked everybody out"
cp clients.saved "$keys/clients"
ctl one reload >/dev/null || fail "the mended list is refused"

# Secrets.
secrets=$(sed -n 's/^secret=//p' "$keys/server.key" platform.key reader.key)
[ "$(wc -l <<<"$secrets")" = 3 ] || fail "no secrets to look for"
for where in "$folder/one.log" reader.out "$keys/clients"; do
    ! grep -qF "$secrets" "$where" || fail "a secret is in $where"
done
! ctl one --json status | grep -qF "$secrets" || fail "a secret is in status"
pid=${daemon[one]}
! tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qF "$secrets" || fail "a secret is in the arguments"
! tr '\0' '\n' <"/proc/$pid/environ" | grep -qF "$secrets" || fail "a secret is in the environment"
stop one

# The kernel takes the files of /proc/PID of a process that leaves no core file away from the user who runs it.
user=$(id -u) plain=(env)
[ "$user" != 0 ] || user=12345 plain=(setpriv --reuid=12345 --regid=12345 --clear-groups)
mkdir -m 0777 silent nobodys
silent=$folder/silent/.s.PGSQL.5432
"${plain[@]}" $python -c "import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(16)
time.sleep(60)" "$silent" &
pids+=($!)
wait_until 10 test -S "$silent"
configure nobodys "[database]
url = host=$folder/silent user=nobody dbname=nothing"
leaves_no_core() { # COMMAND that waits for a database or daemon that says nothing
    "${plain[@]}" "$@" >/dev/null 2>&1 &
    local pid=$!
    pids+=("$pid")
    is_closed() { owner=$(stat -c %u "/proc/$pid/environ" 2>/dev/null) && [[ $(cat "/proc/$pid/comm") == triage* ]] && [ "$owner" != "$user" ]; }
    wait_until 10 is_closed
    kill "$pid"
}
leaves_no_core "$build/triaged" import --config nobodys.conf "$folder/survey/catalog.csv"
leaves_no_core "$build/triaged" votes rebuild --config nobodys.conf
leaves_no_core "$build/triagectl" -s "$silent" keys new nobody --out "$folder/nobody.key"

# Half-secured daemons do not start, and say why.
no_start() { # WORDS: exit code 78 and these words
    local code=0
    timeout 60 "$build/triaged" run --config "$folder/one.conf" >half.log 2>&1 || code=$?
    [ $code -eq 78 ] || fail "'$1': ended with $code: $(tail -3 half.log)"
    grep -q "$1" half.log || fail "'$1' is not said: $(tail -3 half.log)"
    ! grep -qF "$secrets" half.log || fail "a secret is in the log"
}
chmod 0640 "$keys/server.key"
no_start "others can read it"
chmod 0600 "$keys/server.key"
mv "$keys/clients" clients.saved
no_start "the list of keys"
mv clients.saved "$keys/clients"
cp "$keys/server.key" server.saved
sed -i 's/^secret=.*/secret/' "$keys/server.key"
no_start "not a key file"
rm "$keys/server.key"
no_start "keys were given out"
cp server.saved "$keys/server.key" && chmod 0600 "$keys/server.key"
sed -i -e 's/^security = curve/security = plaintext/' -e "s|^publish = .*|publish = tcp://0.0.0.0:0|" "$folder/one.conf"
no_start "not encrypted"
echo "an encrypted feed: 3 secrets in no log, status, argument, environment or core"
