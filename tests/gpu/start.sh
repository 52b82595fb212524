#!/usr/bin/env bash
# The library of compile.sh, linked with the real CUDA libraries, loaded by the program on a machine without a driver: a message that says
# what is missing and what to do, and the processor where worker.fallback says so. Usage: start.sh ROOT BUILD
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
[ ! -e /dev/nvidiactl ] || { echo "skipped: this machine has a driver"; exit 77; }
# shellcheck source=tests/gpu/toolkit.sh
. "$1/tests/gpu/toolkit.sh"
[ -e "$2/gpu/backend.so" ] || { echo "skipped: gpu_compile made no library"; exit 77; }
export ASAN_OPTIONS=detect_leaks=0 # of the CUDA libraries
mkdir "$folder/bin"
cp "$build/triaged" "$folder/bin"
cp "$2/gpu/backend.so" "$folder/bin/triage-cuda.so"
configure a '[worker]
backend = cuda'

said() { # CODE TEXT COMMAND...
    local code=0
    "${@:3}" >"$folder/out" 2>&1 || code=$?
    [ "$code" = "$1" ] && grep -qi -- "$2" "$folder/out" || fail "${*:3} gave $code, wanted $1 and '$2'; it said: $(cat "$folder/out")"
}
said 69 'driver' "$folder/bin/triaged" gpu --config "$folder/a.conf"
survey 60
small=(--set "instance.schema=$schema" --set images.side=32 --set trunk.side=32 --set training.batch=16 --set training.epochs_max=1
    --set worker.threads=1 --set trunk.network=efficientnet_lite0 --set worker.backend=cuda)
said 69 'driver' "$folder/bin/triaged" finetune "$folder/survey/truth.csv" --out "$folder/a" "${small[@]}"
said 0 'COMPUTING ON THE CPU' "$folder/bin/triaged" finetune "$folder/survey/truth.csv" --out "$folder/b" "${small[@]}" --set worker.fallback=cpu
mv "$folder/bin/triage-cuda.so" "$folder/bin/elsewhere.so"
said 69 'triage-cuda.so' "$folder/bin/triaged" gpu --config "$folder/a.conf"
sed -n 's/^triaged: //p' "$folder/out"
