/*
 * The hot loops once, included by head_kernels.c for each instruction set with
 *   VECTOR_BYTES   bytes of one register: 16, 32 or 64
 *   KERNEL(name)   the name with the set's suffix
 * No include guard on purpose.
 */
typedef float KERNEL(vector) __attribute__((vector_size(VECTOR_BYTES)));
typedef float KERNEL(loose) __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias)); /* anywhere in memory */
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

static void KERNEL(dot)(const float *a, size_t a_row, const float *b, size_t b_row, int depth, float *out,
                        size_t out_row)
{
    KERNEL(vector) sum[DOT_ROWS][DOT_ROWS][ACROSS] = {0};
    for (int k = 0; k < depth; k += DOT_LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < DOT_ROWS * DOT_ROWS * ACROSS; i++) {
            int r = i % DOT_ROWS, s = i / DOT_ROWS % DOT_ROWS, v = i / DOT_ROWS / DOT_ROWS;
            sum[r][s][v] += *(const KERNEL(loose) *)(a + (size_t)r * a_row + k + v * LANES) *
                            *(const KERNEL(loose) *)(b + (size_t)s * b_row + k + v * LANES);
        }
    }
    for (int r = 0; r < DOT_ROWS; r++)
        for (int s = 0; s < DOT_ROWS; s++) {
            float lane[DOT_LANES];
            memcpy(lane, sum[r][s], sizeof lane);
            for (int half = DOT_LANES / 2; half; half /= 2)
                for (int i = 0; i < half; i++)
                    lane[i] += lane[i + half];
            out[(size_t)r * out_row + (size_t)s] = lane[0];
        }
}

static void KERNEL(standardise)(const uint16_t *restrict embedding, const float *restrict shift,
                                const float *restrict scale, int inputs, float *restrict z)
{
    for (int i = 0; i < inputs; i++) {
        float value = half_to_float(embedding[i]);
        float nothing = value - value; /* infinity becomes NaN, which no sigmoid hides */
        z[i] = (value - shift[i]) * scale[i] + nothing;
    }
}

static void KERNEL(unit_length)(float *z, int inputs)
{
    head_unit_length(z, inputs);
}

static void KERNEL(dropout)(uint64_t key, const uint32_t counter[3], float rate, int inputs, float *restrict mask)
{
    float keep = 1.0f / (1.0f - rate);
    for (uint32_t first = 0; (int)first * 4 < inputs; first += 8) {
        struct philox drawn[8];
        for (uint32_t lane = 0; lane < 8; lane++)
            drawn[lane] = philox(key, first + lane, counter[0], counter[1], counter[2]);
        for (int lane = 0; lane < 8; lane++)
            for (int word = 0; word < 4; word++)
                mask[4 * ((int)first + lane) + word] = philox_uniform(drawn[lane].word[word]) < rate ? 0.0f : keep;
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
};
#undef LANES
#undef ACROSS
#undef ROWS
#undef WIDE
#undef VECTOR_BYTES
#undef KERNEL
#undef KERNEL_NAME
