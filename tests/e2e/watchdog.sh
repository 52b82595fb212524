#!/usr/bin/env bash
# The watchdog is fed while the feed's heartbeats go out, and no longer when they do not, though the loop turns on: the disk of the
# feed's record is full. With room again it is fed again. More labelled galaxies than heads.labels_max: a fit uses a part, and says so.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
mkdir "$folder/small"
mount -t tmpfs -o size=256k triage-test "$folder/small" 2>/dev/null || { echo "a small file system cannot be mounted here"; exit 77; }
trap 'code=$?; set +e; umount -l "$folder/small"; (exit $code); clean_up' EXIT
survey 120
configure a "[feed]
record = $folder/small/record
[heads]
labels_max = 8
[queue]
retire_votes = 1000"
import a "$folder/survey/truth.csv"
export NOTIFY_SOCKET=$folder/notify WATCHDOG_USEC=600000
unset WATCHDOG_PID
/usr/bin/python3 - "$NOTIFY_SOCKET" >"$folder/told" <<'PYTHON' &
import socket, sys
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(sys.argv[1])
while True:
    print(receiver.recv(4096).decode().splitlines()[0], flush=True)
PYTHON
pids+=($!)
wait_until 10 test -S "$NOTIFY_SOCKET"
chmod 0777 "$NOTIFY_SOCKET"
start a
ready a
fed() { [ "$(grep -c "^WATCHDOG" "$folder/told")" -ge "$1" ]; }
wait_until 30 fed 3
wait_until 60 status_is a '.champion > 0'
grep -q "more than heads.labels_max = 8 labelled training galaxies: the fit uses [1-8], 1 in" "$folder/a.log" || fail "the sample is not told"
dd if=/dev/zero of="$folder/small/ballast" bs=4k 2>/dev/null || true
starved() { # not fed for 2 s, while requests are answered
    local before first
    first=$(ctl a --json queue | jq -r '.entries[0].id // empty')
    [ -z "$first" ] || ctl a exclude "$first" >/dev/null # something to record
    before=$(grep -c "^WATCHDOG" "$folder/told")
    status_is a .ready && wait_for_turns && [ "$(grep -c "^WATCHDOG" "$folder/told")" = "$before" ]
}
wait_for_turns() { for _ in $(seq 20); do pause; done; }
wait_until 60 starved
feed_fails() { status_is a '.problems | tostring | test("the feed does not reach its subscribers: cannot write the feed record")'; }
feed_fails || fail "status does not say why: $(ctl a --json status | jq -c .problems)"
[ "$(grep -c 'the feed does not reach its subscribers' "$folder/a.log")" = 1 ] || fail "the log does not say it once"
rm "$folder/small/ballast"
now=$(grep -c "^WATCHDOG" "$folder/told")
wait_until 60 fed $((now + 3))
! feed_fails || fail "it is not over for status"
grep -q 'the feed reaches its subscribers again' "$folder/a.log" || fail "it is not over for the log"
stop a
echo "no heartbeat, no watchdog"
