/*
 * The hot loops once, included by head_kernels.c for each instruction set with
 *   VECTOR_BYTES         bytes of one register: 16, 32 or 64
 *   KERNEL(name)         the name with the set's suffix
 *   MULTIPLY_LOW(a, b)   products of the low halves of 64-bit lanes
 *   HALVES(memory)       (optional) a register of floats from as many halves
 * No include guard on purpose.
 */
typedef float KERNEL(vector) __attribute__((vector_size(VECTOR_BYTES)));
typedef float KERNEL(loose) __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias)); /* anywhere in memory */
typedef uint64_t KERNEL(wide) __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t KERNEL(words) __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t KERNEL(loose_words) __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
#if VECTOR_BYTES == 64
#define INTERLEAVE_LOW  0, 8, 1, 9, 2, 10, 3, 11
#define INTERLEAVE_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#elif VECTOR_BYTES == 32
#define INTERLEAVE_LOW  0, 4, 1, 5
#define INTERLEAVE_HIGH 2, 6, 3, 7
#else
#define INTERLEAVE_LOW  0, 2
#define INTERLEAVE_HIGH 1, 3
#endif
#define LANES  (VECTOR_BYTES / 4)
#define ACROSS (TILE_COLUMNS / LANES)

#define ROWS (LANES == 16 ? 8 : TILE_ROWS) /* of a tile at once: what fits into the registers */

/* As tile; `rows` is known when this is compiled. */
static inline __attribute__((always_inline)) void KERNEL(some_rows)(int rows, const float *a, size_t a_row,
                                                                    size_t a_depth, const float *b, size_t b_depth,
                                                                    int depth, float *out, size_t out_row)
{
    KERNEL(vector) sum[ROWS][ACROSS], right[ACROSS];
#pragma GCC unroll 16
    for (int i = 0; i < rows * ACROSS; i++)
        sum[i / ACROSS][i % ACROSS] =
            *(const KERNEL(loose) *)(out + (size_t)(i / ACROSS) * out_row + i % ACROSS * LANES);
    for (int k = 0; k < depth; k++) {
#pragma GCC unroll 16
        for (int v = 0; v < ACROSS; v++)
            right[v] = *(const KERNEL(loose) *)(b + (size_t)k * b_depth + v * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows * ACROSS; i++)
            sum[i / ACROSS][i % ACROSS] += a[(size_t)(i / ACROSS) * a_row + (size_t)k * a_depth] * right[i % ACROSS];
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows * ACROSS; i++)
        *(KERNEL(loose) *)(out + (size_t)(i / ACROSS) * out_row + i % ACROSS * LANES) = sum[i / ACROSS][i % ACROSS];
}

static void KERNEL(tile)(size_t rows, const float *a, size_t a_row, size_t a_depth, const float *b, size_t b_depth,
                         int depth, float *out, size_t out_row)
{
    size_t r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        KERNEL(some_rows)(ROWS, a + r * a_row, a_row, a_depth, b, b_depth, depth, out + r * out_row, out_row);
    for (; r < rows; r += TILE_ROWS)
        KERNEL(some_rows)(TILE_ROWS, a + r * a_row, a_row, a_depth, b, b_depth, depth, out + r * out_row, out_row);
}

#define WIDE (LANES == 16 ? 4 : 2) /* registers of rows: what fits beside GROUP_ANSWERS answers */

