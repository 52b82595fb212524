-- The schema `triage`: what the platform writes (vote), what the service knows (galaxy, tally, queue) and its history
-- (cycle, model). See docs/database.md. Migrations only go forward; a released file never changes.


-- The one decision tree this database serves. Answers are known by name to everybody outside.
CREATE TABLE triage.instance (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    schema_name    text NOT NULL,
    schema_hash    text NOT NULL,
    split_fraction double precision,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE triage.answer (
    answer_index smallint PRIMARY KEY,
    question     text NOT NULL,
    answer       text NOT NULL,
    is_root      boolean NOT NULL,  -- of the first question: one such vote is one classification
    UNIQUE (question, answer)
);

CREATE TABLE triage.galaxy (
    key        bigint PRIMARY KEY,  -- 1, 2, 3, ... without gaps, in the order of import; row of the pool = key - 1
    id_str     text NOT NULL UNIQUE CHECK (length(id_str) BETWEEN 1 AND 63),
    file_loc   text NOT NULL,
    ra         double precision,    -- degrees, ICRS
    dec        double precision,
    split      smallint NOT NULL,   -- 0 train, 1 validation, 2 gate, 3 test
    excluded   boolean NOT NULL DEFAULT false,
    pinned     boolean NOT NULL DEFAULT false,
    bad_reason text,
    bad_since  timestamptz,
    retired_at timestamptz,
    root_votes integer NOT NULL DEFAULT 0
);
CREATE INDEX galaxy_bad ON triage.galaxy (key) WHERE bad_reason IS NOT NULL;

-- Written by the platform's connector, one row per answer given. Delivering a row again changes nothing:
-- INSERT ... ON CONFLICT DO NOTHING.
CREATE TABLE triage.vote (
    classification bigint NOT NULL,
    question       text NOT NULL,
    answer         text NOT NULL,
    id_str         text NOT NULL,
    voter          text,                -- whatever stands for a person; NULL = unknown
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid            xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (classification, question)
) PARTITION BY RANGE (classification);
CREATE TABLE triage.vote_default PARTITION OF triage.vote DEFAULT;
CREATE INDEX vote_arrival ON triage.vote (xid, classification, question);

-- A voter counts once per galaxy and question, whatever the classification.
CREATE TABLE triage.voter_ledger (
    galaxy   bigint NOT NULL,
    question text NOT NULL,
    voter    text NOT NULL,
    PRIMARY KEY (galaxy, question, voter)
);

CREATE TABLE triage.tally (
    galaxy       bigint NOT NULL,
    answer_index smallint NOT NULL,
    votes        integer NOT NULL,
    PRIMARY KEY (galaxy, answer_index)
);
-- Counts that came with the catalogue; tally = catalogue_count + applied votes.
CREATE TABLE triage.catalogue_count (
    galaxy       bigint NOT NULL,
    answer_index smallint NOT NULL,
    votes        integer NOT NULL,
    PRIMARY KEY (galaxy, answer_index)
);
CREATE VIEW triage.tally_by_name AS
    SELECT g.id_str, a.question, a.answer, t.votes
    FROM triage.tally t JOIN triage.galaxy g ON g.key = t.galaxy JOIN triage.answer a USING (answer_index);

-- Votes that mean nothing here are kept with the reason, never dropped.
CREATE TABLE triage.quarantine (
    classification bigint NOT NULL,
    question       text NOT NULL,
    answer         text NOT NULL,
    id_str         text NOT NULL,
    voter          text,
    reason         text NOT NULL,
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (classification, question)
);

-- How far votes were applied. A vote is visible for good once its transaction is below the snapshot's xmin, so the
-- order (xid, classification, question) never gets a late row below the cursor.
CREATE TABLE triage.cursor (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    xid               xid8 NOT NULL DEFAULT '0',
    classification    bigint NOT NULL DEFAULT 0,
    question          text NOT NULL DEFAULT '',
    horizon           xid8 NOT NULL DEFAULT '0',  -- every vote with a smaller xid is applied
    system_identifier bigint NOT NULL,
    applied           bigint NOT NULL DEFAULT 0,
    repeated          bigint NOT NULL DEFAULT 0,
    quarantined       bigint NOT NULL DEFAULT 0
);
INSERT INTO triage.cursor (system_identifier) SELECT system_identifier FROM pg_control_system();

CREATE TABLE triage.queue (
    galaxy       bigint PRIMARY KEY,
    rank         integer NOT NULL,
    stream       text NOT NULL CHECK (stream IN ('active', 'random', 'pinned')),
    probability  double precision NOT NULL,
    score        real NOT NULL,
    total        real NOT NULL,
    expected     real NOT NULL,
    model        integer NOT NULL,
    cycle        bigint NOT NULL,
    leased_until timestamptz NOT NULL
);
CREATE TABLE triage.cycle (
    number       bigint PRIMARY KEY,
    model        integer NOT NULL,
    horizon      xid8 NOT NULL,  -- the ranking knows every vote with a smaller xid
    labels       bigint NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz
);
CREATE INDEX cycle_horizon ON triage.cycle (horizon);

CREATE TABLE triage.model (
    number       integer PRIMARY KEY,
    parent       integer NOT NULL,
    trunk        integer NOT NULL,
    schema_hash  text NOT NULL,
    horizon      xid8 NOT NULL,
    labels       bigint NOT NULL,
    holdout_nll  double precision,
    champion_nll double precision,
    constant_nll double precision,
    promoted     boolean NOT NULL,
    reason       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE triage.champion_event (
    at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    model integer NOT NULL,
    why   text NOT NULL
);

-- An empty wake-up, at most one transaction at a time: a plain NOTIFY per vote would serialise all commits. A lost
-- or skipped one is covered by the daemon's poll.
CREATE FUNCTION triage.wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_try_advisory_xact_lock(7214301) THEN
        NOTIFY triage_vote;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER wake AFTER INSERT ON triage.vote FOR EACH STATEMENT EXECUTE FUNCTION triage.wake();

-- Applies the next votes in arrival order: known ones to the tallies, a voter's second one to the count of repeats,
-- meaningless ones to the quarantine; advances the cursor. One transaction: all of it or nothing. Only the daemon
-- calls it; the lock on the cursor row makes a second caller wait.
CREATE FUNCTION triage.apply_votes(batch integer, retire_votes integer,
    OUT horizon xid8, OUT system_identifier bigint, OUT was_read bigint, OUT applied bigint, OUT repeated bigint,
    OUT quarantined bigint, OUT more boolean, OUT galaxies bigint[], OUT answer_indexes integer[],
    OUT increments integer[], OUT retired bigint[])
LANGUAGE plpgsql AS $$
DECLARE
    place triage.cursor%ROWTYPE;
    limit_xid xid8;
    last record;
BEGIN
    SELECT * INTO place FROM triage.cursor;
    limit_xid := pg_snapshot_xmin(pg_current_snapshot());
    horizon := limit_xid;
    system_identifier := place.system_identifier;
    was_read := 0; applied := 0; repeated := 0; quarantined := 0; more := false;
    IF NOT EXISTS (SELECT 1 FROM triage.vote v
                   WHERE (v.xid, v.classification, v.question) > (place.xid, place.classification, place.question)
                     AND v.xid < limit_xid) THEN
        RETURN;  -- an idle poll writes nothing
    END IF;
    SELECT * INTO place FROM triage.cursor FOR UPDATE;
    CREATE TEMPORARY TABLE IF NOT EXISTS taken (
        classification bigint, question text, answer text, id_str text, voter text, created_at timestamptz, xid xid8,
        galaxy bigint, answer_index smallint, is_root boolean, counts boolean) ON COMMIT DELETE ROWS;
    INSERT INTO taken
        SELECT v.classification, v.question, v.answer, v.id_str, v.voter, v.created_at, v.xid, g.key, a.answer_index,
               a.is_root, false
        FROM (SELECT * FROM triage.vote
              WHERE (xid, classification, question) > (place.xid, place.classification, place.question)
                AND xid < limit_xid
              ORDER BY xid, classification, question LIMIT batch) v
        LEFT JOIN triage.galaxy g ON g.id_str = v.id_str
        LEFT JOIN triage.answer a ON a.question = v.question AND a.answer = v.answer;
    GET DIAGNOSTICS was_read = ROW_COUNT;
    more := was_read = batch;

    INSERT INTO triage.quarantine
        SELECT t.classification, t.question, t.answer, t.id_str, t.voter,
               CASE WHEN t.galaxy IS NULL THEN 'unknown galaxy'
                    WHEN EXISTS (SELECT 1 FROM triage.answer a WHERE a.question = t.question) THEN 'unknown answer'
                    ELSE 'unknown question' END,
               t.created_at
        FROM taken t WHERE t.galaxy IS NULL OR t.answer_index IS NULL
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS quarantined = ROW_COUNT;

    -- A voter's first vote counts: the first in arrival order within this batch, unless the ledger has one already.
    WITH first AS (
        SELECT DISTINCT ON (galaxy, question, voter) galaxy, question, voter, classification
        FROM taken WHERE galaxy IS NOT NULL AND answer_index IS NOT NULL AND voter IS NOT NULL
        ORDER BY galaxy, question, voter, xid, classification
    ), fresh AS (
        INSERT INTO triage.voter_ledger SELECT galaxy, question, voter FROM first ON CONFLICT DO NOTHING
        RETURNING galaxy, question, voter
    )
    UPDATE taken t SET counts = true FROM first f JOIN fresh USING (galaxy, question, voter)
    WHERE t.classification = f.classification AND t.question = f.question;
    UPDATE taken t SET counts = true WHERE voter IS NULL AND galaxy IS NOT NULL AND answer_index IS NOT NULL;

    SELECT count(*) FILTER (WHERE t.counts),
           count(*) FILTER (WHERE NOT t.counts AND t.galaxy IS NOT NULL AND t.answer_index IS NOT NULL)
        INTO applied, repeated FROM taken t;

    WITH sums AS (
        SELECT galaxy, answer_index, count(*)::integer AS votes FROM taken WHERE counts GROUP BY galaxy, answer_index
    ), added AS (
        INSERT INTO triage.tally SELECT * FROM sums
        ON CONFLICT (galaxy, answer_index) DO UPDATE SET votes = triage.tally.votes + excluded.votes
    )
    SELECT array_agg(galaxy), array_agg(answer_index), array_agg(votes) INTO galaxies, answer_indexes, increments
    FROM sums;

    WITH roots AS (
        SELECT galaxy, count(*)::integer AS votes FROM taken WHERE counts AND is_root GROUP BY galaxy
    ), changed AS (
        UPDATE triage.galaxy g SET root_votes = g.root_votes + r.votes,
               retired_at = CASE WHEN g.retired_at IS NULL AND retire_votes > 0
                                  AND g.root_votes + r.votes >= retire_votes
                                 THEN clock_timestamp() ELSE g.retired_at END
        FROM roots r WHERE g.key = r.galaxy
        RETURNING g.key, g.root_votes, r.votes
    )
    SELECT array_agg(key) INTO retired FROM changed
    WHERE retire_votes > 0 AND root_votes >= retire_votes AND root_votes - votes < retire_votes;

    SELECT t.xid, t.classification, t.question INTO last FROM taken t
        ORDER BY t.xid DESC, t.classification DESC, t.question DESC LIMIT 1;
    horizon := CASE WHEN more THEN last.xid ELSE limit_xid END;
    UPDATE triage.cursor c SET
        xid = COALESCE(last.xid, c.xid), classification = COALESCE(last.classification, c.classification),
        question = COALESCE(last.question, c.question), horizon = apply_votes.horizon,
        applied = c.applied + apply_votes.applied, repeated = c.repeated + apply_votes.repeated,
        quarantined = c.quarantined + apply_votes.quarantined;
END $$;

-- Makes the tallies again from the catalogue's counts and every vote up to the cursor.
CREATE FUNCTION triage.rebuild_tallies() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE triage.tally IN EXCLUSIVE MODE;
    PERFORM 1 FROM triage.cursor FOR UPDATE;
    DELETE FROM triage.tally;
    INSERT INTO triage.tally
        SELECT galaxy, answer_index, sum(votes)::integer FROM (
            SELECT galaxy, answer_index, votes FROM triage.catalogue_count
            UNION ALL
            SELECT galaxy, answer_index, 1 FROM (
                SELECT g.key AS galaxy, a.answer_index, v.voter,
                       row_number() OVER (PARTITION BY g.key, v.question, v.voter
                                          ORDER BY v.xid, v.classification) AS nth
                FROM triage.vote v JOIN triage.galaxy g USING (id_str)
                JOIN triage.answer a ON a.question = v.question AND a.answer = v.answer, triage.cursor c
                WHERE (v.xid, v.classification, v.question) <= (c.xid, c.classification, c.question)
                  AND NOT EXISTS (SELECT 1 FROM triage.quarantine x WHERE x.classification = v.classification
                                                                    AND x.question = v.question)
            ) counted WHERE nth = 1 OR voter IS NULL
        ) parts GROUP BY galaxy, answer_index;
    UPDATE triage.galaxy g SET root_votes = COALESCE((
        SELECT sum(t.votes) FROM triage.tally t JOIN triage.answer a USING (answer_index)
        WHERE t.galaxy = g.key AND a.is_root), 0);
END $$;

-- Replaces the published queue and notes the cycle, in one statement.
CREATE FUNCTION triage.record_queue(cycle bigint, model integer, horizon xid8, labels bigint, galaxies bigint[],
    ranks integer[], streams text[], probabilities double precision[], scores real[], totals real[], expecteds real[],
    models integer[], leased_until_ms bigint[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO triage.cycle (number, model, horizon, labels) VALUES ($1, $2, $3, $4)
        ON CONFLICT (number) DO UPDATE SET model = excluded.model, horizon = excluded.horizon, labels = excluded.labels;
    DELETE FROM triage.queue;
    INSERT INTO triage.queue
        SELECT g, r, s, p, sc, t, e, m, $1, to_timestamp(l / 1000.0)
        FROM unnest($5, $6, $7, $8, $9, $10, $11, $12, $13) AS u(g, r, s, p, sc, t, e, m, l);
$$;

-- Seconds from each applied vote to the first published ranking that knows it.
CREATE VIEW triage.vote_latency AS
    SELECT v.classification, v.question,
           extract(epoch FROM c.published_at - v.created_at)::double precision AS seconds
    FROM triage.vote v JOIN triage.galaxy g USING (id_str)
    JOIN triage.answer a ON a.question = v.question AND a.answer = v.answer
    CROSS JOIN LATERAL (SELECT published_at FROM triage.cycle
                        WHERE horizon > v.xid AND published_at IS NOT NULL ORDER BY horizon, number LIMIT 1) c;
