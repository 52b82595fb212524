#!/usr/bin/env bash
# Votes and galaxies that come in while heads are trained change nothing about that training: challenger and champion are judged
# on the same votes. Two copies of one daemon train the same model, one of them disturbed; their figures must be the same. A
# training that a reload ends is done again, though no vote comes any more.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 150
configure a
import a
start a
ready a
platform a --rate 120
wait_until 90 status_is a '.champion > 0 and .galaxies.labelled >= 40'
kill -TERM "$platform" && wait "$platform"
wait_until 60 status_is a '.votes.waiting == 0 and .cycle.step == "idle"'
stop a
cp -a "$folder/a" "$folder/b"
long=$'[heads]\nepochs_max = 1200\npatience = 1200\n[training]\ntrunk = off'
configure a "$long"
configure b "$long"
next=$(($(find "$folder/a/models" -name '*.model' -printf '%f\n' | sort | tail -1 | grep -o '^[0-9]*' | sed 's/^0*//') + 1))
figures() { sql "$1" "SELECT number, parent, labels, holdout_nll, champion_nll, constant_nll FROM triage.model WHERE number = $next"; }
is_trained() { [ -n "$(figures "$1" 2>/dev/null)" ]; }

start b
ready b
status_is b ".champion == $(cat "$folder/a/models/champion")" || fail "the champion was lost on the way: $(ctl b status)"
wait_until 120 is_trained b
undisturbed=$(figures b)
stop b

start a
ready a
worker=$(worker_of a)
wait_until 60 status_is a '.cycle.step == "training" and .worker.job == "fit" and .worker.progress > 0'
kill -STOP "$worker"
status_is a '.worker.state == "busy" and .cycle.step == "training"' || fail "the training was over too soon to be disturbed"
before=$(ctl a --json status | jq .votes.applied)
sql a "INSERT INTO triage.vote (classification, question, answer, id_str, voter)
       SELECT 900000 + 100 * key + n, 'smooth-or-featured', CASE key % 2 WHEN 0 THEN 'artifact' ELSE 'smooth' END, id_str, 'late-' || n
       FROM triage.galaxy, generate_series(1, 3) n WHERE root_votes > 0"
wait_until 30 status_is a ".votes.applied >= $before + 120" # into the very tallies
sed -n '1p; s|^sim1-\(0000[0-9][0-9]\),|new-\1,|p' "$folder/survey/catalog.csv" >"$folder/survey/more.csv"
import a "$folder/survey/more.csv" # makes the daemon read every tally again
wait_until 30 status_is a '.galaxies.total > 150'
kill -CONT "$worker"
wait_until 120 is_trained a
[ "$(figures a)" = "$undisturbed" ] || fail "disturbed: $(figures a), undisturbed: $undisturbed"

# The votes that came meanwhile are trained on now; a reload ends that training.
next=$((next + 1))
wait_until 60 status_is a '.cycle.step == "training" and .worker.job == "fit" and .worker.progress > 0'
ctl a reload >/dev/null
! is_trained a || fail "the training was over too soon to be ended"
wait_until 120 is_trained a
wait_until 60 status_is a '.cycle.step == "idle" and .votes.waiting == 0 and .problems == []'
[ "$(figures a | cut -d"|" -f6)" != "$(cut -d"|" -f6 <<<"$undisturbed")" ] || fail "trained on the votes of before: $(figures a)"

# Refused models go like others: beyond models.keep only the champion and the one before it stay. Galaxies that are embedded
# meanwhile make a cycle, and a model, of their own. With such steps a fit keeps what it started from, which is no improvement.
configure a $'[heads]\nlearning_rate = 1\nbias_rate = 1\nscaling = off\nwarm_start = 1\nepochs_max = 1\n[models]\nkeep = 2\n[training]\ntrunk = off'
ctl a reload >/dev/null
newest() { sql a "SELECT max(number) FROM triage.model"; }
refused() { [ "$(sql a "SELECT count(*) FROM (SELECT promoted FROM triage.model ORDER BY number DESC LIMIT $1) last WHERE NOT promoted")" = "$1" ]; }
for _ in $(seq 20); do
    ! refused 3 || break
    next=$(($(newest) + 1))
    ctl a train now >/dev/null
    wait_until 60 is_trained a
    wait_until 60 status_is a '.cycle.step == "idle"'
done
refused 3 || fail "copies of the champion were promoted"
[ "$(find "$folder/a/models" -name '*.model' | wc -l)" -le 4 ] || fail "too many models stay: $(ls "$folder/a/models")"
stop a
echo "votes that came meanwhile changed nothing: $undisturbed"
