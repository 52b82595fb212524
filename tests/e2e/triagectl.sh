#!/usr/bin/env bash
# Every verb of triagectl: what it prints, what it changes, its JSON and its exit code.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 120
printf 'cut off' >"$folder/survey/images/000007.png"
rm "$folder/survey/images/000009.png"
configure a $'[models]\nkeep = 50'
gives() { # CODE COMMAND...: output in $folder/out and $folder/err
    local wanted=$1 got=0
    shift
    "$@" >"$folder/out" 2>"$folder/err" || got=$?
    [ $got -eq "$wanted" ] || fail "$* ended with $got, not $wanted: $(cat "$folder/out" "$folder/err")"
}
says() { grep -qF -- "$1" "$folder/out" "$folder/err" || fail "nothing says '$1': $(cat "$folder/out" "$folder/err")"; }
json() { jq -e "$1" "$folder/out" >/dev/null || fail "not so: $1 in $(cat "$folder/out")"; }

gives 69 ctl a status
says "is triaged running"
gives 64 ctl a fly
says "unknown or ambiguous verb: fly"
gives 64 ctl a r # resume, rollback, reload
gives 64 ctl a why
gives 64 ctl a queue --top none
gives 64 ctl a queue --upside-down
gives 64 ctl a train
gives 64 ctl a galaxies
gives 64 "$build/triagectl"
gives 0 "$build/triagectl" --help
says "usage: triagectl"
gives 0 "$build/triagectl" pin -h
says "usage: triagectl"
gives 0 "$build/triagectl" --version
says "triagectl $("$build/triaged" --version | cut -d' ' -f2)"

import a
start a
ready a
wait_until 60 status_is a '.queue_length == 12 and .galaxies.embedded == 118 and .cycle.step == "idle"'

gives 0 ctl a status
says "embedded 118, bad 2"
gives 0 ctl a --json status
json '.ok and .galaxies == {total: 120, embedded: 118, bad: 2, retired: 0, labelled: 0, embedded_per_s: .galaxies.embedded_per_s}'
json '.galaxies.embedded_per_s > 0 and .database == "ok" and .schema.name == "gz2_no_suffix" and .problems == []'
gives 0 "$build/triagectl" -s "$folder/a/run/read.sock" sta --json # short verbs, a socket by name
json '.name == "a"'

gives 0 ctl a queue --top 3
[ "$(grep -cE '^ +[0-9]+ ' "$folder/out")" = 3 ] || fail "--top 3 shows $(cat "$folder/out")"
gives 0 ctl a --json queue
json '(.entries | length) == 12 and ([.entries[].rank] == [range(1; 13)]) and all(.entries[]; .probability > 0 and .probability <= 1)'
gives 0 ctl a --json queue --top 1
json '(.entries | length) == 1 and .length == 12'

gives 0 ctl a galaxies --bad
says "sim1-000007"
gives 0 ctl a --json galaxies --bad
json '.total == 2 and [.galaxies[].id] == ["sim1-000007", "sim1-000009"] and all(.galaxies[]; .reason | length > 0)'

gives 1 "$build/triagectl" -s "$folder/a/run/read.sock" galaxies --bad
says "'galaxies' needs the admin socket"

gives 66 ctl a why sim1-999999
says "no galaxy has the id 'sim1-999999'"
gives 66 ctl a --json why "$(printf 'é%.0s' $(seq 60))" # cut in the message, within a character
json '.ok == false and .exit == 66 and (.message | test("no galaxy has the id .é{10}"))'
gives 0 ctl a why sim1-000007
says "its image cannot be read"
gives 0 ctl a --json why sim1-000001
json '.id == "sim1-000001" and .key == 1'

# pin: at the head of the queue, also of a full one whose leases do not end, and where a galaxy is on offer already; unpin: no
# longer; exclude: out at once and stays out; include
in_queue() { ctl a --json queue | jq -e --arg id "$1" "[.entries[] | select(.id == \$id)] | $2" >/dev/null; }
waiting=$(comm -23 <(seq -f 'sim1-%06.0f' 10 60 | sort) <(ctl a --json queue | jq -r '.entries[].id' | sort) | head -1)
gives 66 ctl a pin nobody
size=$(ctl a --json status | jq .queue_size)
status_is a '.queue_length == .queue_size' || fail "the queue is not full"
gives 0 ctl a pin "$waiting"
wait_until 30 in_queue "$waiting" '.[0].rank == 1 and .[0].stream == "pinned" and .[0].probability == 1'
offered=$(ctl a --json queue | jq -r '.entries[-1].id')
gives 0 ctl a pin "$offered"
wait_until 30 in_queue "$offered" '.[0].rank <= 2 and .[0].stream == "pinned" and .[0].probability == 1'
[ "$(ctl a --json queue | jq '[.length, ([.entries[] | select(.stream == "pinned")] | length)] | tostring')" = "\"[$size,2]\"" ] ||
    fail "not a full queue with two pins: $(ctl a queue)"
gives 0 ctl a unpin "$offered"
wait_until 30 in_queue "$offered" 'all(.[]; .stream != "pinned")'
gives 0 ctl a unpin "$waiting"
[ "$(sql a "SELECT pinned FROM triage.galaxy WHERE id_str = '$waiting'")" = f ] || fail "the pin is still in the database"
victim=$(ctl a --json queue | jq -r '.entries[-1].id')
gives 0 ctl a exclude "$victim"
in_queue "$victim" 'length == 0' || fail "an excluded galaxy is on offer"
gives 0 ctl a why "$victim"
says "excluded by an operator"
gives 0 ctl a --json include "$victim"
json '.ok'
gives 0 ctl a --json why "$victim"
json '.words | test("excluded") | not'

