-- Retirement by votes is a function of the votes and the limit, however a galaxy came to them: counts of its catalogue, votes, or
-- another limit than before. Called whenever the pool is read back and when the limit changes; apply_votes() does the same for
-- the galaxies it touches. Galaxies that are done for another reason stay so. Returns how many changed.
CREATE FUNCTION triage.settle_retirement(retire_votes integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    UPDATE triage.galaxy g SET retired_at = CASE WHEN g.retired_at IS NULL THEN clock_timestamp() END
        WHERE g.retired_why IS NULL AND (g.retired_at IS NULL) = (g.root_votes >= settle_retirement.retire_votes);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END $$;
