-- Which key the anonymous volunteers of the votes were named with: its fingerprint, from the first import of an export on. With
-- another key each of them would be another voter, and count again.
CREATE TABLE triage.voter_key (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint text NOT NULL,
    kept_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
