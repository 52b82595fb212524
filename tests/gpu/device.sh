#!/usr/bin/env bash
# What only a CUDA device can tell (./check --gpu): the conformance suite and goldens on the device against the same references as the cpu
# backend, memory and race checks by compute-sanitizer, then ./bench gpu. Ends with 77 and "skipped: no GPU" where there is none; where there
# is one, falling back to the CPU fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
devices() { find /dev -maxdepth 1 -name 'nvidia[0-9]*' 2>/dev/null | wc -l; }
[ "$(devices)" -gt 0 ] || { echo "skipped: no GPU (no /dev/nvidia0; the driver makes it)"; exit 77; }
# shellcheck source=tests/gpu/toolkit.sh
. tests/gpu/toolkit.sh
tools/install_packages --test
cmake --preset cuda -DTRIAGE_TESTS=ON >/dev/null
cmake --build build/cuda
build/cuda/triaged gpu || { echo "there is a GPU, and the program does not see it"; exit 1; }
ctest --test-dir build/cuda -R '_device$' --no-tests=error --output-on-failure
sanitizer=$(command -v compute-sanitizer || echo "$cuda/bin/compute-sanitizer")
if [ -x "$sanitizer" ]; then
    said=$(mktemp)
    trap 'rm -f "$said"' EXIT
    # Kernels of nets, of heads, of training. Of a tool that slows programs down a thousandfold as much as a limit lets it see.
    sanitize() { # LIMIT_S TOOL TEST
        local code=0
        echo "compute-sanitizer $2: $3"
        timeout "$1" "$sanitizer" --tool "$2" --error-exitcode 1 "build/cuda/tests/gpu/$3_test_device" | tee "$said" || code=$?
        [ "$code" = 124 ] || return "$code"
        ! grep -E '^=+ +(Error|Invalid|Uninitialized|Barrier|Race|Potential)' "$said" || return 1
        echo "compute-sanitizer $2: $3 cut after $1 s, no finding until then"
    }
    for tool in memcheck initcheck; do
        for name in backend_conformance head backend_training; do
            sanitize 1800 "$tool" "$name"
        done
    done
    for name in backend_conformance head backend_training; do
        sanitize 600 racecheck "$name"
    done
    sanitize 1800 synccheck backend_conformance
else
    echo "skipped: compute-sanitizer is not installed (package cuda-sanitizer-13-0)"
fi
./bench gpu
