/*
 * The pool: all galaxies, one row each, in memory-mapped columns. Row = galaxy key - 1.
 *
 * The control process owns identity, state, tally and position; the worker owns pixels, embedding, detail, score and scored.
 * Both map the same files. Everything here can be made again from the database and the images.
 */
#ifndef TRIAGE_POOL_POOL_H
#define TRIAGE_POOL_POOL_H

#include "model/split.h"
#include "pool/column.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pool_flag {
    POOL_BAD = 1,      /* its image cannot be read */
    POOL_EXCLUDED = 2, /* by an operator */
    POOL_RETIRED = 4,  /* has all the votes it needs */
    POOL_PINNED = 8,   /* by an operator */
    POOL_QUEUED = 16,  /* on offer now */
};

struct pool_identity {
    char id_str[64];
};

struct pool_state {
    uint8_t flags;       /* enum pool_flag */
    uint8_t split;       /* enum split */
    uint16_t root_votes; /* classifications: votes on the first question */
};

struct pool_score {
    float score, total, expected; /* nats; score = total - expected */
    uint32_t model;               /* that gave it; 0 = never scored */
};

/* How the row of pool_detail() and the score came about. */
struct pool_scored {
    uint32_t at_s;         /* Unix time; 0 = never */
    uint16_t votes;        /* due at the root then */
    uint16_t outcomes_max; /* questions with so many outcomes at most were computed exactly; 0 = the scan's bounds */
};

struct pool_position {
    float unit[3]; /* towards the galaxy, ICRS; zeros = unknown */
};

struct pool_layout {
    int answers, questions;
    int embedding_inputs;
    int pixel_side, pixel_channels;
    /* how embeddings are made; rows made in two ways would not compare */
    int trunk_weights; /* 1 = of given weights, 0 = of a random trunk, whose embeddings are normalised */
    int trunk_side, trunk_views, trunk_bf16, augmentation, mc_views, mc_depth_per_mille;
    char schema_hash[33];
};

enum pool_mode {
    POOL_READ,       /* every column read-only */
    POOL_WORKER,     /* pixels, embedding, detail, score and scored writable */
    POOL_READ_WRITE, /* everything; makes the files; the only mode that may grow */
};

enum pool_column {
    POOL_COLUMN_IDENTITY,
    POOL_COLUMN_STATE,
    POOL_COLUMN_TALLY,
    POOL_COLUMN_PIXELS,
    POOL_COLUMN_EMBEDDING, /* of trunks with an odd number, and the trunk's number beside it */
    POOL_COLUMN_VERSION,
    POOL_COLUMN_EMBEDDING_EVEN, /* of trunks with an even number: the next trunk's are made while this one's serve */
    POOL_COLUMN_VERSION_EVEN,
    POOL_COLUMN_DETAIL,
    POOL_COLUMN_SCORE,
    POOL_COLUMN_SCORED,
    POOL_COLUMN_POSITION,
    POOL_COLUMNS,
};

struct pool {
    struct pool_layout layout;
    uint32_t trunk; /* whose embeddings the functions below mean; 1 when opened */
    struct column column[POOL_COLUMNS];
};

/* Opens (or makes) the columns under `folder`, which exists. Errors as column_open(). */
int pool_open(const char *folder, const struct pool_layout *layout, enum pool_mode mode, struct pool *ret_pool);
void pool_close(struct pool *pool);

/* Which trunk's embeddings and versions are meant from now on; those of trunk N + 2 overwrite those of N. */
void pool_use_trunk(struct pool *pool, uint32_t trunk);

/* Makes room for `rows` galaxies in every column; no pointer into the pool survives. Errors as column_grow().
 */
int pool_grow(struct pool *pool, uint64_t rows);

/* Maps rows another process has added; no pointer into the pool survives. */
int pool_refresh(struct pool *pool);

/* Rows every column holds: at least as many as there are galaxies. */
uint64_t pool_rows(const struct pool *pool);

/* One row. Writable in the modes above; writing elsewhere, or a row that does not exist, is a bug. */
struct pool_identity *pool_identity(const struct pool *pool, uint64_t row);
struct pool_state *pool_state(const struct pool *pool, uint64_t row);
uint16_t *pool_tally(const struct pool *pool, uint64_t row);     /* [answers] votes */
uint8_t *pool_pixels(const struct pool *pool, uint64_t row);     /* [side][side][channels] */
uint16_t *pool_embedding(const struct pool *pool, uint64_t row); /* [embedding_inputs] half precision */
float *pool_detail(const struct pool *pool, uint64_t row);       /* one information row (model/information.h) */
struct pool_score *pool_score(const struct pool *pool, uint64_t row);
struct pool_scored *pool_scored(const struct pool *pool, uint64_t row);
struct pool_position *pool_position(const struct pool *pool, uint64_t row);

/*
 * Number of the trunk that made the embedding; 0 = none. Set (store-release) after the embedding itself, so
 * that a process that dies in between leaves a row to be done again and never half an embedding. For a
 * machine that loses power pool_flush_embeddings() must come between the two: it waits for the disk.
 * With the number go checksums of embedding and pixels as they are at that moment.
 */
const uint32_t *pool_embedding_version(const struct pool *pool, uint64_t row);
void pool_set_embedding_version(const struct pool *pool, uint64_t row, uint32_t version);

/* Whether the row still is what was stored with its version. Damage (a disk, a torn write) is found here, before the row is
 * used; what has no version is sound. Reads the embedding; the second one the pixels. */
bool pool_embedding_is_sound(const struct pool *pool, uint64_t row);
bool pool_pixels_are_sound(const struct pool *pool, uint64_t row);
int pool_flush_embeddings(const struct pool *pool, uint64_t first, uint64_t count);

/* Both trunks' embeddings of this row are to be made again. */
void pool_forget_embeddings(const struct pool *pool, uint64_t row);

/* The version, read so (load-acquire) that the other process's embedding is seen whole. */
uint32_t pool_finished_embedding(const struct pool *pool, uint64_t row);

/* Rows follow each other: base of a column is its row 0, and these are the steps. */
size_t pool_embedding_stride_bytes(const struct pool *pool);
size_t pool_tally_stride_bytes(const struct pool *pool);

/* The vote cursor and database the tallies were made at. */
void pool_set_tally_stamp(struct pool *pool, uint64_t horizon, uint64_t system_identifier);
void pool_tally_stamp(const struct pool *pool, uint64_t *horizon, uint64_t *system_identifier);

#endif
