-- Tallies become a function of the set of votes: whatever the order, the repeats and the batches in which votes arrive,
-- they end the same. Marks and rules say which votes count; reductions of a platform that counts by itself; a cursor that
-- knows when its tallies must be made again; partitions by range of classification made ahead.

ALTER TABLE triage.answer ADD COLUMN question_index smallint;
UPDATE triage.answer a SET question_index = q.n FROM (
    SELECT question, dense_rank() OVER (ORDER BY min(answer_index)) - 1 AS n FROM triage.answer GROUP BY question) q
    WHERE q.question = a.question;
ALTER TABLE triage.answer ALTER COLUMN question_index SET NOT NULL;

-- marks: what the platform says of a vote: seen_before, gold_standard, retired, not_live. Such votes are kept; whether
-- they count is a rule. NULL = none.
ALTER TABLE triage.vote
    ADD COLUMN marks text[],
    ADD COLUMN classified_at timestamptz,  -- by the volunteer, where known; created_at is the arrival here
    ADD CONSTRAINT vote_sizes CHECK (octet_length(question) <= 255 AND octet_length(answer) <= 255
        AND octet_length(id_str) <= 255 AND octet_length(voter) <= 255 AND cardinality(marks) <= 8
        AND octet_length(marks::text) <= 255) NOT VALID;
ALTER TABLE triage.quarantine ADD COLUMN marks text[];

CREATE TABLE triage.vote_rule (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    voter      text NOT NULL DEFAULT 'first' CHECK (voter IN ('first', 'last', 'all')),  -- by classification, not arrival
    count_also text[] NOT NULL DEFAULT '{}' CHECK (count_also <@ '{seen_before,gold_standard,retired,not_live}'),
    weighting  boolean NOT NULL DEFAULT false
);
INSERT INTO triage.vote_rule DEFAULT VALUES;

-- Which of a voter's votes on a question of a galaxy counts. Made again from the votes when the tallies are.
DROP TABLE triage.voter_ledger;
CREATE TABLE triage.voter_ledger (
    galaxy         bigint NOT NULL,
    question       smallint NOT NULL,
    voter          text COLLATE "C" NOT NULL,
    classification bigint NOT NULL,
    answer_index   smallint NOT NULL,
    PRIMARY KEY (galaxy, question, voter)
);

-- Optional weights of voters in thousandths (triage.weigh_votes); integers, so that sums do not depend on their order.
CREATE TABLE triage.voter_skill (
    voter     text COLLATE "C" PRIMARY KEY,
    votes     bigint NOT NULL,           -- that could be compared with others'
    agreement double precision NOT NULL, -- mean share of the others who gave the same answer
    expected  double precision NOT NULL, -- what an average voter would have had on the same questions
    weight    integer NOT NULL
);

-- votes = catalogue_count + the platform's reduction or our own count of the question, whichever has counted more.
ALTER TABLE triage.tally
    ADD COLUMN counted integer NOT NULL DEFAULT 0,   -- votes in triage.vote that count
    ADD COLUMN weighted bigint NOT NULL DEFAULT 0,   -- the same by weight, in thousandths
    ADD COLUMN reduced integer NOT NULL DEFAULT 0;   -- of the newest reduction

CREATE FUNCTION triage.tally_of(catalogue integer, counted integer, weighted bigint, reduced integer,
    all_counted bigint, all_reduced bigint, weighting boolean) RETURNS integer IMMUTABLE LANGUAGE sql AS $$
    SELECT COALESCE(catalogue, 0) + CASE WHEN all_reduced > all_counted THEN reduced
                                         WHEN weighting THEN ((weighted + 500) / 1000)::integer ELSE counted END
$$;

-- What becomes of a vote: NULL = it is valid, 'ignored', or the reason of its quarantine.
CREATE FUNCTION triage.fate(marks text[], count_also text[], galaxy bigint, answer_index smallint, question_known boolean)
    RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN NOT marks <@ '{seen_before,gold_standard,retired,not_live}' THEN 'unknown mark'
                WHEN NOT marks <@ count_also THEN 'ignored'
                WHEN galaxy IS NULL THEN 'unknown galaxy'
                WHEN answer_index IS NULL THEN CASE WHEN question_known THEN 'unknown answer' ELSE 'unknown question' END
           END
$$;

