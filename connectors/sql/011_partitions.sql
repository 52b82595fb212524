-- Partitions for imports too, and a word when no more are made.

-- Makes the partition of triage.vote with this number, by range of classification; whether it made one. A range that has votes
-- already stays in the default partition: a writer who is on the way there would be refused. Attaching one looks through the
-- default partition while its writers wait: beside one that is large none is made. 500 in all, then the default takes the rest.
CREATE FUNCTION triage.make_partition(number bigint) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    width bigint;
    name text := 'vote_' || number;
    taken boolean;
BEGIN
    SELECT c.partition_ids INTO width FROM triage.cursor c WHERE pg_relation_size('triage.vote_default') <= c.default_bytes;
    IF NOT FOUND OR number < 0 OR number > 9000000000000000000 / width OR to_regclass('triage.' || name) IS NOT NULL
        OR (SELECT count(*) FROM pg_inherits WHERE inhparent = 'triage.vote'::regclass) > 500 THEN
        RETURN false;
    END IF;
    SELECT EXISTS (SELECT 1 FROM triage.vote_default d WHERE d.classification >= number * width
                   AND d.classification < (number + 1) * width) INTO taken;
    IF taken THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE triage.%I (LIKE triage.vote INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE triage.vote ATTACH PARTITION triage.%I FOR VALUES FROM (%s) TO (%s)', name,
                   number * width, (number + 1) * width);
    RETURN true;
END $$;

DROP FUNCTION triage.make_partitions();
-- Makes partitions ahead: of the two ranges that follow the newest votes, and on an empty table of the first. Returns how many
-- were made; refused: why none is made any more, or NULL.
CREATE FUNCTION triage.make_partitions(OUT made integer, OUT refused text) LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    newest bigint;
BEGIN
    SELECT c.classification / c.partition_ids - (c.xid = '0')::integer,
           CASE WHEN pg_relation_size('triage.vote_default') > c.default_bytes
                THEN 'triage.vote_default holds ' || pg_size_pretty(pg_relation_size('triage.vote_default')) END
        INTO newest, refused FROM triage.cursor c;
    SELECT count(*) FILTER (WHERE triage.make_partition(newest + step)) INTO made FROM generate_series(1, 2) step;
END $$;
