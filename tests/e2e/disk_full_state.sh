#!/usr/bin/env bash
# The whole state folder, its private database too, is on a disk that fills up while volunteers vote: the service says so and goes
# on as far as it can, the platform keeps what it cannot deliver, and with room again every vote is counted once. Needs root's rights.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
mkdir -p "$folder/a"
mount -t tmpfs -o size=200m triage-test "$folder/a" 2>/dev/null || { echo "skipped: a small file system cannot be mounted here"; exit 77; }
trap 'code=$?; set +e; for pid in "${pids[@]}" "${daemon[@]}"; do kill -TERM "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; done; stop_databases; umount -l "$folder/a"; (exit $code); clean_up' EXIT
survey 90
configure a
import a
start a
ready a
platform a --rate 200
wait_until 60 status_is a '.champion > 0 and .votes.applied > 200'
fill() { dd if=/dev/zero of="$folder/a/ballast" bs=64k 2>/dev/null || true; } # what is left, again and again
doctor_says() { # KIND OVER
    ctl a --json doctor >"$folder/doctor.json" || true
    jq -e ".incidents[] | select(.kind == \"$1\") | .over == $2" "$folder/doctor.json" >/dev/null
}
database_full() {
    dd if=/dev/zero of="$folder/a/ballast$((fills += 1))" bs=4k 2>/dev/null || true
    grep -q "No space left on device" "$folder/a/postgres/log"
}
fill
fills=0
wait_until 90 database_full
wait_until 60 doctor_says disk false
kill -0 "${daemon[a]}" || fail "the daemon ended"
cast=$(jq .votes_distinct_valid "$folder/a.json")
rm "$folder"/a/ballast*
more() { [ "$(jq .votes_distinct_valid "$folder/a.json")" -gt $((cast + 200)) ]; }
wait_until 150 more # the server may have ended of it, and is started again after a minute at most
kill -TERM "$platform" && wait "$platform"
all_counted() { status_is a ".votes.applied == $(jq .votes_distinct_valid "$folder/a.json") and .votes.waiting == 0"; }
wait_until 60 all_counted
wait_until 60 doctor_says disk true
wait_until 60 status_is a '.problems == []'
totals=$(sql a "SELECT (SELECT sum(votes) FROM triage.tally) = (SELECT applied FROM triage.cursor),
                       (SELECT count(*) FROM triage.vote) >= (SELECT applied FROM triage.cursor)")
[ "$totals" = "t|t" ] || fail "tallies, cursor and votes differ: $totals"
stop a
echo "full with $cast votes cast, $(jq .votes_distinct_valid "$folder/a.json") counted in the end"