-- The newest count that a platform sent for a question of a galaxy; delivered through triage.put_reduction().
CREATE TABLE triage.reduction (
    id_str     text NOT NULL CHECK (octet_length(id_str) <= 255),
    question   text NOT NULL CHECK (octet_length(question) <= 255),
    answers    text[] NOT NULL,
    votes      integer[] NOT NULL,
    updated_at timestamptz NOT NULL,
    problem    text,                -- why it does not count
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (id_str, question),
    CHECK (cardinality(answers) BETWEEN 1 AND 256 AND cardinality(answers) = cardinality(votes)
        AND array_ndims(answers) = 1 AND array_ndims(votes) = 1 AND 0 <= ALL (votes) AND 1000000 >= ALL (votes)
        AND array_position(votes, NULL) IS NULL AND array_position(answers, NULL) IS NULL
        AND octet_length(answers::text) <= 65536)
);
CREATE INDEX reduction_arrival ON triage.reduction (xid, id_str, question);

-- true if it was newer than what is known. An older one never overwrites a newer one; of two with the same time the one
-- with more votes stays, so that their order does not matter either.
CREATE FUNCTION triage.put_reduction(id_str text, question text, answers text[], votes integer[], updated_at timestamptz)
    RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO triage.reduction AS r (id_str, question, answers, votes, updated_at)
        VALUES (put_reduction.id_str, put_reduction.question, put_reduction.answers, put_reduction.votes,
                put_reduction.updated_at)
        ON CONFLICT ON CONSTRAINT reduction_pkey DO UPDATE SET answers = excluded.answers, votes = excluded.votes,
            updated_at = excluded.updated_at, problem = NULL, xid = excluded.xid
        WHERE (excluded.updated_at, (SELECT sum(v) FROM unnest(excluded.votes) v), excluded.answers, excluded.votes)
            > (r.updated_at, (SELECT sum(v) FROM unnest(r.votes) v), r.answers, r.votes);
    IF FOUND AND pg_try_advisory_xact_lock(7214301) THEN
        NOTIFY triage_vote;
        RETURN true;
    END IF;
    RETURN FOUND;
END $$;
REVOKE EXECUTE ON FUNCTION triage.put_reduction FROM PUBLIC;

ALTER TABLE triage.cursor
    ADD COLUMN ignored bigint NOT NULL DEFAULT 0,
    ADD COLUMN reduction_xid xid8 NOT NULL DEFAULT '0',  -- how far reductions were applied, in the same order
    ADD COLUMN reduction_id text NOT NULL DEFAULT '',
    ADD COLUMN reduction_question text NOT NULL DEFAULT '',
    ADD COLUMN stale text,                               -- why the tallies must be made again; NULL = they are right
    ADD COLUMN rebuilds bigint NOT NULL DEFAULT 0,       -- of tallies and counters; a cache made at another number is wrong
    ADD COLUMN retry_xid xid8 NOT NULL DEFAULT '0',      -- the newest retry of the quarantine
    ADD COLUMN retried_at timestamptz,
    ADD COLUMN partition_ids bigint NOT NULL DEFAULT 10000000,
    ADD COLUMN default_bytes bigint NOT NULL DEFAULT 134217728;  -- of vote_default; no partitions are made beside a larger one
UPDATE triage.cursor SET stale = 'this version counts by other rules' WHERE EXISTS (SELECT 1 FROM triage.vote);

-- Recomputes the tallies of these questions of these galaxies from their parts.
CREATE FUNCTION triage.settle(for_galaxies bigint[], for_questions smallint[]) RETURNS void LANGUAGE sql AS $$
    UPDATE triage.tally t SET votes = n.votes FROM (
        SELECT p.galaxy, p.answer_index, triage.tally_of(c.votes, p.counted, p.weighted, p.reduced,
                sum(p.counted) OVER question, sum(p.reduced) OVER question, r.weighting) AS votes
        FROM (SELECT DISTINCT g, q FROM unnest(for_galaxies, for_questions) u(g, q)) u
        JOIN triage.answer a ON a.question_index = u.q
        JOIN triage.tally p ON p.galaxy = u.g AND p.answer_index = a.answer_index
        LEFT JOIN triage.catalogue_count c ON c.galaxy = p.galaxy AND c.answer_index = p.answer_index
        CROSS JOIN triage.vote_rule r
        WINDOW question AS (PARTITION BY p.galaxy, a.question_index)
    ) n WHERE t.galaxy = n.galaxy AND t.answer_index = n.answer_index AND t.votes <> n.votes;
