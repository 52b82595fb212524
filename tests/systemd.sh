#!/usr/bin/env bash
# The unit is one systemd understands, and its exposure is at most 2.0.
set -euo pipefail
root=$1
command -v systemd-analyze >/dev/null || { echo "skipped: systemd-analyze is not installed"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# verify wants the program to exist; everything else of the unit stays as it is
sed 's|^ExecStart=.*|ExecStart=/bin/true|' "$root/systemd/triaged.service" >"$folder/triaged.service"
problems=$(systemd-analyze verify --man=no "$folder/triaged.service" 2>&1 | grep -F triaged.service || true)
[ -z "$problems" ] || { echo "$problems"; exit 1; }
systemd-analyze security --offline=true --threshold=20 "$folder/triaged.service" | tail -1
