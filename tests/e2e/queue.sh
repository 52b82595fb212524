#!/usr/bin/env bash
# Places in the queue: one that nobody uses is given to another galaxy when its lease ends, also when no votes come; a galaxy
# with enough classifications is retired, one vote before that it is not, whether it got them from volunteers, from the catalogue,
# or by a change of the limit. Subscribers hear of it.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 60
configure a $'[queue]\nlease_s = 2'
import a
start a
ready a
queue() { ctl a --json queue; }
full() { queue | jq -e '.length == 12' >/dev/null; }
wait_until 60 full
queue | jq -r '.entries[].leased_until_ms' | sort -u >"$folder/leases"
now_ms=$(date +%s%3N)
while read -r lease; do
    [ "$lease" -gt $((now_ms - 1000)) ] && [ "$lease" -le $((now_ms + 2000)) ] || fail "a lease of 2 s ends at $lease, now is $now_ms"
done <"$folder/leases"
queue | jq -r '.entries[].id' | sort >"$folder/first"
moved_on() { # every lease is a later one, and galaxies without one have come in
    queue >"$folder/queue.json"
    jq -e --argjson last "$(tail -1 "$folder/leases")" '.length == 12 and ([.entries[].leased_until_ms] | min) > $last' \
        "$folder/queue.json" >/dev/null && ! diff -q "$folder/first" <(jq -r '.entries[].id' "$folder/queue.json" | sort) >/dev/null
}
wait_until 30 moved_on
# what goes at once is told at once: a retraction, the new galaxies and the end of the ranking are a message each
status_is a '.cycle.number >= 2 and .feed.messages <= 4 * .cycle.number' || fail "too many messages: $(ctl a --json status | jq -c '[.cycle.number, .feed.messages]')"
[ "$(sql a "SELECT count(*) FROM triage.cycle WHERE model > 0")" = 0 ] || fail "a model was trained without votes"
stop a

# Retirement by votes (retire_votes = 8), in a queue whose leases do not end.
sed -i 's/^lease_s = 2/lease_s = 3600/' "$folder/a.conf"
start a
ready a
leased() { queue | jq -e '.entries | length == 12 and all(.leased_until_ms > (now + 600) * 1000)' >/dev/null; } # not those of before
wait_until 30 leased
id=$(queue | jq -r '.entries[0].id')
vote() { # FROM TO: classifications of different people, all saying "smooth"
    sql a "INSERT INTO triage.vote (classification, question, answer, id_str, voter)
           SELECT n, 'smooth-or-featured', 'smooth', '$id', 'person-' || n FROM generate_series($1, $2) n"
}
seen() { status_is a ".votes.applied == $1 and .votes.waiting == 0 and .cycle.step == \"idle\""; }
vote 1 7
wait_until 30 seen 7
ctl a --json why "$id" | jq -e '.root_votes == 7' >/dev/null || fail "not 7 classifications: $(ctl a --json why "$id")"
status_is a '.galaxies.retired == 0' || fail "retired too early"
vote 8 8
wait_until 30 seen 8
status_is a '.galaxies.retired == 1' || fail "not retired with 8 classifications"
ctl a --json why "$id" | jq -e '.words | test("^not offered: retired with 8 classifications")' >/dev/null || fail "$(ctl a why "$id")"
"$build/triage-sim" queue --publish "ipc://$folder/a.publish" --snapshot "ipc://$folder/a.snapshot" --json >"$folder/feed.json"
jq -e --arg id "$id" '(.entries | length) == 12 and all(.entries[]; .id != $id)' "$folder/feed.json" >/dev/null ||
    fail "a subscriber still has $id"
[ "$(sql a "SELECT count(*) FROM triage.galaxy WHERE retired_at IS NOT NULL")" = 1 ] || fail "the database has other galaxies retired"
stop a

# The catalogue's counts count: 20 galaxies have 8 or more classifications. Then the limit changes, both ways.
awk -F, 'NR == 1 { for (i = 3; i <= NF; i++) keep[i] = $i ~ /^smooth-or-featured_/; n = 0
                   for (i = 3; i <= NF; i++) if (keep[i]) column[++n] = $i; print "id_str,file_loc," column[1]; next }
         { print $1 "," $2 "," (NR <= 21 ? 8 + NR % 3 : NR <= 41 ? 7 : "") }' "$folder/survey/truth.csv" >"$folder/survey/counted.csv"
configure b $'[queue]\nlease_s = 3600\nsize = 12'
import b "$folder/survey/counted.csv"
start b
ready b
on_offer() { # RETIRED: so many are, and none of them is on offer, here or on the feed
    status_is b ".galaxies.retired == $1 and .queue_length > 0" &&
        "$build/triage-sim" queue --publish "ipc://$folder/b.publish" --snapshot "ipc://$folder/b.snapshot" --json >"$folder/feed.json" &&
        [ "$(sql b "SELECT count(*) FROM triage.galaxy WHERE retired_at IS NOT NULL AND id_str = ANY (
                    SELECT json_array_elements('$(jq -c .entries "$folder/feed.json")'::json)->>'id')")" = 0 ]
}
wait_until 60 on_offer 20
for limit in 7 8 9; do
    sed -i "s/^retire_votes = .*/retire_votes = $limit/" "$folder/b.conf"
    ctl b reload >/dev/null
    wait_until 60 on_offer "$(sql b "SELECT count(*) FROM triage.galaxy WHERE root_votes >= $limit")"
done
[ "$(sql b "SELECT count(*) FROM triage.galaxy WHERE retired_at IS NOT NULL")" = 13 ] || fail "not 13 galaxies have 9 votes or more"
sed '1p; 2,21s|^|late-|; 22q' "$folder/survey/counted.csv" | sed 1d >"$folder/survey/late.csv" # 13 more
import b "$folder/survey/late.csv"
wait_until 60 status_is b '.galaxies.total == 80 and .galaxies.retired == 26'
stop b
echo "places are given away when leases end, and when galaxies have their votes"