$$;

-- The next reductions below the horizon, in the order of arrival. Applying one again changes nothing.
CREATE FUNCTION triage.apply_reductions(batch integer, limit_xid xid8, OUT was_read bigint, OUT galaxies bigint[],
    OUT questions smallint[]) LANGUAGE plpgsql AS $$
DECLARE
    place triage.cursor%ROWTYPE;
BEGIN
    SELECT * INTO place FROM triage.cursor;
    CREATE TEMPORARY TABLE IF NOT EXISTS taken_reduction (
        id_str text, question text, answers text[], votes integer[], xid xid8, galaxy bigint, problem text)
        ON COMMIT DELETE ROWS;
    INSERT INTO taken_reduction
        SELECT r.id_str, r.question, r.answers, r.votes, r.xid, g.key,
               CASE WHEN g.key IS NULL THEN 'unknown galaxy'
                    WHEN NOT EXISTS (SELECT 1 FROM triage.answer a WHERE a.question = r.question) THEN 'unknown question'
                    WHEN EXISTS (SELECT 1 FROM unnest(r.answers) n WHERE NOT EXISTS (
                        SELECT 1 FROM triage.answer a WHERE a.question = r.question AND a.answer = n)) THEN 'unknown answer'
               END
        FROM (SELECT * FROM triage.reduction
              WHERE (xid, id_str, question) > (place.reduction_xid, place.reduction_id, place.reduction_question)
                AND xid < limit_xid
              ORDER BY xid, id_str, question LIMIT batch) r
        LEFT JOIN triage.galaxy g ON g.id_str = r.id_str;
    GET DIAGNOSTICS was_read = ROW_COUNT;
    IF was_read = 0 THEN
        RETURN;
    END IF;
    UPDATE triage.reduction r SET problem = t.problem FROM taken_reduction t
        WHERE r.id_str = t.id_str AND r.question = t.question AND r.xid = t.xid AND r.problem IS DISTINCT FROM t.problem;
    INSERT INTO triage.tally AS old (galaxy, answer_index, votes, reduced)
        SELECT t.galaxy, a.answer_index, 0, COALESCE(sum(n.votes), 0)
        FROM taken_reduction t JOIN triage.answer a USING (question)
        LEFT JOIN unnest(t.answers, t.votes) n(answer, votes) ON n.answer = a.answer
        WHERE t.problem IS NULL GROUP BY t.galaxy, a.answer_index
        ON CONFLICT (galaxy, answer_index) DO UPDATE SET reduced = excluded.reduced;
    SELECT array_agg(t.galaxy), array_agg(q.question_index) INTO galaxies, questions
        FROM taken_reduction t JOIN (SELECT DISTINCT question, question_index FROM triage.answer) q USING (question)
        WHERE t.problem IS NULL;
    UPDATE triage.cursor c SET reduction_xid = l.xid, reduction_id = l.id_str, reduction_question = l.question
        FROM (SELECT t.xid, t.id_str, t.question FROM taken_reduction t
              ORDER BY t.xid DESC, t.id_str DESC, t.question DESC LIMIT 1) l;
END $$;

-- Whose transaction holds the horizon back, in words; NULL if it has ended by now.
CREATE FUNCTION triage.horizon_holder(xmin xid8) RETURNS text LANGUAGE sql AS $$
    SELECT format('process %s of user %s (application "%s"), open for %s s', pid, COALESCE(usename, '?'),
                  COALESCE(application_name, '?'), COALESCE(round(extract(epoch FROM clock_timestamp() - xact_start))::text, '?'))
    FROM pg_stat_activity WHERE backend_xid::text = (xmin::text::numeric % 4294967296)::text
    UNION ALL
    SELECT format('the prepared transaction "%s" of user %s', gid, owner) FROM pg_prepared_xacts
    WHERE transaction::text = (xmin::text::numeric % 4294967296)::text
    LIMIT 1;
$$;

-- Age of the oldest vote that is not applied, 0 if there is none. Votes of the quarantine arrived when they were retried.
CREATE FUNCTION triage.vote_lag() RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
    place triage.cursor%ROWTYPE;
    lag_s double precision;
