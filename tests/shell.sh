#!/usr/bin/env bash
# The shell scripts have none of the mistakes shellcheck knows.
set -euo pipefail
command -v shellcheck >/dev/null || { echo "skipped: shellcheck is not installed"; exit 77; }
cd "$1"
scripts=(check demo bench .ci/run)
mapfile -t -O 4 scripts < <(find tools tests -type f -exec grep -lE '^#!.*\b(ba)?sh\b' {} +)
shellcheck -x -S warning "${scripts[@]}"
echo "${#scripts[@]} scripts"
