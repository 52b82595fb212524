#!/usr/bin/env bash
# Every source file is as the pinned formatter writes it. `cmake --build build/dev --target format` mends it.
set -euo pipefail
command -v clang-format-14 >/dev/null || { echo "skipped: clang-format-14 is not installed"; exit 77; }
cd "$1"
find base model cpu gpu pool acquisition connectors daemon tests \( -name '*.[ch]' -o -name '*.cu' \) ! -path 'tests/golden/*' -print0 |
    xargs -0 clang-format-14 --dry-run -Werror