BEGIN
    SELECT * INTO place FROM triage.cursor;
    SELECT greatest(0, extract(epoch FROM clock_timestamp()
                               - CASE WHEN v.xid = place.retry_xid THEN place.retried_at ELSE v.created_at END))
        INTO lag_s FROM triage.vote v
        WHERE (v.xid, v.classification, v.question) > (place.xid, place.classification, place.question)
        ORDER BY v.xid, v.classification, v.question LIMIT 1;
    RETURN COALESCE(lag_s, 0);
END $$;

-- Applies the next votes in arrival order: valid ones to the tallies, unless another one of their voter counts; marked
-- ones to the count of ignored; meaningless ones to the quarantine; advances the cursor. One transaction: all of it or
-- nothing. Only the daemon calls it; the lock on the cursor row makes a second caller wait. Tallies that changed are
-- returned as they are now. lag_s: age of the oldest vote that is not applied; held_by: who makes it wait.
DROP FUNCTION triage.apply_votes(integer, integer);
CREATE FUNCTION triage.apply_votes(batch integer, retire_votes integer,
    OUT horizon xid8, OUT system_identifier bigint, OUT rebuilds bigint, OUT was_read bigint, OUT applied bigint,
    OUT repeated bigint, OUT ignored bigint, OUT quarantined bigint, OUT more boolean, OUT lag_s double precision,
    OUT held_by text, OUT galaxies bigint[], OUT answer_indexes integer[], OUT votes integer[], OUT retired bigint[])
LANGUAGE plpgsql AS $$
DECLARE
    place triage.cursor%ROWTYPE;
    rule triage.vote_rule%ROWTYPE;
    limit_xid xid8;
    last record;
    touched_galaxies bigint[] := '{}';
    touched_questions smallint[] := '{}';
    reductions record;
