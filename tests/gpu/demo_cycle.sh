#!/usr/bin/env bash
# Cycles of the service on the cuda backend: 64 simulated galaxies at 32 pixels, the daemon's worker with gpu/ on the stand-in, loaded as
# on a GPU host; votes, fit, gate, ranking and feed. Then the device is lost in the middle of a cycle: the worker ends, the daemon starts
# another, and the same daemon goes on with the cycle; then it is lost again and again. Last, a host without a device: an error, or the processor if that was configured, loudly.
# With "device" as third argument all of it on the first real device (./check --gpu), where losing it is killing the worker.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
on=${3:-emulated} module=$2/tests/gpu/emulated/triage-cuda.so
[ "$on" = emulated ] || module=$2/triage-cuda.so
[ -e "$module" ] || { echo "skipped: nothing in gpu/"; exit 77; }
mkdir "$folder/bin"
cp "$build"/triaged "$build"/triagectl "$build"/triage-sim "$module" "$folder/bin" # the library is looked for beside the program
build=$folder/bin
export STANDIN_SEED=3 STANDIN_DEVICES=2 STANDIN_BARRED=1 STANDIN_LOST_HANGS=1
survey 64
configure a '[worker]
backend = cuda'
cycles() { status_is a ".cycle.number >= $1 and .champion > 0"; }

import a
start a
ready a 120
status_is a '.worker.backend == "cuda" and .worker.fallback == ""' || fail "the worker does not say cuda: $(ctl a --json status | jq -c .worker)"
platform a
wait_until 180 cycles 2
queued() { [ "$(ctl a --json queue | jq '.entries | length')" -gt 0 ]; }
wait_until 60 queued
! grep -q 'stand-in: ' "$folder/a.log" || fail "rules were broken: $(grep -A2 -m1 'stand-in: ' "$folder/a.log")"
! grep -q 'device 1[ :]' "$folder/a.log" || fail "worker.devices = 1 looks at the second: $(grep -m1 'device 1[ :]' "$folder/a.log")"
for job in 'images at a time' 'fitting .* heads' 'scoring .* galaxies'; do
    grep -q "device 0: .*$job.* takes .* MiB, of .* free" "$folder/a.log" || fail "what '$job' takes is not told"
done
done_by=$(ctl a --json status | jq .cycle.number)

lose_device() { # the worker with it
    local worker
    worker=$(ctl a --json status | jq .worker.pid)
    kill -KILL "$worker"
    another() { status_is a ".worker.pid != $worker and .worker.pid > 0 and .worker.backend == \"cuda\" and .worker.fallback == \"\""; }
    wait_until 120 another
    wait_until 180 cycles $((done_by + 1))
    stop a
}

# The first worker loses its device in the middle of its work, and closing what is on it would never end; the daemon, which was not
# restarted, gives the job to the next one. Then every worker loses its device after some operations; the daemon starts another each time, and goes on where it was once one keeps it.
lose_emulated_devices() {
    : >"$folder/a.log"
    stop a
    STANDIN_FAIL_AFTER=${LOSE_ONCE_AFTER:-150} STANDIN_FAIL_ONCE=$folder/lost start a
    wait_until 240 cycles $((done_by + 1))
    [ "$(grep -c 'device is lost' "$folder/a.log")" = 1 ] || fail "lost $(grep -c 'device is lost' "$folder/a.log") times, wanted once"
    status_is a '.worker.backend == "cuda" and .worker.fallback == ""' || fail "after a lost device: $(ctl a --json status | jq -c .worker)"
    grep -q 'the worker ended (.*); starting it again' "$folder/a.log" || fail "the worker did not end"
    done_by=$(ctl a --json status | jq .cycle.number)
    stop a

    : >"$folder/a.log"
    lost() { [ "$(grep -c 'device is lost' "$folder/a.log")" -ge 2 ]; }
    STANDIN_FAIL_AFTER=${LOSE_AFTER:-60} start a
    wait_until 120 lost
    stop a
    start a
    wait_until 180 cycles $((done_by + 1))
    stop a
}

# A training of its own, whose device is lost: the command ends, although closing what is on the device never would.
lose_emulated_training() {
    local code=0
    STANDIN_FAIL_AFTER=300 timeout -s KILL 300 "$build/triaged" finetune "$folder/survey/truth.csv" --config "$folder/a.conf" --out "$folder/training" \
        --set training.batch=8 --set training.epochs_max=1 >/dev/null 2>"$folder/training.err" || code=$?
    [ "$code" = 69 ] && grep -q 'device is lost' "$folder/training.err" || fail "a training that lost its device ended with $code: $(tail -3 "$folder/training.err")"
    grep -q '^device 0: training .* on 8 images at a time takes .* MiB, of .* free' "$folder/training.err" || fail "what a training takes is not told: $(cat "$folder/training.err")"
}

# Several devices, one of which is another's: what `triaged gpu` says of each. Devices without code for them are not usable.
gpu() { # CODE ARGUMENTS...
    local code=0
    "$build/triaged" gpu --config "$folder/a.conf" "${@:2}" >"$folder/gpu" 2>&1 || code=$?
    [ "$code" = "$1" ] || fail "triaged gpu ended with $code, wanted $1: $(cat "$folder/gpu")"
}
look_at_emulated_devices() {
    export STANDIN_DEVICES=3
    gpu 0 --json
    jq -e '[.devices[].usable] == [true, false, true] and .devices[0].error == "" and (.devices[1].error | test("exclusive"))' "$folder/gpu" >/dev/null ||
        fail "of three devices, the second taken: $(cat "$folder/gpu")"
    gpu 0
    grep -A1 '^device 1 ' "$folder/gpu" | grep -q 'cannot be used: .*exclusive' || fail "a taken device: $(cat "$folder/gpu")"
    [ "$(grep -c 'images at a time' "$folder/gpu")" = 2 ] || fail "the devices beside it: $(cat "$folder/gpu")"
    export STANDIN_DEVICES=1 STANDIN_CAPABILITY=70
    gpu 69
    grep -q 'cannot be used: .* not supported: its compute capability is 7.0' "$folder/gpu" || fail "an old device: $(cat "$folder/gpu")"
}

case $on in
emulated) lose_emulated_devices; lose_emulated_training; look_at_emulated_devices; export STANDIN_DEVICES=0 ;;
device) lose_device; export CUDA_VISIBLE_DEVICES= ;;
esac

# No device: what `triaged gpu` says, and the two ways to go on.
code=0
"$build/triaged" gpu --config "$folder/a.conf" 2>"$folder/no_driver" || code=$?
[ "$code" = 69 ] && grep -q 'worker.backend = cpu' "$folder/no_driver" || fail "triaged gpu without a device: $code, $(cat "$folder/no_driver")"
sed -i 's/^backend = cuda/backend = cuda\nfallback = cpu/' "$folder/a.conf"
start a
ready a 120
status_is a '.worker.backend == "cpu" and (.worker.fallback | test("worker.backend = cpu"))' || fail "the fallback is not in status: $(ctl a --json status | jq -c .worker)"
grep -q 'COMPUTING ON THE CPU' "$folder/a.log" || fail "the fallback is not loud"
stop a
echo "$done_by cycles ($on), and more after devices that were lost"
