#!/usr/bin/env bash
# Images that cannot be read are put aside with their reason and stop nothing: broken, cut off, empty, absent, and not a
# file at all. Once repaired they come back on request, also while others are still being embedded, and only those.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 120
images=$folder/survey/images
mkdir "$folder/kept"
for number in 000001 000003 000040 000041 000077; do mv "$images/$number.png" "$folder/kept/"; done # for the repair
: >"$images/000001.png"                                                   # empty
head -c 200 "$folder/kept/000003.png" >"$images/000003.png"               # cut off behind its header
{ head -c 60 "$folder/kept/000040.png" && head -c 4000 /dev/zero; } >"$images/000040.png" # its pixels overwritten
mkdir "$images/000041.png"                                                # a folder
# 000077 is absent
# and one whose long name does not fit the reason, cut within a character of two bytes whatever the length before it
for pad in x xy; do
    printf 'sim-far-%s,%s/%s.png\n' "$pad" "$pad" "$(printf 'é%.0s' $(seq 120))" >>"$folder/far.rows"
done
cut -d, -f1,2 "$folder/survey/catalog.csv" | cat - "$folder/far.rows" >"$folder/survey/all.csv"
configure a
import a "$folder/survey/all.csv"
# images outside the catalogue's folder: nothing of the catalogue is imported
mkdir "$folder/elsewhere"
for location in /etc/passwd ../kept/000003.png "$folder/survey/../kept/000003.png" "$folder/kept/000003.png"; do
    printf 'id_str,file_loc\nnear,images/000002.png\nfar,%s\n' "$location" >"$folder/elsewhere/catalogue.csv"
    if import a "$folder/elsewhere/catalogue.csv"; then fail "$location was taken"; fi
done
[ "$(grep -c "outside the catalogue's folder" "$folder/a.log")" = 2 ] || fail "locations outside are not refused as such"
[ "$(grep -c "goes up with '..'" "$folder/a.log")" = 2 ] || fail "locations that go up are not refused as such"
start a
ready a
wait_until 60 status_is a '.galaxies.embedded == 115 and .galaxies.bad == 7 and .queue_length == 12'
bad() { ctl a --json galaxies --bad | jq -c "$1"; }
[ "$(bad '[.galaxies[].id] | sort')" = '["sim-far-x","sim-far-xy","sim1-000001","sim1-000003","sim1-000040","sim1-000041","sim1-000077"]' ] ||
    fail "put aside are $(bad '[.galaxies[].id]')"
[ "$(bad .total)" = 7 ] || fail "the total of bad images is $(bad .total)"
reason() { # ID TEXT
    [[ $(bad "[.galaxies[] | select(.id == \"$1\")][0].reason") == *"$2"* ]] || fail "the reason of $1 is not '$2': $(bad .galaxies)"
}
reason sim1-000001 "000001.png"
reason sim1-000003 "000003.png"
reason sim1-000040 "000040.png"
reason sim1-000041 "not a regular file"
reason sim1-000077 "no such file"
reason sim-far-x "ééé"
reason sim-far-xy "ééé"
[ "$(sql a "SELECT count(*) FROM triage.galaxy WHERE bad_reason IS NOT NULL AND bad_since IS NOT NULL")" = 7 ] ||
    fail "the database knows of $(sql a "SELECT id_str, bad_reason FROM triage.galaxy WHERE bad_reason IS NOT NULL")"
ctl a why sim1-000041 | grep -q "cannot be read" || fail "why does not say it: $(ctl a why sim1-000041)"

# cycles run with the rest, and none of these is ever offered
platform a
wait_until 60 status_is a '.champion >= 1 and .cycle.number >= 3'
kill -TERM "$platform" && wait "$platform"
wait_until 30 status_is a '.votes.waiting == 0 and .cycle.step == "idle"'
offered() { sql a "SELECT count(*) FROM triage.vote v JOIN triage.galaxy g USING (id_str) WHERE g.bad_reason IS NOT NULL"; }
[ "$(offered)" = 0 ] || fail "volunteers were asked about $(offered) galaxies nobody can see"

# after a restart they are as they were: known to be bad, not tried again
stop a
start a
ready a
wait_until 30 status_is a '.galaxies.bad == 7 and .galaxies.embedded == 115'

# two are repaired
cp "$folder/kept/000003.png" "$images/"
cp "$folder/kept/000077.png" "$images/"
ctl a galaxies --bad --retry | grep -q "7 images" || fail "the retry does not say how many"
wait_until 30 status_is a '.galaxies.bad == 5 and .galaxies.embedded == 117'
[ "$(bad '[.galaxies[].id] | sort')" = '["sim-far-x","sim-far-xy","sim1-000001","sim1-000040","sim1-000041"]' ] || fail "still aside: $(bad .galaxies)"
ctl a pin sim1-000077 >/dev/null # what was read once more can be offered
offered_now() { ctl a --json queue | jq -e '[.entries[].id] | index("sim1-000077") != null' >/dev/null; }
wait_until 30 offered_now

# the rest is repaired while a job with new galaxies is under way: nothing before or behind them is passed over
rmdir "$images/000041.png"
cp "$folder/kept/"* "$images/"
{
    echo id_str,file_loc
    for copy in a b c; do sed -n "s|^sim1-\(0001[01][0-9]\),|new-$copy-\1,|p" "$folder/survey/all.csv"; done
} >"$folder/survey/more.csv"
ctl a pause >/dev/null
wait_until 30 status_is a '.cycle.step == "idle" and .worker.state == "idle"'
postmaster=$(head -1 "$folder/a/postgres/data/postmaster.pid")
worker=$(worker_of a)
kill -STOP "$worker"
import a "$folder/survey/more.csv"
wait_until 30 status_is a '.worker.state == "busy" and .worker.job == "embed" and .galaxies.total == 182'
in_step() { [ "$(grep -c "in step with the database: 182" "$folder/a.log")" -ge "$1" ]; }
in_step 1 || fail "embedding began before the new galaxies were known"
ctl a galaxies --bad --retry >/dev/null
wait_until 30 in_step 2
kill -CONT "$worker"
wait_until 60 status_is a '.galaxies.bad == 2 and .galaxies.embedded == 180 and .problems == []'
[ "$(head -1 "$folder/a/postgres/data/postmaster.pid")" = "$postmaster" ] || fail "an import restarted the running database"
stop a
echo "7 bad images put aside with their reasons, 5 of them repaired"
