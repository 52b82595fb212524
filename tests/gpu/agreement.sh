#!/usr/bin/env bash
# The stand-in declares what NVIDIA's headers declare: values, members and signatures (agreement.py); and the real libraries have every
# function. Usage: agreement.sh ROOT BUILD. First proves that a wrong value and a wrong signature are found.
set -euo pipefail
here=$1/tests/gpu
# shellcheck source=tests/gpu/toolkit.sh
. "$here/toolkit.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compile() { # FOLDER OF HEADERS
    python3 "$here/agreement.py" "$1" >"$work/program.c" 2>"$work/counts" &&
        gcc -std=gnu17 -Wall -Wno-deprecated-declarations -isystem "$cuda/include" -c "$work/program.c" -o "$work/program.o" 2>"$work/errors"
}

plant() { # FILE, SED: a copy of the headers with one mistake must not compile
    rm -rf "$work/wrong" && cp -r "$here/standin" "$work/wrong"
    sed -i "$2" "$work/wrong/$1"
    cmp -s "$work/wrong/$1" "$here/standin/$1" && { echo "nothing was planted by $2"; exit 1; }
    ! compile "$work/wrong" || { echo "a wrong header was not found: $1, $2"; exit 1; }
}
plant cuda_runtime_api.h 's/cudaErrorNotReady = 600/cudaErrorNotReady = 601/'
plant cuda_runtime_api.h 's/\bint multiProcessorCount;/long multiProcessorCount;/'
plant cublasLt.h 's/uint64_t cols,/uint32_t cols,/'
plant cudnn.h 's/^    size_t memory;/    int memory;/'
plant nccl.h 's/\bint rank);/unsigned rank);/'

compile "$here/standin" || { head -20 "$work/errors"; exit 1; }
gcc "$work/program.o" -o "$work/program" "$(library cudart)" "$(library cublasLt)" "$(library cudnn)" "$(library nccl)" \
    -Wl,-rpath,"$lib" -Wl,--allow-shlib-undefined
"$work/program"
cat "$work/counts"
