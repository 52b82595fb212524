#!/usr/bin/env bash
# What goes wrong around the service is named by the doctor and costs nothing: the database restarted, read-only, cut off without
# a word; the clock set; file descriptors exhausted; rows of the pool and models damaged. All totals are compared after each.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
grep -q '^TRIAGE_FAULTS:BOOL=ON' "$2/CMakeCache.txt" || { echo "skipped: this build cannot set its clock (TRIAGE_FAULTS)"; exit 77; }
survey 40
quick=$'[heads]\nepochs_max = 5\n[cycle]\nvotes_min = 1\nwait_ms = 100\n[votes]\npoll_ms = 100\n[training]\nslice_s = 1\nepochs_max = 1'
configure a "$quick"
configure b "$quick"$'\n'"[database]
url = host=$folder/proxy user=triage dbname=b"
mkdir "$folder/proxy"
import a
/usr/bin/python3 "$root/tests/support/faults.py" "$build" "$folder" ${TRIAGE_FAULT_NAMES:-}
