#!/usr/bin/env bash
# Without a GPU: said what is missing, no computing on the CPU unless configured, and then loud everywhere; systemd is asked to wait.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
code=0
"$build/triaged" gpu --json >"$folder/gpu.json" || code=$?
[ $code -ne 0 ] || { echo "skipped: there is a GPU; ./check --gpu looks at it"; exit 77; }
[ $code -eq 69 ] || fail "triaged gpu ended with $code"
[ "$(wc -l <"$folder/gpu.json")" = 1 ] || fail "not one line: $(cat "$folder/gpu.json")"
jq -e '.error | test("cuda|CUDA|driver")' "$folder/gpu.json" >/dev/null || fail "$(cat "$folder/gpu.json")"
"$build/triaged" gpu 2>"$folder/gpu.txt" && fail "triaged gpu without a GPU"
grep -q 'worker.backend = cpu' "$folder/gpu.txt" || fail "no advice: $(cat "$folder/gpu.txt")"

survey 40
configure none "[worker]
backend = cuda"
import none
/usr/bin/python3 - "$folder/notify" >"$folder/told" <<'PYTHON' &
import socket
import sys

listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind(sys.argv[1])
while True:
    print(listener.recv(4096).decode().replace("\n", " "), flush=True)
PYTHON
pids+=($!)
wait_until 10 test -S "$folder/notify"
NOTIFY_SOCKET=$folder/notify start none
wait_until 60 status_is none '.worker.restarts >= 2'
status_is none '.ready == false and .worker.backend == "" and .galaxies.embedded == 0' || fail "a worker computes without a GPU"
ctl none status >"$folder/status"
grep -qE '^  worker    (down|starting)$' "$folder/status" || fail "words of status: $(cat "$folder/status")"
grep -q 'PROBLEM   the worker cannot start: the cuda backend' "$folder/status" || fail "status hides why: $(cat "$folder/status")"
ctl none --json doctor >"$folder/doctor" && fail "the doctor finds it well"
jq -e '[.incidents[].kind] == ["worker-start"] and (.incidents[0] | .over == false and .times == 1 and (.words | test("worker.backend = cpu")))' "$folder/doctor" || fail "$(cat "$folder/doctor")"
waits() { [ "$(grep -c '^EXTEND_TIMEOUT_USEC=30000000 STATUS=NOT SERVING: the worker' "$folder/told")" -ge 3 ]; }
wait_until 30 waits # systemd does not end a start that waits for a driver, and shows what it waits for
kill -HUP "${daemon[none]}" # what somebody does who sees it wait
wait_until 30 grep -q '\[reloaded\]' "$folder/none.log"
waited=$(wc -l <"$folder/told")
goes_on() { tail -n +$((waited + 1)) "$folder/told" | grep -q '^EXTEND_TIMEOUT_USEC'; }
wait_until 30 goes_on
! grep -q READY "$folder/told" || fail "ready without a worker: $(cat "$folder/told")"
grep -q 'cannot start: .*worker.backend = cpu' "$folder/none.log" || fail "the log does not say what to do"
stop none

configure loud "[worker]
backend = cuda
fallback = cpu"
import loud
start loud
ready loud 120
status_is loud '.worker.backend == "cpu" and (.worker.fallback | length > 20) and (.problems | tostring | test("computing on the CPU"))' ||
    fail "status hides the fallback"
ctl loud status >"$folder/status"
grep -q 'INSTEAD OF CUDA' "$folder/status" || fail "the words of status hide the fallback"
ctl loud ready >"$folder/ready" && fail "readiness hides the fallback: $(cat "$folder/ready")"
ctl loud metrics >"$folder/metrics"
grep -qx 'triage_worker_fallback 1' "$folder/metrics" || fail "the metrics hide the fallback"
grep -q 'COMPUTING ON THE CPU' "$folder/loud.log" || fail "the log hides the fallback"
stop loud
