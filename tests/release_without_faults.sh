#!/usr/bin/env bash
# Without the build option nothing of the fault points is left: no symbol, no name, no environment variable. With it there is,
# so that this test can see them.
set -euo pipefail
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
left() { # OPTION...: traces in what passes points and what defines them
    local file
    for file in base/fault.c base/file.c base/clock.c; do
        cc -std=c17 -D_GNU_SOURCE "$@" -c "$root/$file" -o "$made/${file##*/}.o"
    done
    { nm "$made"/*.o; strings "$made"/*.o; } | grep -cE 'fault_|TRIAGE_FAULTS|FILE_RENAMED' || true
}
root=$1
[ "$(left -O2 -I"$root")" = 0 ] || { echo "a release would hold fault points"; exit 1; }
[ "$(left -O2 -I"$root" -DTRIAGE_FAULTS)" -gt 5 ] || { echo "this test does not see fault points"; exit 1; }
jq -e '[.configurePresets[] | select(.cacheVariables.TRIAGE_FAULTS == "ON") | .name] == ["dev", "tsan"]' "$root/CMakePresets.json" >/dev/null ||
    { echo "other presets than dev and tsan have fault points"; exit 1; }
echo "no trace"