# models, train, rollback
platform a
wait_until 60 status_is a '.champion >= 2'
kill -TERM "$platform" && wait "$platform"
wait_until 30 status_is a '.votes.waiting == 0 and .cycle.step == "idle"'
gives 0 ctl a votes
says "applied"
gives 0 ctl a --json votes
json '.applied > 0 and .quarantined == 0 and .quarantine == []'
gives 0 ctl a --json models
json '. as $m | [.models[] | select(.champion)] | length == 1 and .[0].number == $m.champion'
json 'all(.models[]; .reason | test("^(promoted|refused)"))'
champion=$(jq .champion "$folder/out") count=$(jq '.models | length' "$folder/out")
gives 0 ctl a models
says "$champion"
gives 66 ctl a rollback 4000
says "no such stored model"
gives 0 ctl a rollback 1
gives 0 ctl a --json status
json '.champion == 1'
wait_until 30 status_is a '.cycle.step == "idle"'
gives 0 ctl a --json queue
json '.model == 1'
[ "$(cat "$folder/a/models/champion")" != "" ] || fail "no champion file"
gives 66 ctl a rollback
says "no such stored model"
gives 0 ctl a pause
gives 1 ctl a train now
says "paused"
gives 0 ctl a --json status
json '.paused'
gives 0 ctl a resume
gives 0 ctl a train now
more() { [ "$(ctl a --json models | jq '.models | length')" -gt "$count" ]; }
wait_until 30 more

# reload: a reloadable key works at once, another is named, a broken file changes nothing
sed -i 's/^size = 12/size = 15/; s/^name = a/name = renamed/' "$folder/a.conf"
gives 0 ctl a reload
says "needs a restart to take effect: instance.name"
wait_until 30 status_is a '.queue_size == 15 and .queue_length == 15 and .name == "a"'
echo 'nonsense = 1' >>"$folder/a.conf"
gives 1 ctl a reload
says "the configuration in force stays: $folder/a.conf:"
gives 0 ctl a --json status
json '.queue_size == 15'
restarts=$(jq .worker.restarts "$folder/out")
kill -KILL "$(worker_of a)" # a worker that starts again starts with what is in force
wait_until 30 status_is a ".worker.restarts > $restarts and .worker.state == \"idle\""
sed -i '$d' "$folder/a.conf"
sed -i 's/^side = 32/side = 64/' "$folder/a.conf" # of images and trunk: another pool altogether
gives 0 ctl a reload
says "instance.name, images.side, trunk.side"
count=$(ctl a --json models | jq '.models | length') # before asking: a training the kill interrupted may end at any moment
gives 0 ctl a train now
wait_until 30 more
wait_until 30 status_is a '.cycle.step == "idle" and .worker.state == "idle" and .problems == []'
sed -i 's/^side = 64/side = 32/' "$folder/a.conf"
kill -HUP "${daemon[a]}"
wait_until 30 grep -q "reloaded" "$folder/a.log"

# repaired images come back
cp "$folder/survey/images/000001.png" "$folder/survey/images/000007.png"
gives 0 ctl a galaxies --bad --retry
wait_until 30 status_is a '.galaxies.bad == 1 and .galaxies.embedded == 119'
gives 0 ctl a --json galaxies --bad
json '[.galaxies[].id] == ["sim1-000009"]'

# somebody who is not the daemon's user may ask and not steer
if [ "$(id -u)" = 0 ]; then
    gives 0 setpriv --reuid=65534 --regid=65534 --clear-groups "$build/triagectl" --state "$folder/a" status
    gives 69 setpriv --reuid=65534 --regid=65534 --clear-groups "$build/triagectl" --state "$folder/a" pause
    says "needs the daemon's user or root"
    chmod 0666 "$folder/a/run/admin.sock" # a careless hand: the user behind the other end still decides
    gives 1 setpriv --reuid=65534 --regid=65534 --clear-groups "$build/triagectl" --state "$folder/a" pause
    says "needs the admin socket (the daemon's user or root)"
    gives 0 setpriv --reuid=65534 --regid=65534 --clear-groups "$build/triagectl" -s "$folder/a/run/admin.sock" status
    python3 - "$folder/a/run/read.sock" "$folder/held" <<'PYTHON' & # readers who ask nothing, and come again, leave places for an administrator
import select, socket, sys
def reader():
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(5)
    one.connect(sys.argv[1])
    return one
held = [reader() for _ in range(24)] # all that are let in (READERS_MAX of control.c)
open(sys.argv[2], "w").close()
while True:
    for gone in select.select(held, [], [])[0]:
        held.remove(gone)
        gone.close()
        held.append(reader())
PYTHON
    pids+=($!)
    is_held() { [ -e "$folder/held" ]; }
    read_is_full() { ! timeout 2 "$build/triagectl" -s "$folder/a/run/read.sock" status >/dev/null 2>&1; }
    wait_until 20 is_held
    wait_until 20 read_is_full
    gives 0 ctl a resume
fi
stop a
gives 69 ctl a status
echo "every verb does what its page says"