BEGIN
    SELECT * INTO place FROM triage.cursor;
    limit_xid := pg_snapshot_xmin(pg_current_snapshot());
    horizon := limit_xid;
    system_identifier := place.system_identifier;
    rebuilds := place.rebuilds;
    was_read := 0; applied := 0; repeated := 0; ignored := 0; quarantined := 0; more := false;
    IF place.stale IS NOT NULL THEN
        RAISE 'the tallies must be made again: %', place.stale;
    ELSIF place.system_identifier <> (SELECT c.system_identifier FROM pg_control_system() c) THEN
        RAISE 'the tallies must be made again: the database was restored into another server';
    END IF;
    lag_s := triage.vote_lag();
    IF lag_s > 2 THEN
        held_by := triage.horizon_holder(limit_xid);
    END IF;
    IF NOT EXISTS (SELECT 1 FROM triage.vote v
                   WHERE (v.xid, v.classification, v.question) > (place.xid, place.classification, place.question)
                     AND v.xid < limit_xid)
       AND NOT EXISTS (SELECT 1 FROM triage.reduction r WHERE (r.xid, r.id_str, r.question)
                           > (place.reduction_xid, place.reduction_id, place.reduction_question) AND r.xid < limit_xid) THEN
        RETURN;  -- an idle poll writes nothing
    END IF;
    SELECT * INTO place FROM triage.cursor FOR UPDATE;
    SELECT * INTO rule FROM triage.vote_rule;
    CREATE TEMPORARY TABLE IF NOT EXISTS taken (
        classification bigint, question text, answer text, id_str text, voter text, created_at timestamptz, xid xid8,
        marks text[], galaxy bigint, question_index smallint, answer_index smallint, fate text) ON COMMIT DELETE ROWS;
    CREATE TEMPORARY TABLE IF NOT EXISTS change (
        galaxy bigint, question_index smallint, answer_index smallint, voter text, votes integer) ON COMMIT DELETE ROWS;
    INSERT INTO taken
        SELECT v.classification, v.question, v.answer, v.id_str, v.voter, v.created_at, v.xid, v.marks, g.key,
               a.question_index, a.answer_index, triage.fate(v.marks, rule.count_also, g.key, a.answer_index,
                   EXISTS (SELECT 1 FROM triage.answer k WHERE k.question = v.question))
        FROM (SELECT * FROM triage.vote b
              WHERE (b.xid, b.classification, b.question) > (place.xid, place.classification, place.question)
                AND b.xid < limit_xid
              ORDER BY b.xid, b.classification, b.question LIMIT batch) v
        LEFT JOIN triage.galaxy g ON g.id_str = v.id_str
        LEFT JOIN triage.answer a ON a.question = v.question AND a.answer = v.answer;
    GET DIAGNOSTICS was_read = ROW_COUNT;
    more := was_read = batch;

    INSERT INTO triage.quarantine (classification, question, answer, id_str, voter, reason, created_at, marks)
        SELECT t.classification, t.question, t.answer, t.id_str, t.voter, t.fate, t.created_at, t.marks
        FROM taken t WHERE t.fate <> 'ignored' ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS quarantined = ROW_COUNT;
    SELECT count(*) INTO ignored FROM taken t WHERE t.fate = 'ignored';

    -- Of a voter's votes on a question the first (or last) by classification counts, in whatever order they come: a vote
    -- that displaces one from the ledger takes its place in the tally.
    WITH best AS (
        SELECT DISTINCT ON (t.galaxy, t.question_index, t.voter) t.galaxy, t.question_index, t.voter, t.classification,
               t.answer_index
        FROM taken t WHERE t.fate IS NULL AND t.voter IS NOT NULL AND rule.voter <> 'all'
        ORDER BY t.galaxy, t.question_index, t.voter, CASE rule.voter WHEN 'first' THEN t.classification END,
                 t.classification DESC
    ), displaced AS (
        SELECT l.* FROM triage.voter_ledger l JOIN best b ON l.galaxy = b.galaxy AND l.question = b.question_index
                                                         AND l.voter = b.voter
    ), kept AS (
        INSERT INTO triage.voter_ledger AS l (galaxy, question, voter, classification, answer_index)
            SELECT b.galaxy, b.question_index, b.voter, b.classification, b.answer_index FROM best b
            ON CONFLICT (galaxy, question, voter) DO UPDATE
                SET classification = excluded.classification, answer_index = excluded.answer_index
                WHERE CASE rule.voter WHEN 'first' THEN excluded.classification < l.classification
                                      ELSE excluded.classification > l.classification END
            RETURNING l.galaxy, l.question, l.voter, l.answer_index
    )
    INSERT INTO change
        SELECT k.galaxy, k.question, k.answer_index, k.voter, 1 FROM kept k
        UNION ALL
        SELECT d.galaxy, d.question, d.answer_index, d.voter, -1 FROM displaced d
            JOIN kept k ON k.galaxy = d.galaxy AND k.question = d.question AND k.voter = d.voter
        UNION ALL
        SELECT t.galaxy, t.question_index, t.answer_index, t.voter, 1 FROM taken t
            WHERE t.fate IS NULL AND (t.voter IS NULL OR rule.voter = 'all');
    SELECT COALESCE(sum(c.votes), 0) INTO applied FROM change c;
    SELECT count(*) - applied INTO repeated FROM taken t WHERE t.fate IS NULL;

    INSERT INTO triage.tally AS old (galaxy, answer_index, votes, counted, weighted)
        SELECT c.galaxy, c.answer_index, sum(c.votes), sum(c.votes), sum(c.votes * COALESCE(s.weight, 1000))
        FROM change c LEFT JOIN triage.voter_skill s ON s.voter = c.voter GROUP BY c.galaxy, c.answer_index
        ON CONFLICT (galaxy, answer_index) DO UPDATE SET votes = old.votes + excluded.votes,
            counted = old.counted + excluded.counted, weighted = old.weighted + excluded.weighted;
    SELECT COALESCE(array_agg(DISTINCT c.galaxy), '{}') INTO touched_galaxies FROM change c;
    SELECT * INTO reductions FROM triage.apply_reductions(batch, limit_xid);
    IF rule.weighting OR EXISTS (SELECT 1 FROM triage.reduction) THEN
        SELECT array_agg(g), array_agg(q) INTO touched_galaxies, touched_questions FROM (
            SELECT c.galaxy AS g, c.question_index AS q FROM change c
            UNION SELECT * FROM unnest(reductions.galaxies, reductions.questions)) touched;
        PERFORM triage.settle(touched_galaxies, touched_questions);
        SELECT array_agg(t.galaxy), array_agg(t.answer_index), array_agg(t.votes) INTO galaxies, answer_indexes, votes
        FROM (SELECT DISTINCT g, q FROM unnest(touched_galaxies, touched_questions) u(g, q)) u
        JOIN triage.answer a ON a.question_index = u.q
        JOIN triage.tally t ON t.galaxy = u.g AND t.answer_index = a.answer_index;
    ELSE
        SELECT array_agg(t.galaxy), array_agg(t.answer_index), array_agg(t.votes) INTO galaxies, answer_indexes, votes
        FROM (SELECT DISTINCT c.galaxy, c.answer_index FROM change c) c
        JOIN triage.tally t ON t.galaxy = c.galaxy AND t.answer_index = c.answer_index;
    END IF;

    UPDATE triage.galaxy g SET root_votes = r.votes FROM (
        SELECT t.galaxy, sum(t.votes)::integer AS votes FROM triage.tally t JOIN triage.answer a USING (answer_index)
        WHERE a.is_root AND t.galaxy = ANY (touched_galaxies) GROUP BY t.galaxy) r
        WHERE g.key = r.galaxy AND g.root_votes <> r.votes;
    WITH done AS (
        UPDATE triage.galaxy g SET retired_at = clock_timestamp()
        WHERE g.key = ANY (touched_galaxies) AND g.retired_at IS NULL AND retire_votes > 0
          AND g.root_votes >= retire_votes RETURNING g.key
    ) SELECT array_agg(key) INTO retired FROM done;

    more := more OR reductions.was_read = batch;
    SELECT t.xid, t.classification, t.question INTO last FROM taken t
        ORDER BY t.xid DESC, t.classification DESC, t.question DESC LIMIT 1;
    horizon := CASE WHEN was_read = batch THEN last.xid ELSE limit_xid END;
    UPDATE triage.cursor c SET
        xid = COALESCE(last.xid, c.xid), classification = COALESCE(last.classification, c.classification),
        question = COALESCE(last.question, c.question), horizon = apply_votes.horizon,
        applied = c.applied + apply_votes.applied, repeated = c.repeated + apply_votes.repeated,
        ignored = c.ignored + apply_votes.ignored, quarantined = c.quarantined + apply_votes.quarantined;
    lag_s := triage.vote_lag();
