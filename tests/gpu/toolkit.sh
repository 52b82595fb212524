#!/usr/bin/env bash
# Sourced by the scripts beside it: where the CUDA toolkit is (CUDA_HOME, PATH or /usr/local/cuda), or the end with 77 and the reason.
cuda=${CUDA_HOME:-}
[ -n "$cuda" ] || { nvcc=$(command -v nvcc || true) && [ -z "$nvcc" ] || cuda=$(dirname "$(dirname "$(readlink -f "$nvcc")")"); }
[ -n "$cuda" ] || cuda=/usr/local/cuda
[ -x "$cuda/bin/nvcc" ] || { echo "skipped: no CUDA toolkit (no nvcc in PATH, CUDA_HOME or /usr/local/cuda)"; exit 77; }
for header in cuda_runtime.h cublasLt.h cudnn.h nccl.h; do
    [ -e "$cuda/include/$header" ] || [ -e "/usr/include/$header" ] || [ -e "/usr/include/x86_64-linux-gnu/$header" ] || { echo "skipped: $header of the CUDA libraries is not installed"; exit 77; }
done
lib=$cuda/lib64
[ -e "$lib" ] || lib=$cuda/lib
# The library of that name: the one its development package names, else the newest.
library() {
    local found
    found=$(find "$lib/" /usr/lib/x86_64-linux-gnu -maxdepth 1 -name "lib$1.so*" -printf '%f %p\n' 2>/dev/null | sort -V)
    { grep -m1 "^lib$1.so " <<<"$found" || tail -1 <<<"$found"; } | cut -d' ' -f2-
}