static void KERNEL(passes)(const struct mask_run *run, int runs, const int *input, const float *weight, const float *z,
                           float *const *out)
{
    for (int first = 0; first < SCORE_ROWS; first += WIDE * LANES)
        for (int i = 0, k = 0; i < runs; i++) {
            KERNEL(vector) sum[GROUP_ANSWERS][WIDE] = {0}, right[WIDE];
            for (; k < run[i].end; k++) {
#pragma GCC unroll 16
                for (int v = 0; v < WIDE; v++)
                    right[v] = *(const KERNEL(loose) *)(z + (size_t)input[k] * SCORE_ROWS + first + v * LANES);
#pragma GCC unroll 16
                for (int j = 0; j < GROUP_ANSWERS * WIDE; j++)
                    sum[j / WIDE][j % WIDE] += weight[k * GROUP_ANSWERS + j / WIDE] * right[j % WIDE];
            }
            for (uint32_t kept = run[i].kept; kept; kept &= kept - 1) {
                float *to = out[__builtin_ctz(kept)] + first;
#pragma GCC unroll 16
                for (int j = 0; j < GROUP_ANSWERS * WIDE; j++)
                    *(KERNEL(loose) *)(to + j / WIDE * SCORE_ROWS + j % WIDE * LANES) += sum[j / WIDE][j % WIDE];
            }
        }
}

#define DOTS (LANES == 16 ? 4 : 2) /* rows of each side at once: what fits into the registers */

static void KERNEL(dot)(const float *a, size_t a_row, const float *b, size_t b_row, int depth, float *out,
                        size_t out_row)
{
    for (size_t block = 0; block < DOT_ROWS * DOT_ROWS / DOTS / DOTS; block++) {
        size_t row = block / (DOT_ROWS / DOTS) * DOTS, column = block % (DOT_ROWS / DOTS) * DOTS;
        const float *left = a + row * a_row, *right = b + column * b_row;
        KERNEL(vector) sum[DOTS][DOTS][ACROSS] = {0};
        for (int k = 0; k < depth; k += DOT_LANES) {
#pragma GCC unroll 16
            for (int i = 0; i < DOTS * DOTS * ACROSS; i++) {
                int r = i % DOTS, s = i / DOTS % DOTS, v = i / DOTS / DOTS;
                sum[r][s][v] += *(const KERNEL(loose) *)(left + (size_t)r * a_row + k + v * LANES) *
                                *(const KERNEL(loose) *)(right + (size_t)s * b_row + k + v * LANES);
            }
        }
        for (size_t r = 0; r < DOTS; r++)
            for (size_t s = 0; s < DOTS; s++) {
                float lane[DOT_LANES];
                memcpy(lane, sum[r][s], sizeof lane);
                for (int half = DOT_LANES / 2; half; half /= 2)
                    for (int i = 0; i < half; i++)
                        lane[i] += lane[i + half];
                out[(row + r) * out_row + column + s] = lane[0];
            }
    }
}

static void KERNEL(standardise)(const uint16_t *restrict embedding, const float *restrict shift,
                                const float *restrict scale, int inputs, float *restrict z)
{
    int i = 0;
#ifdef HALVES
    for (; i + LANES <= inputs; i += LANES) {
        KERNEL(vector) value = HALVES(embedding + i), nothing = value - value;
        *(KERNEL(loose) *)(z + i) =
            (value - *(const KERNEL(loose) *)(shift + i)) * *(const KERNEL(loose) *)(scale + i) + nothing;
    }
#endif
    for (; i < inputs; i++) {
        float value = half_to_float(embedding[i]);
        float nothing = value - value; /* infinity becomes NaN, which no sigmoid hides */
        z[i] = (value - shift[i]) * scale[i] + nothing;
    }
}

static void KERNEL(unit_length)(float *z, int inputs)
{
    head_unit_length(z, inputs);
}

/* philox() of as many counters as there are 64-bit lanes, c0 = first, first + 1 ...; words in the low halves. */
static inline __attribute__((always_inline)) void KERNEL(philox)(uint64_t key, uint32_t first,
                                                                 const uint32_t counter[3], KERNEL(wide) word[4])
{
    KERNEL(wide) c0, zero = {0}, m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
    KERNEL(wide) c1 = zero + counter[0], c2 = zero + counter[1], c3 = zero + counter[2];
    for (uint32_t lane = 0; lane < LANES / 2; lane++)
        c0[lane] = first + lane;
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        KERNEL(wide) p0 = MULTIPLY_LOW(m0, c0), p1 = MULTIPLY_LOW(m1, c2);
        c0 = p1 >> 32 ^ c1 ^ (zero + k0);
        c2 = p0 >> 32 ^ c3 ^ (zero + k1);
        c1 = p1; /* what is in the upper halves is never looked at */
        c3 = p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    word[0] = c0;
    word[1] = c1;
    word[2] = c2;
    word[3] = c3;
}

