/* See pool.h. */
#include "pool/pool.h"
#include "base/error.h"
#include "base/hash.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int worker_writes;
} columns[POOL_COLUMNS] = {
    [POOL_COLUMN_IDENTITY] = {"identity",       0},
    [POOL_COLUMN_STATE] = {"state",          0},
    [POOL_COLUMN_TALLY] = {"tally",          0},
    [POOL_COLUMN_PIXELS] = {"pixels",         1},
    [POOL_COLUMN_EMBEDDING] = {"embedding",      1},
    [POOL_COLUMN_VERSION] = {"version",        1},
    [POOL_COLUMN_EMBEDDING_EVEN] = {"embedding-even", 1},
    [POOL_COLUMN_VERSION_EVEN] = {"version-even",   1},
    [POOL_COLUMN_DETAIL] = {"detail",         1},
    [POOL_COLUMN_SCORE] = {"score",          1},
    [POOL_COLUMN_SCORED] = {"scored",         1},
    [POOL_COLUMN_POSITION] = {"position",       0},
};

/* A row of a version column; it never lies across two sectors. */
struct version {
    uint32_t trunk, embedding_check; /* set together */
    uint32_t pixels_check, unused;
};

static uint64_t row_bytes(enum pool_column column, const struct pool_layout *layout)
{
    uint64_t side = (uint64_t)layout->pixel_side;
    switch (column) {
    case POOL_COLUMN_IDENTITY:
        return sizeof(struct pool_identity);
    case POOL_COLUMN_STATE:
        return sizeof(struct pool_state);
    case POOL_COLUMN_TALLY:
        return (uint64_t)layout->answers * sizeof(uint16_t);
    case POOL_COLUMN_PIXELS:
        return side * side * (uint64_t)layout->pixel_channels;
    case POOL_COLUMN_EMBEDDING:
    case POOL_COLUMN_EMBEDDING_EVEN:
        return (uint64_t)layout->embedding_inputs * sizeof(uint16_t);
    case POOL_COLUMN_VERSION:
    case POOL_COLUMN_VERSION_EVEN:
        return sizeof(struct version);
    case POOL_COLUMN_DETAIL:
        return (uint64_t)(2 + layout->answers + 2 * layout->questions) * sizeof(float);
    case POOL_COLUMN_SCORED:
        return sizeof(struct pool_scored);
    case POOL_COLUMN_POSITION:
        return sizeof(struct pool_position);
    default:
        return sizeof(struct pool_score);
    }
}

static struct column_layout column_layout(enum pool_column column, const struct pool_layout *layout)
{
    struct column_layout result = {.row_bytes = row_bytes(column, layout)};
    static const struct {
        enum pool_column column;
        const char *name;
        size_t offset;
    } parameters[] = {
        {POOL_COLUMN_TALLY,          "answers",            offsetof(struct pool_layout, answers)           },
        {POOL_COLUMN_DETAIL,         "answers",            offsetof(struct pool_layout, answers)           },
        {POOL_COLUMN_DETAIL,         "questions",          offsetof(struct pool_layout, questions)         },
        {POOL_COLUMN_EMBEDDING,      "embedding inputs",   offsetof(struct pool_layout, embedding_inputs)  },
        {POOL_COLUMN_EMBEDDING,      "trunk weights",      offsetof(struct pool_layout, trunk_weights)     },
        {POOL_COLUMN_EMBEDDING,      "trunk side",         offsetof(struct pool_layout, trunk_side)        },
        {POOL_COLUMN_EMBEDDING,      "trunk views",        offsetof(struct pool_layout, trunk_views)       },
        {POOL_COLUMN_EMBEDDING,      "bfloat16",           offsetof(struct pool_layout, trunk_bf16)        },
        {POOL_COLUMN_EMBEDDING,      "augmentation",       offsetof(struct pool_layout, augmentation)      },
        {POOL_COLUMN_EMBEDDING,      "MC views",           offsetof(struct pool_layout, mc_views)          },
        {POOL_COLUMN_EMBEDDING,      "MC depth per mille", offsetof(struct pool_layout, mc_depth_per_mille)},
        {POOL_COLUMN_EMBEDDING_EVEN, "embedding inputs",   offsetof(struct pool_layout, embedding_inputs)  },
        {POOL_COLUMN_EMBEDDING_EVEN, "trunk weights",      offsetof(struct pool_layout, trunk_weights)     },
        {POOL_COLUMN_EMBEDDING_EVEN, "trunk side",         offsetof(struct pool_layout, trunk_side)        },
        {POOL_COLUMN_EMBEDDING_EVEN, "trunk views",        offsetof(struct pool_layout, trunk_views)       },
        {POOL_COLUMN_EMBEDDING_EVEN, "bfloat16",           offsetof(struct pool_layout, trunk_bf16)        },
        {POOL_COLUMN_EMBEDDING_EVEN, "augmentation",       offsetof(struct pool_layout, augmentation)      },
        {POOL_COLUMN_EMBEDDING_EVEN, "MC views",           offsetof(struct pool_layout, mc_views)          },
        {POOL_COLUMN_EMBEDDING_EVEN, "MC depth per mille", offsetof(struct pool_layout, mc_depth_per_mille)},
        {POOL_COLUMN_PIXELS,         "image side",         offsetof(struct pool_layout, pixel_side)        },
        {POOL_COLUMN_PIXELS,         "image channels",     offsetof(struct pool_layout, pixel_channels)    },
    };
    int count = 0;
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++)
        if (parameters[i].column == column) {
            snprintf(result.parameter_name[count], sizeof result.parameter_name[count], "%s", parameters[i].name);
            result.parameter[count++] = (uint64_t) * (const int *)((const char *)layout + parameters[i].offset);
        }
    snprintf(result.kind, sizeof result.kind, "%s", columns[column].name);
    snprintf(result.schema_hash, sizeof result.schema_hash, "%s", layout->schema_hash);
    return result;
}

