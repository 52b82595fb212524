#!/usr/bin/env bash
# An hour of the service in 15 s (TRIAGE_CLOCK_SPEED), with 20,000 votes: nothing grows beyond the limits of ./bench soak, whose
# short form this is.
set -euo pipefail
grep -q '^TRIAGE_FAULTS:BOOL=ON' "$2/CMakeCache.txt" || { echo "skipped: this build cannot hasten its clock (TRIAGE_FAULTS)"; exit 77; }
export ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=1 LSAN_OPTIONS=suppressions=$1/tests/lsan.supp:print_suppressions=0
"$1/tests/bench/soak" "$2" 1 20000 200 240
