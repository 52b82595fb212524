#!/usr/bin/env bash
# gpu/ with nvcc for every supported architecture, warnings as errors; registers, spills and shared memory of every kernel as in
# registers.txt; linked with the real libraries. Usage: compile.sh ROOT BUILD [--write]   (--write makes registers.txt anew)
set -euo pipefail
root=$1 build=$2/gpu
# shellcheck source=tests/gpu/toolkit.sh
. "$root/tests/gpu/toolkit.sh"
table=$root/tests/gpu/registers.txt
architectures=(75 80 86 89 90 100 120)
sources=("$root"/gpu/*.cu)
[ -e "${sources[0]}" ] || { echo "skipped: nothing in gpu/"; exit 77; }
mkdir -p "$build" && rm -f "$build"/*.log "$build"/*.o

flags=(-std=c++20 -O3 --fmad=false -I "$root" -Xcompiler "-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-missing-field-initializers,-Wno-unknown-pragmas" -Werror all-warnings -Xptxas -v)
for architecture in "${architectures[@]}"; do flags+=(-gencode "arch=compute_$architecture,code=sm_$architecture"); done
flags+=(-gencode "arch=compute_${architectures[-1]},code=compute_${architectures[-1]}")
export nvcc=$cuda/bin/nvcc build
compile_one() { # SOURCE FLAGS...
    local name log=$build/${1##*/}.log
    name=$(basename "$1" .cu)
    "$nvcc" "${@:2}" -c "$1" -o "$build/$name.o" >"$log" 2>&1 || { echo "nvcc does not take $1:"; grep -v '^ptxas info\|bytes stack frame' "$log" | head -30; exit 1; }
}
export -f compile_one
printf '%s\0' "${sources[@]}" | xargs -0 -P "$(nproc)" -I{} bash -c 'compile_one "$@"' compile {} "${flags[@]}"

# One line per kernel: its name, bytes of shared memory, then registers for each architecture, "+N" with N bytes spilled.
report() {
    cat "$build"/*.log | awk -v architectures="${architectures[*]}" '
        /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; architecture = substr(part[4], 4) }
        /bytes stack frame/ { spilled = $5 + $9 }
        /Used [0-9]+ registers/ {
            shared = 0; if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
            match($0, /Used [0-9]+/); used[kernel, architecture] = substr($0, RSTART + 5, RLENGTH - 5) (spilled ? "+" spilled : "")
            if (shared > memory[kernel]) memory[kernel] = shared
            kernels[kernel] = 1
        }
        END { n = split(architectures, list, " ")
              for (kernel in kernels) { line = kernel " " memory[kernel] + 0
                  for (i = 1; i <= n; i++) line = line " " ((kernel, list[i]) in used ? used[kernel, list[i]] : "-")
                  print line } }' | c++filt | sed -E 's/^void gpu_kernel<(.*)>\(.*::arguments\) /\1 /; s/, /,/g; s/ +>/>/g; s/> +/> /; s/\(int\)//g' | sort
}
version=$("$nvcc" --version | sed -n 's/^Cuda compilation tools, release \([0-9.]*\),.*/\1/p')
{
    echo "# kernel, bytes of shared memory, registers (+ bytes spilled) for sm_$(IFS=/ && echo "${architectures[*]}"); nvcc $version; tests/gpu/compile.sh --write makes it"
    report
} >"$build/registers.txt"
kernels=$(($(wc -l <"$build/registers.txt") - 1))
[ "$kernels" -gt 0 ] || { echo "no kernel was reported by ptxas"; exit 1; }
if [ "${3:-}" = --write ]; then cp "$build/registers.txt" "$table"; fi
if grep -q -- '-\( \|$\)' <(cut -d' ' -f3- "$build/registers.txt" | tail -n +2); then echo "a kernel is missing for an architecture"; exit 1; fi
if grep -qF "nvcc $version;" "$table"; then
    diff -u "$table" "$build/registers.txt" || { echo "registers, spills or shared memory changed: look at each, then tests/gpu/compile.sh $root $2 --write"; exit 1; }
else
    echo "registers.txt is of another nvcc than $version, whose numbers are its own: only many spilled bytes count"
    ! grep -oE '\+[0-9]+' "$build/registers.txt" | awk '$1 > 256' | grep . || { echo "bytes that a kernel spills: more than 256"; exit 1; }
fi

# One shared object with one exported symbol, against the real libraries; nothing may be missing but the driver.
g++ -shared -o "$build/backend.so" "$build"/*.o -Wl,--version-script,"$root/gpu/exports.map" -L "$lib" "$lib/libcudart_static.a" \
    "$(library cublasLt)" "$(library cudnn)" "$(library nccl)" -Wl,-rpath,"$lib" -lpthread -ldl -lrt
exported=$(nm -D --defined-only "$build/backend.so" | awk '$2 != "A" { print $3 }' | xargs)
[ "$exported" = backend_cuda ] || { echo "exported: $exported; only backend_cuda may be"; exit 1; }
echo "$kernels kernels x ${#architectures[@]} architectures with nvcc $version"