static int check_layout(const struct pool_layout *layout)
{
    if (layout->answers < 1 || layout->questions < 1 || layout->embedding_inputs < 1 || layout->pixel_side < 1 ||
        (layout->pixel_channels != 1 && layout->pixel_channels != 3))
        return error_set(ERROR_INPUT,
                         "no pool can have %d answers, %d questions, %d embedding inputs and images of side %d with "
                         "%d channels",
                         layout->answers, layout->questions, layout->embedding_inputs, layout->pixel_side,
                         layout->pixel_channels);
    return 0;
}

int pool_open(const char *folder, const struct pool_layout *layout, enum pool_mode mode, struct pool *ret_pool)
{
    struct pool pool = {.layout = *layout, .trunk = 1};
    int result = check_layout(layout);
    if (result)
        return result;
    for (int i = 0; i < POOL_COLUMNS; i++) {
        char path[512];
        struct column_layout column = column_layout((enum pool_column)i, layout);
        enum column_access access = mode == POOL_READ_WRITE                           ? COLUMN_CREATE
                                    : mode == POOL_WORKER && columns[i].worker_writes ? COLUMN_WRITE
                                                                                      : COLUMN_READ;
        result = snprintf(path, sizeof path, "%s/%s.column", folder, columns[i].name) < (int)sizeof path
                     ? column_open(path, &column, access, &pool.column[i])
                     : error_set(ERROR_LIMIT, "the pool folder's path is too long: %.80s...", folder);
        if (result) {
            pool_close(&pool);
            return result;
        }
    }
    *ret_pool = pool;
    return 0;
}

void pool_use_trunk(struct pool *pool, uint32_t trunk)
{
    pool->trunk = trunk;
}

void pool_close(struct pool *pool)
{
    for (int i = 0; i < POOL_COLUMNS; i++)
        column_close(&pool->column[i]);
}

int pool_grow(struct pool *pool, uint64_t rows)
{
    int result = 0;
    for (int i = 0; i < POOL_COLUMNS && !result; i++)
        result = column_grow(&pool->column[i], rows);
    return result;
}

int pool_refresh(struct pool *pool)
{
    int result = 0;
    for (int i = 0; i < POOL_COLUMNS && !result; i++)
        result = column_refresh(&pool->column[i]);
    return result;
}

uint64_t pool_rows(const struct pool *pool)
{
    uint64_t rows = pool->column[0].rows;
    for (int i = 1; i < POOL_COLUMNS; i++)
        if (pool->column[i].rows < rows)
            rows = pool->column[i].rows;
    return rows;
}

struct pool_identity *pool_identity(const struct pool *pool, uint64_t row)
{
    return column_row(&pool->column[POOL_COLUMN_IDENTITY], row);
}

struct pool_state *pool_state(const struct pool *pool, uint64_t row)
{
    return column_row(&pool->column[POOL_COLUMN_STATE], row);
}

uint16_t *pool_tally(const struct pool *pool, uint64_t row)
{
    return column_row(&pool->column[POOL_COLUMN_TALLY], row);
}

uint8_t *pool_pixels(const struct pool *pool, uint64_t row)
{
    return column_row(&pool->column[POOL_COLUMN_PIXELS], row);
}

