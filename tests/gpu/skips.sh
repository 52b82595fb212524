#!/usr/bin/env bash
# Where there is no device, ./bench gpu and ./check --gpu say so and end with 77: neither computes on the processor instead.
# Usage: skips.sh ROOT BUILD
set -euo pipefail
# shellcheck source=tests/gpu/gpus.sh
. "$1/tests/gpu/gpus.sh"
! has_gpu || { echo "skipped: this machine has a GPU"; exit 77; }
for command in "bench gpu" "check --gpu"; do
    code=0
    said=$("$1"/$command 2>&1) || code=$?
    [ "$code" = 77 ] && [[ $said == "skipped: no GPU"* ]] || { echo "./$command gave $code: $said"; exit 1; }
done
