-- Files of votes: how far each was read, committed together with its votes, and the rows that could not be read.

CREATE TABLE triage.vote_import (
    source      text PRIMARY KEY,      -- name, size and hash of the start of the file
    offset_bytes bigint NOT NULL DEFAULT 0,
    line        bigint NOT NULL DEFAULT 1,
    rows        bigint NOT NULL DEFAULT 0,
    votes       bigint NOT NULL DEFAULT 0,  -- votes of these rows
    added       bigint NOT NULL DEFAULT 0,  -- of them not known before
    rejected    bigint NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
CREATE TABLE triage.rejected_row (
    source text NOT NULL,
    line   bigint NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (source, line)
);
