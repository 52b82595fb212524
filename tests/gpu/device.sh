#!/usr/bin/env bash
# What only a CUDA device can tell (./check --gpu): the conformance suite and goldens on the device against the same references as the cpu
# backend, cycles of the service, ranks over as many devices as there are, memory and race checks by compute-sanitizer
# (TRIAGE_SANITIZER_LIMIT_S each), then ./bench gpu. Ends with 77 and "skipped: no GPU" where there is none; where there is one, falling
# back to the CPU fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/gpu/gpus.sh
. tests/gpu/gpus.sh
has_gpu || { echo "skipped: $no_gpu"; exit 77; }
# shellcheck source=tests/gpu/toolkit.sh
(. tests/gpu/toolkit.sh) || { echo "there is a GPU, and nothing to build for it with"; exit 1; }
# shellcheck source=tests/gpu/toolkit.sh
. tests/gpu/toolkit.sh
tools/install_packages --test
cmake --preset cuda -DTRIAGE_TESTS=ON >/dev/null
cmake --build build/cuda --target device_tests
build/cuda/triaged gpu || { echo "there is a GPU, and the program does not see it"; exit 1; }
ctest --test-dir build/cuda -R '_device$' --no-tests=error --output-on-failure
grep -h '^skipped: ' build/cuda/Testing/Temporary/LastTest.log | sort -u || true
sanitizer=$(command -v compute-sanitizer || echo "$cuda/bin/compute-sanitizer")
if [ -x "$sanitizer" ]; then
    said=$(mktemp)
    trap 'rm -f "$said"' EXIT
    # A tool that slows programs down a thousandfold sees as much as a limit lets it see.
    limit_s=${TRIAGE_SANITIZER_LIMIT_S:-1800}
    sanitize() { # TOOL TEST
        local code=0
        echo "compute-sanitizer $1: $2, at most $limit_s s"
        timeout "$limit_s" "$sanitizer" --tool "$1" --error-exitcode 1 "build/cuda/tests/gpu/$2_test_device" | tee "$said" || code=$?
        [ "$code" = 124 ] || return "$code"
        ! grep -E '^=+ +(Error|Invalid|Uninitialized|Barrier|Race|Potential)' "$said" || return 1
        echo "compute-sanitizer $1: $2 cut after $limit_s s, no finding until then"
    }
    for tool in memcheck racecheck synccheck; do # every kernel of a cycle and of a step of training
        sanitize "$tool" cycle
    done
    # Without the plan in bfloat16: what cuBLASLt products for Hopper write (by the bulk copy engine) initcheck takes for never written.
    TEST_SKIP=a_plan_in_bfloat16 sanitize initcheck cycle
    for name in backend_training head_fit head_score backend_conformance; do # odd sizes and every tail
        sanitize memcheck "$name"
    done
else
    echo "skipped: compute-sanitizer is not installed (package cuda-sanitizer-13-0)"
fi
./bench gpu
