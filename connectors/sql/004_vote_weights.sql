-- Weights of voters from their agreement with others, after Willett et al. (2013, MNRAS 435, 2835), section 3.2, and SWAP
-- (Marshall et al. 2016, MNRAS 455, 1171). For each counted vote of a voter on a question of a galaxy with at least three
-- votes of others: the share of the others who gave the same answer, and the share an average voter of that question
-- would have (the probability that two of its votes agree). Sums over a voter's votes, with ten votes of an average voter
-- added so that newcomers are average; skill = agreement / expected; weight = min(1, (skill / 0.8)^8.5). Only weights
-- change: votes, ledger and counts stay. Returns the number of voters weighed.
CREATE FUNCTION triage.weigh_votes() RETURNS bigint LANGUAGE plpgsql SET work_mem = '128MB' AS $$
DECLARE
    voters bigint;
BEGIN
    PERFORM 1 FROM triage.cursor FOR UPDATE;
    DELETE FROM triage.voter_skill;
    WITH per_answer AS (
        SELECT t.galaxy, a.question_index, t.answer_index, t.counted::double precision AS n,
               sum(t.counted) OVER question::double precision AS total,
               sum(t.counted::double precision * (t.counted - 1)) OVER question AS agreeing
        FROM triage.tally t JOIN triage.answer a USING (answer_index) WHERE t.counted > 0
        WINDOW question AS (PARTITION BY t.galaxy, a.question_index)
    ), compared AS (
        SELECT l.voter, count(*) AS votes, sum(round(1e9 * (p.n - 1) / (p.total - 1))::bigint) / 1e9 AS same,
               sum(round(1e9 * p.agreeing / (p.total * (p.total - 1)))::bigint) / 1e9 AS expected
        FROM triage.voter_ledger l
        JOIN per_answer p ON p.galaxy = l.galaxy AND p.answer_index = l.answer_index
        WHERE p.total >= 4 GROUP BY l.voter
    ), typical AS (
        SELECT 10 * sum(expected) / sum(votes) AS prior FROM compared
    )
    INSERT INTO triage.voter_skill (voter, votes, agreement, expected, weight)
        SELECT c.voter, c.votes, c.same / c.votes, c.expected / c.votes,
               round(1000 * least(1, ((c.same + t.prior) / (c.expected + t.prior) / 0.8) ^ 8.5))
        FROM compared c, typical t;
    GET DIAGNOSTICS voters = ROW_COUNT;
    PERFORM triage.rebuild_tallies();
    RETURN voters;
END $$;
