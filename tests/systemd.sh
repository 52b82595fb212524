#!/usr/bin/env bash
# The units are ones systemd understands, their exposure is at most 2.0, and they differ only in their names and paths.
set -euo pipefail
root=$1
command -v systemd-analyze >/dev/null || { echo "skipped: systemd-analyze is not installed"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
check() { # FILE NAME
    # verify wants the program to exist; everything else of the unit stays as it is
    sed 's|^ExecStart=.*|ExecStart=/bin/true|' "$root/systemd/$1" >"$folder/$2"
    problems=$(systemd-analyze verify --man=no "$folder/$2" 2>&1 | grep -F "$2" || true)
    [ -z "$problems" ] || { echo "$problems"; exit 1; }
    systemd-analyze security --offline=true --threshold=20 "$folder/$2" | tail -1
}
check triaged.service triaged.service
check triaged@.service triaged@campaign.service
# With the drop-in for a GPU, as systemd puts them together.
sed -n '/^\[Service\]/,$p' "$root/systemd/gpu.conf" | grep -v '^ExecStartPre=' | cat "$root/systemd/triaged.service" - | sed 's|^ExecStart=.*|ExecStart=/bin/true|' >"$folder/triaged-gpu.service"
problems=$(systemd-analyze verify --man=no "$folder/triaged-gpu.service" 2>&1 | grep -F triaged-gpu.service || true)
[ -z "$problems" ] || { echo "$problems"; exit 1; }
systemd-analyze security --offline=true --threshold=20 "$folder/triaged-gpu.service" | tail -1
# Device names are looked up when the unit starts: the modules that bring them are loaded before. Who makes the files needs m.
for name in nvidia nvidia-frontend nvidiactl nvidia-uvm; do
    grep -qx "DeviceAllow=char-$name rwm" "$root/systemd/gpu.conf" || { echo "gpu.conf does not let the files of $name be made"; exit 1; }
done
for module in nvidia nvidia-uvm; do
    grep -qx "$module" "$root/systemd/gpu-modules.conf" || { echo "gpu-modules.conf does not load $module"; exit 1; }
done
! grep -vE '^(#.*|[a-z-]+)$' "$root/systemd/gpu-modules.conf" || { echo "not as modules-load.d(5) has it"; exit 1; }
shared() { sed -n '/^\[Unit\]/,$p' "$root/systemd/$1" | grep -vE '^(Description|ExecStart|StateDirectory|RuntimeDirectory)='; }
diff <(shared triaged.service) <(shared triaged@.service)
