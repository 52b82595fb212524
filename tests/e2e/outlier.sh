#!/usr/bin/env bash
# Noise among the galaxies: the service holds it back for review as like none of them and offers it to nobody; and what it says of it.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 115
cat >"$folder/noise.py" <<'PYTHON'
import random, struct, sys, zlib
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
random.seed(1)
rows = b"".join(b"\0" + random.randbytes(32) for _ in range(32))
sys.stdout.buffer.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0))
                        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
PYTHON
/usr/bin/python3 "$folder/noise.py" >"$folder/survey/noise.png"

cp "$folder/survey/catalog.csv" "$folder/survey/all.csv"
awk -F, -v noise="$folder/survey/noise.png" 'NR == 1 { for (i = 2; i <= NF; i++) rest = rest "," ($i == "file_loc" ? noise : ""); print "noise-1" rest }' \
    "$folder/survey/catalog.csv" >>"$folder/survey/all.csv"
# A random trunk tells less apart than one that was trained: galaxies are up to 1.17 from their kind, the noise 1.27.
configure a $'[queue]\nsize = 6\nshortlist = 16\nholdout_share = 0\nrandom_share = 0\nartifact_max = 1\noutlier_distance = 1.2\ncluster_share = 0'
import a "$folder/survey/all.csv" || fail "the noise is not taken"
start a
ready a
wait_until 90 status_is a '.galaxies.embedded == 116 and .cycle.number >= 1 and .cycle.step == "idle"'
ctl a pause >/dev/null
[ "$(sql a "SELECT split FROM triage.galaxy WHERE id_str = 'noise-1'")" = 0 ] || fail "the noise is a hold-out: give it another name"

# 8 classifications each of 90 galaxies, none of them for the gate: the first model is not measured, and serves. What is left is
# few enough to be candidates all.
sql a "INSERT INTO triage.vote (classification, question, answer, id_str, voter)
    SELECT key * 100 + n, 'smooth-or-featured', CASE WHEN key % 8 >= n THEN 'smooth' ELSE 'featured-or-disk' END, id_str, 'person-' || n
    FROM triage.galaxy, generate_series(1, 8) n WHERE split <> 2 AND key <= 90"
wait_until 30 status_is a ".votes.applied == $(sql a 'SELECT count(*) FROM triage.vote') and .votes.applied > 300"
sed -i 's/^size = 6/size = 12/' "$folder/a.conf"
ctl a reload >/dev/null
ctl a resume >/dev/null
wait_until 60 status_is a '.cycle.step == "idle" and .champion >= 1'
answer() { ctl a --json "$@" >"$folder/answer.json"; }
so() { jq -e "$1" "$folder/answer.json" >/dev/null || fail "not so: $1 in $(cat "$folder/answer.json")"; }
held() { answer review && jq -e 'any(.galaxies[]; .id == "noise-1")' "$folder/answer.json" >/dev/null; }
wait_until 30 held
so '.galaxies[] | select(.id == "noise-1") | .reason == "outlier" and .value > 1.2'
so '.galaxies | length == 1' # galaxies are like galaxies
in_queue() { sql a "SELECT count(*) FROM triage.queue q JOIN triage.galaxy g ON g.key = q.galaxy WHERE g.id_str = 'noise-1'"; }
[ "$(in_queue)" = 0 ] || fail "the noise is on offer"
[ "$(sql a "SELECT count(*) FROM triage.review r JOIN triage.galaxy g ON g.key = r.galaxy WHERE g.id_str = 'noise-1'")" = 1 ] || fail "the database lists it not for review"
answer why noise-1
so '.words | test("^held back for review: ")'

# With the guard off it is a galaxy like any other, and here the one that score wants most.
sed -i 's/^outlier_distance = 1.2/outlier_distance = 0/' "$folder/a.conf"
ctl a reload >/dev/null
ctl a exclude "$(ctl a --json queue | jq -r '.entries[0].id')" >/dev/null
let_go() { answer review && jq -e '.galaxies == []' "$folder/answer.json" >/dev/null && [ "$(in_queue)" = 1 ]; }
wait_until 60 let_go
stop a
echo "what is like no galaxy is for review, not for volunteers"