static void KERNEL(dropout)(uint64_t key, const uint32_t counter[3], float rate, int inputs, float *restrict mask)
{
    float keep = 1.0f / (1.0f - rate);
    uint32_t keep_bits;
    memcpy(&keep_bits, &keep, 4);
    /* philox_uniform(word) < rate: its 24 bits lie below this. */
    KERNEL(words) none = {0}, limit = none + ((uint32_t)ceilf(rate * 0x1p24f) << 8);
    for (int i = 0; i < inputs; i += 2 * LANES) { /* four words a counter, LANES / 2 counters */
        KERNEL(wide) word[4];
        KERNEL(philox)(key, (uint32_t)i / 4, counter, word);
        KERNEL(wide) even = (word[0] & 0xffffffffu) | word[1] << 32, odd = (word[2] & 0xffffffffu) | word[3] << 32;
        KERNEL(words) low = (KERNEL(words))__builtin_shufflevector(even, odd, INTERLEAVE_LOW);
        KERNEL(words) high = (KERNEL(words))__builtin_shufflevector(even, odd, INTERLEAVE_HIGH);
        *(KERNEL(loose_words) *)(mask + i) = ~(KERNEL(words))(low < limit) & keep_bits;
        *(KERNEL(loose_words) *)(mask + i + LANES) = ~(KERNEL(words))(high < limit) & keep_bits;
    }
}

static void KERNEL(multiply)(float *restrict z, const float *restrict mask, int inputs)
{
    for (int i = 0; i < inputs; i++)
        z[i] *= mask[i];
}

static void KERNEL(concentrations)(float *x, size_t count, float factor)
{
    for (size_t i = 0; i < count; i++)
        x[i] = head_alpha(x[i]) * factor;
}

static void KERNEL(adam)(const struct adam_step *step, float *restrict weight, float *restrict gradient,
                         float *restrict moment1, float *restrict moment2, size_t count)
{
    float rate = step->learning_rate * step->correction1, shrink = 1.0f - step->learning_rate * step->decay;
    float correction2 = step->correction2;
    for (size_t i = 0; i < count; i++) {
        float g = gradient[i];
        moment1[i] = 0.9f * moment1[i] + 0.1f * g;
        moment2[i] = 0.999f * moment2[i] + 0.001f * (g * g);
        weight[i] = weight[i] * shrink - rate * moment1[i] / (sqrtf(moment2[i]) * correction2 + 1e-8f);
        gradient[i] = 0;
    }
}

static struct information KERNEL(question)(enum information_kind kind, const float *alpha, int answers, int passes,
                                           int stride, int votes)
{
    return information_question(kind, alpha, answers, passes, stride, votes);
}

static void KERNEL(fractions)(const float *alpha, int answers, int passes, int stride, float *fraction)
{
    information_fractions(alpha, answers, passes, stride, fraction);
}

static const struct head_kernels KERNEL(kernels) = {
    .name = KERNEL_NAME,
    .tile = KERNEL(tile),
    .passes = KERNEL(passes),
    .dot = KERNEL(dot),
    .standardise = KERNEL(standardise),
    .unit_length = KERNEL(unit_length),
    .dropout = KERNEL(dropout),
    .multiply = KERNEL(multiply),
    .concentrations = KERNEL(concentrations),
    .adam = KERNEL(adam),
    .question = KERNEL(question),
    .fractions = KERNEL(fractions),
};
#undef LANES
#undef INTERLEAVE_LOW
#undef INTERLEAVE_HIGH
#undef ACROSS
#undef ROWS
#undef WIDE
#undef DOTS
#undef MULTIPLY_LOW
#undef HALVES
#undef VECTOR_BYTES
#undef KERNEL
#undef KERNEL_NAME