static enum pool_column embedding_column(const struct pool *pool)
{
    return pool->trunk % 2 ? POOL_COLUMN_EMBEDDING : POOL_COLUMN_EMBEDDING_EVEN;
}

uint16_t *pool_embedding(const struct pool *pool, uint64_t row)
{
    return column_row(&pool->column[embedding_column(pool)], row);
}

float *pool_detail(const struct pool *pool, uint64_t row)
{
    return column_row(&pool->column[POOL_COLUMN_DETAIL], row);
}

struct pool_score *pool_score(const struct pool *pool, uint64_t row)
{
    return column_row(&pool->column[POOL_COLUMN_SCORE], row);
}

struct pool_scored *pool_scored(const struct pool *pool, uint64_t row)
{
    return column_row(&pool->column[POOL_COLUMN_SCORED], row);
}

struct pool_position *pool_position(const struct pool *pool, uint64_t row)
{
    return column_row(&pool->column[POOL_COLUMN_POSITION], row);
}

static struct version *version_of(const struct pool *pool, uint64_t row)
{
    return column_row(&pool->column[pool->trunk % 2 ? POOL_COLUMN_VERSION : POOL_COLUMN_VERSION_EVEN], row);
}

const uint32_t *pool_embedding_version(const struct pool *pool, uint64_t row)
{
    return &version_of(pool, row)->trunk;
}

/* Of a row in its place: the same bytes elsewhere are damage too. */
static uint32_t check_of(const void *bytes, uint64_t length, uint64_t row, uint32_t version)
{
    uint64_t parts[] = {hash_64(bytes, length), row, version};
    return (uint32_t)hash_64(parts, sizeof parts);
}

static uint32_t embedding_check(const struct pool *pool, uint64_t row, uint32_t version)
{
    return check_of(pool_embedding(pool, row), pool_embedding_stride_bytes(pool), row, version);
}

static uint32_t pixels_check(const struct pool *pool, uint64_t row)
{
    return check_of(pool_pixels(pool, row), pool->column[POOL_COLUMN_PIXELS].layout.row_bytes, row, 0);
}

void pool_set_embedding_version(const struct pool *pool, uint64_t row, uint32_t version)
{
    struct version *place = version_of(pool, row), next = {.trunk = version};
    uint64_t both;
    if (version) {
        place->pixels_check = pixels_check(pool, row);
        next.embedding_check = embedding_check(pool, row, version);
    }
    memcpy(&both, &next, sizeof both);
    __atomic_store_n((uint64_t *)(void *)place, both, __ATOMIC_RELEASE);
}

bool pool_embedding_is_sound(const struct pool *pool, uint64_t row)
{
    const struct version *place = version_of(pool, row);
    return !place->trunk || place->embedding_check == embedding_check(pool, row, place->trunk);
}

bool pool_pixels_are_sound(const struct pool *pool, uint64_t row)
{
    const struct version *place = version_of(pool, row);
    return !place->trunk || place->pixels_check == pixels_check(pool, row);
}

void pool_forget_embeddings(const struct pool *pool, uint64_t row)
{
    memset(column_row(&pool->column[POOL_COLUMN_VERSION], row), 0, sizeof(struct version));
    memset(column_row(&pool->column[POOL_COLUMN_VERSION_EVEN], row), 0, sizeof(struct version));
}

uint32_t pool_finished_embedding(const struct pool *pool, uint64_t row)
{
    return __atomic_load_n(pool_embedding_version(pool, row), __ATOMIC_ACQUIRE);
}

int pool_flush_embeddings(const struct pool *pool, uint64_t first, uint64_t count)
{
    return column_flush(&pool->column[embedding_column(pool)], first, count);
}

size_t pool_embedding_stride_bytes(const struct pool *pool)
{
    return (size_t)pool->column[POOL_COLUMN_EMBEDDING].layout.row_bytes;
}

size_t pool_tally_stride_bytes(const struct pool *pool)
{
    return (size_t)pool->column[POOL_COLUMN_TALLY].layout.row_bytes;
}

void pool_set_tally_stamp(struct pool *pool, uint64_t horizon, uint64_t system_identifier)
{
    column_set_stamp(&pool->column[POOL_COLUMN_TALLY], horizon, system_identifier);
}

void pool_tally_stamp(const struct pool *pool, uint64_t *horizon, uint64_t *system_identifier)
{
    column_stamp(&pool->column[POOL_COLUMN_TALLY], horizon, system_identifier);
}
