#!/usr/bin/env bash
# Votes for an unknown galaxy, question or answer are kept in the quarantine with their reason and counted; the rest of their
# batch is applied; a vote delivered again changes nothing, and neither does a second one of the same person.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 20
configure a
import a
start a
ready a
sql a "INSERT INTO triage.vote (classification, question, answer, id_str, voter) VALUES
    (1, 'smooth-or-featured', 'smooth', 'sim1-000001', 'ada'),
    (1, 'how-rounded', 'cigar', 'sim1-000001', 'ada'),
    (2, 'smooth-or-featured', 'smooth', 'sim1-777777', 'ada'),
    (3, 'is-it-nice', 'yes', 'sim1-000001', 'bob'),
    (4, 'how-rounded', 'square', 'sim1-000001', 'bob'),
    (5, 'how-rounded', '', '', 'bob'),
    (6, 'smooth-or-featured', 'artifact', 'sim1-000002', NULL),
    (7, 'smooth-or-featured', 'featured-or-disk', 'sim1-000001', 'ada'),
    (8, 'smooth-or-featured', 'smooth', 'sim1-000001', 'eve')"
wait_until 20 status_is a '.votes.applied == 4 and .votes.quarantined == 4 and .votes.repeated == 1'
sql a "INSERT INTO triage.vote (classification, question, answer, id_str, voter) VALUES
    (1, 'smooth-or-featured', 'smooth', 'sim1-000001', 'ada'), (9, 'smooth-or-featured', 'smooth', 'sim1-000003', 'ada')
    ON CONFLICT DO NOTHING"
wait_until 20 status_is a '.votes.applied == 5 and .votes.quarantined == 4 and .votes.repeated == 1'
diff <(sql a "SELECT classification, reason FROM triage.quarantine ORDER BY 1" | tr '|' ' ') - <<'TEXT'
2 unknown galaxy
3 unknown question
4 unknown answer
5 unknown galaxy
TEXT
diff <(sql a "SELECT id_str, question, answer, votes FROM triage.tally_by_name WHERE votes > 0 ORDER BY 1, 2, 3") - <<'TEXT'
sim1-000001|how-rounded|cigar|1
sim1-000001|smooth-or-featured|smooth|2
sim1-000002|smooth-or-featured|artifact|1
sim1-000003|smooth-or-featured|smooth|1
TEXT
ctl a --json votes | jq -e '.quarantined == 4 and ([.quarantine[] | [.reason, .count]] | sort) ==
    [["unknown answer: how-rounded_square", 1], ["unknown galaxy: ", 1], ["unknown galaxy: sim1-777777", 1],
     ["unknown question: is-it-nice", 1]]' >/dev/null || fail "$(ctl a --json votes)"
stop a
start a
ready a
ctl a doctor | grep -q "quarantine *4 votes" || fail "$(ctl a doctor)" # also after a restart
stop a
echo "what means nothing is kept and named"