END $$;

-- Makes ledger, quarantine, tallies and counters again from the catalogue's counts, the reductions, and every vote up to
-- the cursor. After a restore into another server, whose transaction numbers are another's, every vote that is there
-- counts as arrived before all others.
CREATE OR REPLACE FUNCTION triage.rebuild_tallies() RETURNS void LANGUAGE plpgsql SET work_mem = '128MB' AS $$
DECLARE
    place triage.cursor%ROWTYPE;
    rule triage.vote_rule%ROWTYPE;
    here bigint;
BEGIN
    SELECT * INTO place FROM triage.cursor FOR UPDATE;
    SELECT * INTO rule FROM triage.vote_rule;
    SELECT c.system_identifier INTO here FROM pg_control_system() c;
    IF here <> place.system_identifier THEN
        LOCK TABLE triage.vote, triage.reduction IN SHARE ROW EXCLUSIVE MODE;
        UPDATE triage.vote SET xid = '0';
        UPDATE triage.reduction SET xid = '0';
        UPDATE triage.cycle SET horizon = '0';
        place.xid := '1'; place.classification := 0; place.question := '';  -- behind those, before all real ones
        place.reduction_xid := '1'; place.reduction_id := ''; place.reduction_question := '';
    END IF;
    TRUNCATE triage.voter_ledger, triage.tally, triage.quarantine;
    WITH judged AS MATERIALIZED (
        SELECT v.classification, v.question, v.voter COLLATE "C" AS voter, g.key AS galaxy, a.question_index, a.answer_index,
               triage.fate(v.marks, rule.count_also, g.key, a.answer_index,
                           EXISTS (SELECT 1 FROM triage.answer k WHERE k.question = v.question)) AS fate
        FROM triage.vote v LEFT JOIN triage.galaxy g ON g.id_str = v.id_str
        LEFT JOIN triage.answer a ON a.question = v.question AND a.answer = v.answer
        WHERE (v.xid, v.classification, v.question) <= (place.xid, place.classification, place.question)
    ), best AS MATERIALIZED (
        SELECT DISTINCT ON (j.galaxy, j.question_index, j.voter) j.galaxy, j.question_index, j.voter, j.classification,
               j.answer_index
        FROM judged j WHERE j.fate IS NULL AND j.voter IS NOT NULL AND rule.voter <> 'all'
        ORDER BY j.galaxy, j.question_index, j.voter, CASE rule.voter WHEN 'first' THEN j.classification END,
                 j.classification DESC
    ), ledger AS (
        INSERT INTO triage.voter_ledger SELECT b.galaxy, b.question_index, b.voter, b.classification, b.answer_index FROM best b
    ), kept AS (
        INSERT INTO triage.quarantine (classification, question, answer, id_str, voter, reason, created_at, marks)
            SELECT v.classification, v.question, v.answer, v.id_str, v.voter, j.fate, v.created_at, v.marks
            FROM judged j JOIN triage.vote v USING (classification, question) WHERE j.fate <> 'ignored'
    ), parts AS (
        SELECT galaxy, answer_index, votes AS catalogue, 0 AS counted, 0 AS weighted, 0 AS reduced FROM triage.catalogue_count
        UNION ALL
        SELECT c.galaxy, c.answer_index, 0, count(*), sum(COALESCE(s.weight, 1000)), 0 FROM (
            SELECT b.galaxy, b.answer_index, b.voter FROM best b
            UNION ALL
            SELECT j.galaxy, j.answer_index, j.voter FROM judged j
                WHERE j.fate IS NULL AND (j.voter IS NULL OR rule.voter = 'all')
        ) c LEFT JOIN triage.voter_skill s ON s.voter = c.voter GROUP BY c.galaxy, c.answer_index
        UNION ALL
        SELECT g.key, a.answer_index, 0, 0, 0, COALESCE(n.votes, 0) FROM triage.reduction r
            JOIN triage.galaxy g USING (id_str) JOIN triage.answer a USING (question)
            LEFT JOIN LATERAL (SELECT sum(u.votes) AS votes FROM unnest(r.answers, r.votes) u(answer, votes)
                               WHERE u.answer = a.answer) n ON true
            WHERE r.problem IS NULL AND (r.xid, r.id_str, r.question)
                <= (place.reduction_xid, place.reduction_id, place.reduction_question)
    ), sums AS (
        SELECT p.galaxy, p.answer_index, a.question_index, sum(p.catalogue)::integer AS catalogue,
               sum(p.counted)::integer AS counted, sum(p.weighted)::bigint AS weighted, sum(p.reduced)::integer AS reduced
        FROM parts p JOIN triage.answer a USING (answer_index) GROUP BY p.galaxy, p.answer_index, a.question_index
    ), put AS (
        INSERT INTO triage.tally (galaxy, answer_index, votes, counted, weighted, reduced)
            SELECT s.galaxy, s.answer_index, triage.tally_of(s.catalogue, s.counted, s.weighted, s.reduced,
                       sum(s.counted) OVER question, sum(s.reduced) OVER question, rule.weighting),
                   s.counted, s.weighted, s.reduced
            FROM sums s WINDOW question AS (PARTITION BY s.galaxy, s.question_index)
            ORDER BY s.galaxy, s.answer_index
    )
    SELECT (SELECT COALESCE(sum(s.counted), 0) FROM sums s),
           count(*) FILTER (WHERE j.fate IS NULL), count(*) FILTER (WHERE j.fate = 'ignored'),
           count(*) FILTER (WHERE j.fate <> 'ignored')
        INTO place.applied, place.repeated, place.ignored, place.quarantined FROM judged j;
    UPDATE triage.galaxy g SET root_votes = COALESCE(n.votes, 0)
        FROM triage.galaxy o LEFT JOIN (
            SELECT t.galaxy, sum(t.votes)::integer AS votes FROM triage.tally t JOIN triage.answer a USING (answer_index)
            WHERE a.is_root GROUP BY t.galaxy) n ON n.galaxy = o.key
        WHERE g.key = o.key AND g.root_votes <> COALESCE(n.votes, 0);
    UPDATE triage.cursor SET xid = place.xid, classification = place.classification, question = place.question,
        reduction_xid = place.reduction_xid, reduction_id = place.reduction_id,
        reduction_question = place.reduction_question, system_identifier = here, stale = NULL,
        rebuilds = place.rebuilds + 1, applied = place.applied, repeated = place.repeated - place.applied,
        ignored = place.ignored, quarantined = place.quarantined,
        horizon = CASE WHEN here <> place.system_identifier THEN '0' ELSE place.horizon END;
