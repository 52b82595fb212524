#!/usr/bin/env bash
# The disk is full while a model is written: the champion goes on serving, no half model is left, status names file and cause,
# and when there is room again the next cycle trains. With root's rights the disk is a real small file system; without, the
# worker's file size limit stands for it. The votes whose training failed are not forgotten: no new one is needed.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 90
configure a
import a
mkdir -p "$folder/a/models"
if mount -t tmpfs -o size=24m triage-test "$folder/a/models" 2>/dev/null; then
    trap 'code=$?; set +e; umount -l "$folder/a/models"; (exit $code); clean_up' EXIT
    cause="No space left on device" named=disk
    fill() { dd if=/dev/zero of="$folder/a/models/ballast" bs=64k 2>/dev/null || true; }
    empty() { rm "$folder/a/models/ballast"; }
else
    echo "a small file system cannot be mounted here: a file size limit stands for it"
    cause="File too large" named=
    limit() { prlimit --pid "$(worker_of a)" --fsize="$1:unlimited"; }
    fill() { limit 100000; }
    empty() { limit unlimited; }
fi
start a
ready a
platform a --rate 30
wait_until 60 status_is a '.champion > 0'
fill
wait_until 60 status_is a '.problems | tostring | test("training: .*[.]model.*'"$cause"'")'
doctor_says() { # OVER
    ctl a --json doctor >"$folder/doctor.json" || true
    jq -e ".incidents[] | select(.kind == \"$named\") | .over == $1" "$folder/doctor.json" >/dev/null
}
[ -z "$named" ] || wait_until 60 doctor_says false
champion=$(ctl a --json status | jq .champion) cycle=$(ctl a --json status | jq .cycle.number)
wait_until 60 status_is a ".cycle.number >= $cycle + 2" # cycles go on: votes are ranked with the champion there is
status_is a ".champion == $champion and .worker.restarts == 0" || fail "the champion changed, or the worker died of it"
stored=$(find "$folder/a/models" -name '*.model' -printf '%f\n' | sort | tail -1)
[ "$(find "$folder/a/models" -type f ! -name '*.model' ! -name 'trunk-*' ! -name champion ! -name previous ! -name ballast | wc -l)" -eq 0 ] ||
    fail "a half written file is left: $(ls "$folder/a/models")"
kill -TERM "$platform" && wait "$platform"
status_is a '.votes.waiting > 0' || fail "the votes nothing was trained on are forgotten"
empty
trained_on() { # a newer whole model; whether the gate then prefers it is not the disk's business
    [ "$(find "$folder/a/models" -name '*.model' -printf '%f\n' | sort | tail -1)" != "$stored" ] && status_is a '.problems == []'
}
wait_until 90 trained_on
[ -z "$named" ] || wait_until 60 doctor_says true
stop a
echo "full after $stored, then trained on"
