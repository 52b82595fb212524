#!/usr/bin/env bash
# What the trunk computes in is said, and is what is configured or nothing: a processor without AVX-512 (oneDNN is told that this one
# is) refuses bfloat16, before any embedding is stored.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 40
with_precision() { # NAME PRECISION
    configure "$1" $'[training]\ntrunk = off'
    sed -i "s/^calibration_images.*/&\nprecision = $2/" "$folder/$1.conf"
    import "$1" "$folder/survey/catalog.csv"
}
with_precision float fp32
start float
ready float
wait_until 60 status_is float '.worker.precision == "fp32" and .galaxies.embedded == 40'
ctl float status | grep -q 'computing on cpu, trunk in fp32' || fail "the words of status hide the precision"
grep -q 'backend cpu, trunk in fp32' "$folder/float.log" || fail "the log hides the precision"
stop float
# Embeddings of a random trunk are normalised, of given weights they are not: the pool holds one kind, and says so before it mixes them.
sed "s|^calibration_images.*|&\nweights = $folder/models/trunk-000001.safetensors|" "$folder/float.conf" >"$folder/given.conf"
code=0
"$build/triaged" run --config "$folder/given.conf" 2>"$folder/given.log" || code=$?
[ "$code" = 78 ] && grep -q 'made with trunk weights 0, the configuration says 1' "$folder/given.log" || fail "weights for a pool of another trunk: $code, $(cat "$folder/given.log")"

with_precision half bf16
export DNNL_MAX_CPU_ISA=AVX2
start half
wait_until 60 status_is half '.worker.restarts >= 2'
status_is half '.ready == false and .galaxies.embedded == 0' || fail "bfloat16 without AVX-512 computes something else"
grep -q 'cannot start: .*no AVX-512 and cannot compute in bfloat16: set trunk.precision = fp32' "$folder/half.log" || fail "the log does not say what to do"
stop half
unset DNNL_MAX_CPU_ISA
grep -q avx512bw /proc/cpuinfo || { echo "skipped: bfloat16 itself, this processor has no AVX-512"; exit 0; }
start half
ready half
wait_until 60 status_is half '.worker.precision == "bf16" and .galaxies.embedded == 40'
stop half