END $$;

-- Before votes are applied: makes the tallies again if the rules are others, after a restore, or when they are stale. Says
-- why, or NULL if there was nothing to do.
CREATE FUNCTION triage.prepare_votes(voter text, count_also text[], weighting boolean, OUT why text) LANGUAGE plpgsql AS $$
DECLARE
    rule triage.vote_rule%ROWTYPE;
BEGIN
    PERFORM 1 FROM triage.cursor FOR UPDATE;
    SELECT c.stale INTO why FROM triage.cursor c;
    SELECT * INTO rule FROM triage.vote_rule;
    IF (rule.voter, rule.weighting) <> (prepare_votes.voter, prepare_votes.weighting)
        OR NOT (rule.count_also <@ prepare_votes.count_also AND rule.count_also @> prepare_votes.count_also) THEN
        UPDATE triage.vote_rule r SET voter = prepare_votes.voter, count_also = prepare_votes.count_also,
            weighting = prepare_votes.weighting;
        why := 'the rules of [votes] changed';
    END IF;
    IF (SELECT c.system_identifier FROM triage.cursor c) <> (SELECT p.system_identifier FROM pg_control_system() p) THEN
        why := 'the database was restored into another server';
    END IF;
    IF why IS NOT NULL THEN
        PERFORM triage.rebuild_tallies();
    END IF;
