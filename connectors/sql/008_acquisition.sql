-- What choosing galaxies leaves behind: why a galaxy was done, what guards hold back, what each batch was expected to teach.

ALTER TABLE triage.galaxy ADD COLUMN retired_why text;  -- NULL = by the number of votes; 'information' = more teach too little

-- The review stream: galaxies that would be asked about but look like artifacts, or like nothing else in the pool. They are
-- never on the feed; an operator looks at them and pins or excludes them. Replaced by every ranking.
CREATE TABLE triage.review (
    galaxy bigint PRIMARY KEY,
    reason text NOT NULL CHECK (reason IN ('artifact', 'outlier')),
    value  double precision,  -- expected share of volunteers; or distance, 1 = median, NULL = its embedding is not finite
    score  real NOT NULL,
    model  integer NOT NULL,
    cycle  bigint NOT NULL
);
CREATE VIEW triage.review_by_name AS
    SELECT g.id_str, r.reason, r.value, r.score, r.model, r.cycle
    FROM triage.review r JOIN triage.galaxy g ON g.key = r.galaxy;

-- Information expected from the votes due for one active galaxy of the queue, in nats: mean, and its standard error over them.
ALTER TABLE triage.cycle ADD COLUMN active_galaxies integer;
ALTER TABLE triage.cycle ADD COLUMN gain_mean double precision;
ALTER TABLE triage.cycle ADD COLUMN gain_error double precision;

CREATE FUNCTION triage.record_choice(number bigint, active_galaxies integer, gain_mean double precision,
    gain_error double precision, galaxies bigint[], reasons text[], shares double precision[], scores real[], model integer)
RETURNS void LANGUAGE sql AS $$
    UPDATE triage.cycle SET active_galaxies = $2, gain_mean = $3, gain_error = $4 WHERE cycle.number = $1;
    DELETE FROM triage.review;
    INSERT INTO triage.review SELECT g, r, v, s, $9, $1 FROM unnest($5, $6, $7, $8) AS u(g, r, v, s);
$$;