END $$;

-- Votes in the quarantine that mean something by now arrive again, and so do reductions. Returns how many votes.
CREATE FUNCTION triage.retry_quarantine() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    count bigint;
BEGIN
    PERFORM 1 FROM triage.cursor FOR UPDATE;
    WITH freed AS (
        DELETE FROM triage.quarantine q USING triage.vote_rule r
        WHERE triage.fate(q.marks, r.count_also, (SELECT g.key FROM triage.galaxy g WHERE g.id_str = q.id_str),
                  (SELECT a.answer_index FROM triage.answer a WHERE a.question = q.question AND a.answer = q.answer),
                  true) IS NULL
        RETURNING q.classification, q.question
    )
    UPDATE triage.vote v SET xid = pg_current_xact_id() FROM freed f
        WHERE v.classification = f.classification AND v.question = f.question;
    GET DIAGNOSTICS count = ROW_COUNT;
    UPDATE triage.cursor SET quarantined = quarantined - count, rebuilds = rebuilds + 1,
        retry_xid = pg_current_xact_id(), retried_at = clock_timestamp() WHERE count > 0;
    UPDATE triage.reduction SET problem = NULL, xid = pg_current_xact_id() WHERE problem IS NOT NULL;
    RETURN count;
END $$;

-- Makes partitions of triage.vote ahead, by range of classification: the two ranges that follow the newest votes, and on an
-- empty table the first. A range that has votes already stays in the default partition: a writer who is on the way there
-- would be refused. Attaching one looks through the default partition while writers wait: beside one that is large none is
-- made. Returns how many were made; 500 in all, then the default takes the rest.
CREATE FUNCTION triage.make_partitions() RETURNS integer LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    width bigint;
    newest bigint;
    number bigint;
    made integer := 0;
    name text;
    taken boolean;
BEGIN
    SELECT c.partition_ids, c.classification / c.partition_ids - (c.xid = '0')::integer INTO width, newest FROM triage.cursor c
        WHERE pg_relation_size('triage.vote_default') <= c.default_bytes;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    FOR step IN 1 .. 2 LOOP
        number := newest + step; -- a loop's own variable would be an integer
        name := 'vote_' || number;
        CONTINUE WHEN number < 0 OR number > 9000000000000000000 / width OR to_regclass('triage.' || name) IS NOT NULL
            OR (SELECT count(*) FROM pg_inherits WHERE inhparent = 'triage.vote'::regclass) > 500;
        SELECT EXISTS (SELECT 1 FROM triage.vote_default d WHERE d.classification >= number * width
                       AND d.classification < (number + 1) * width) INTO taken;
        CONTINUE WHEN taken;
        EXECUTE format('CREATE TABLE triage.%I (LIKE triage.vote INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
        EXECUTE format('ALTER TABLE triage.vote ATTACH PARTITION triage.%I FOR VALUES FROM (%s) TO (%s)', name,
                       number * width, (number + 1) * width);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- As before, without votes that a restore made to arrive before all others.
CREATE OR REPLACE VIEW triage.vote_latency AS
    SELECT v.classification, v.question,
           extract(epoch FROM c.published_at - v.created_at)::double precision AS seconds
    FROM triage.vote v JOIN triage.galaxy g USING (id_str)
    JOIN triage.answer a ON a.question = v.question AND a.answer = v.answer
    CROSS JOIN LATERAL (SELECT published_at FROM triage.cycle
                        WHERE horizon > v.xid AND published_at IS NOT NULL ORDER BY horizon, number LIMIT 1) c
    WHERE v.xid > '0';
