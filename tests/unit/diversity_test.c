/*
 * Batches that are not redundant: sketches against distances of whole embeddings, clusters and duplicates against brute force,
 * the draw and its probabilities against a plain rule tried with every Gumbel, and estimates by simulation.
 */
#include "acquisition/clusters.h"
#include "acquisition/draw.h"
#include "base/half.h"
#include "base/philox.h"
#include "tests/support/test_seed.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define INPUTS 320
#define ROWS   300

static unsigned seed, drawn_seed;

/* Uniform in (0, 1), a function of three numbers. */
static double uniform(uint32_t a, uint32_t b, uint32_t c)
{
    return ((double)philox(seed, a, b, c, 0).word[0] + 0.5) * 0x1p-32;
}

static double normal(uint32_t a, uint32_t b, uint32_t c)
{
    return sqrt(-2 * log(uniform(a, b, c))) * cos(6.283185307179586 * uniform(a, b, c + 1000));
}

/* --- sketches ----------------------------------------------------------------------------------------------------- */

static uint16_t embedding[ROWS * INPUTS];
static float sketches[ROWS][SKETCH_LENGTH];

/* Six kinds of galaxies; inputs of very different sizes, input 5 constant. */
static void make_embeddings(void)
{
    for (uint32_t row = 0; row < ROWS; row++)
        for (uint32_t i = 0; i < INPUTS; i++) {
            double value = 3 * normal(row % 6, i, 1) + normal(row, i, 2);
            embedding[row * INPUTS + i] = half_from_float(i == 5 ? 7 : (float)(value * (i % 2 ? 0.01 : 3) + 1));
        }
}

static void make_sketches(void)
{
    uint64_t rows[ROWS];
    struct sketch *sketch;
    const struct sketch_rows from = {embedding, INPUTS * 2, 1, INPUTS};
    for (uint64_t row = 0; row < ROWS; row++)
        rows[row] = row;
    assert_int_equal(sketch_new(&from, rows, ROWS, 5, &sketch), 0);
    for (uint64_t row = 0; row < ROWS; row++)
        assert_int_equal(sketch_galaxy(sketch, row, sketches[row]), 1);
    sketch_free(sketch);
}

/* Ratios of distances: mean 1, deviation about 9 % (header), by plain arithmetic on standardised embeddings. */
static void sketches_keep_distances(void **state)
{
    (void)state;
    static double z[ROWS][INPUTS];
    make_embeddings();
    make_sketches();
    for (int i = 0; i < INPUTS; i++) {
        double mean = 0, square = 0;
        for (int row = 0; row < ROWS; row++)
            mean += (double)half_to_float(embedding[row * INPUTS + i]) / ROWS;
        for (int row = 0; row < ROWS; row++)
            square += pow((double)half_to_float(embedding[row * INPUTS + i]) - mean, 2) / ROWS;
        for (int row = 0; row < ROWS && i != 5; row++)
            z[row][i] = ((double)half_to_float(embedding[row * INPUTS + i]) - mean) / sqrt(square);
    }
    double sum = 0, squares = 0, count = 0;
    for (int a = 0; a < ROWS; a++)
        for (int b = 0; b < a; b++) {
            double distance2 = 0;
            for (int i = 0; i < INPUTS; i++)
                distance2 += pow(z[a][i] - z[b][i], 2);
            double ratio = sqrt((double)sketch_distance2(sketches[a], sketches[b]) / distance2);
            sum += ratio;
            squares += ratio * ratio;
            count++;
        }
    double mean = sum / count, deviation = sqrt(squares / count - mean * mean);
    print_message("sketch: ratio of distances %.3f +- %.3f\n", mean, deviation);
    assert_true(fabs(mean - 1) < 0.08 && deviation < 0.14 && deviation > 0.01);
}

static void embeddings_that_are_not_finite_have_no_sketch(void **state)
{
    (void)state;
    uint64_t rows[ROWS];
    float out[SKETCH_LENGTH], before[SKETCH_LENGTH];
    struct sketch *sketch;
    const struct sketch_rows from = {embedding, INPUTS * 2, 1, INPUTS};
    make_embeddings();
    make_sketches();
    memcpy(before, sketches[9], sizeof before);
    for (uint64_t row = 0; row < ROWS; row++)
        rows[row] = row;
    uint16_t kept = embedding[3 * INPUTS + 17];
    embedding[3 * INPUTS + 17] = 0x7e00; /* NaN */
    assert_int_equal(sketch_new(&from, rows, ROWS, 5, &sketch), 0);
    assert_int_equal(sketch_galaxy(sketch, 3, out), 0);
    for (int i = 0; i < SKETCH_LENGTH; i++)
        assert_true(out[i] == 0);
    assert_int_equal(sketch_galaxy(sketch, 9, out), 1);
    for (int i = 0; i < SKETCH_LENGTH; i++) /* the others hardly notice */
        assert_true(fabsf(out[i] - before[i]) < 0.5f);
    sketch_free(sketch);
    embedding[3 * INPUTS + 17] = kept;
    const struct sketch_rows senseless = {embedding, INPUTS * 2, 0, INPUTS};
    assert_true(sketch_new(&senseless, rows, ROWS, 5, &sketch) < 0);
}

static void views_are_averaged(void **state)
{
    (void)state;
    static uint16_t twice[ROWS * INPUTS * 2];
    uint64_t rows[ROWS];
    float out[SKETCH_LENGTH];
    make_embeddings();
    make_sketches();
    for (uint64_t row = 0; row < ROWS; row++) {
        rows[row] = row;
        for (int i = 0; i < INPUTS; i++) { /* v + d and v - d, d a power of two times v's own: exact halves mostly */
            twice[(row * 2) * INPUTS + (size_t)i] = embedding[row * INPUTS + (size_t)i];
            twice[(row * 2 + 1) * INPUTS + (size_t)i] = embedding[row * INPUTS + (size_t)i];
        }
    }
    struct sketch *sketch;
    const struct sketch_rows from = {twice, INPUTS * 4, 2, INPUTS};
    assert_int_equal(sketch_new(&from, rows, ROWS, 5, &sketch), 0);
    assert_int_equal(sketch_galaxy(sketch, 11, out), 1);
    assert_memory_equal(out, sketches[11], sizeof out);
    for (int i = 0; i < INPUTS; i++) /* one view moved: the mean moves half as far */
        twice[23 * INPUTS + i] = half_from_float(half_to_float(twice[22 * INPUTS + i]) + (i % 2 ? 0.02f : 4));
    float moved[SKETCH_LENGTH], whole[SKETCH_LENGTH];
    sketch_galaxy(sketch, 11, moved);
    memcpy(twice + 22 * INPUTS, twice + 23 * INPUTS, INPUTS * sizeof *twice);
    sketch_galaxy(sketch, 11, whole);
    double half = sqrt((double)sketch_distance2(moved, out)), full = sqrt((double)sketch_distance2(whole, out));
    assert_true(fabs(half / full - 0.5) < 0.01);
    sketch_free(sketch);
}

/* --- clusters ----------------------------------------------------------------------------------------------------- */

static void clusters_find_the_kinds(void **state)
{
    (void)state;
    enum { WANTED = 14 };
    struct clusters clusters;
    uint32_t order[ROWS];
    int kind_of[WANTED], seen[WANTED] = {0}, place_before = 0;
    float last[WANTED] = {0};
    make_embeddings();
    make_sketches();
    assert_int_equal(clusters_new(sketches[0], ROWS, &(struct clusters_request){WANTED, 0, 3}, &clusters), 0);
    assert_int_equal(clusters.count, WANTED);
    for (int c = 0; c < WANTED; c++)
        kind_of[c] = -1;
    for (int row = 0; row < ROWS; row++) {
        float distance, least = INFINITY;
        int best = -1, own = clusters_place(&clusters, sketches[row], &distance);
        for (int c = 0; c < WANTED; c++) { /* brute force */
            float other = sqrtf(sketch_distance2(sketches[row], clusters.centre + c * SKETCH_LENGTH));
            best = other < least ? c : best;
            least = other < least ? other : least;
        }
        assert_int_equal(own, best);
        assert_true(fabsf(distance * clusters.scale - least) < 1e-4f);
        kind_of[own] = kind_of[own] < 0 ? row % 6 : kind_of[own];
        assert_int_equal(row % 6, kind_of[own]); /* no cluster mixes kinds */
    }
    assert_int_equal(clusters_typical(&clusters, sketches[0], ROWS, order), 0);
    for (int n = 0; n < ROWS; n++) { /* in rounds over the clusters, in each of them ever farther from its centre */
        float distance;
        int own = clusters_place(&clusters, sketches[order[n]], &distance);
        assert_true(seen[own] >= place_before && distance >= last[own]);
        place_before = seen[own]++;
        last[own] = distance;
    }
    clusters_free(&clusters);
    assert_int_equal(clusters_new(sketches[0], 0, &(struct clusters_request){6, 4, 3}, &clusters),
                     0); /* nobody there */
    assert_int_equal(clusters.count, 0);
    clusters_free(&clusters);
    memcpy(sketches[1], sketches[0], sizeof sketches[0]);
    assert_int_equal(clusters_new(sketches[0], 2, &(struct clusters_request){6, 4, 3}, &clusters),
                     0); /* two of the same */
    assert_int_equal(clusters.count, 1);
    clusters_free(&clusters);
}

/* Nearly nothing of the sample, and far from it: a centre of its own to k-means++, but no kind that it could be near to. */
static void what_is_like_nothing_else_is_no_kind(void **state)
{
    (void)state;
    struct clusters every, kinds;
    float distance;
    make_embeddings();
    make_sketches();
    for (int row = 7; row < 10; row++) /* three strange ones, side by side */
        for (int i = 0; i < SKETCH_LENGTH; i++)
            sketches[row][i] = 300 + 0.01f * (float)row;
    assert_int_equal(clusters_new(sketches[0], ROWS, &(struct clusters_request){14, 0, 3}, &every), 0);
    assert_int_equal(clusters_new(sketches[0], ROWS, &(struct clusters_request){14, 4, 3}, &kinds), 0);
    clusters_place(&every, sketches[8], &distance);
    assert_true(distance < 0.1f);
    clusters_place(&kinds, sketches[8], &distance);
    assert_true(distance > 20);
    assert_true(kinds.count >= 6 && kinds.count < every.count);
    for (int row = 10; row < ROWS; row++) { /* all others are near theirs */
        clusters_place(&kinds, sketches[row], &distance);
        assert_true(distance < 3);
    }
    clusters_free(&every);
    clusters_free(&kinds);
}

/* --- duplicates --------------------------------------------------------------------------------------------------- */

#define SKY 500

static uint8_t near_sketch[SKY][SKY], found[SKY][SKY];

static void note(void *context, uint32_t a, uint32_t b)
{
    (void)context;
    assert_true(a < b && b < SKY);
    found[a][b]++;
}

/* The angle between two places by the haversine formula, in arcsec. */
static double separation(const double a[2], const double b[2])
{
    double to = M_PI / 180, half_dec = (a[1] - b[1]) * to / 2, half_ra = (a[0] - b[0]) * to / 2;
    double h = pow(sin(half_dec), 2) + cos(a[1] * to) * cos(b[1] * to) * pow(sin(half_ra), 2);
    return 2 * asin(sqrt(h)) / to * 3600;
}

static void duplicates_by_brute_force(void **state)
{
    (void)state;
    static struct place places[SKY];
    static float points[SKY][SKETCH_LENGTH];
    static double sky[SKY][2];
    int pairs = 0, expected = 0;
    memset(found, 0, sizeof found);
    memset(places, 0, sizeof places);
    for (uint32_t n = 0; n < SKY; n++) { /* a dense field around 0h near the pole, and some anywhere */
        sky[n][0] = n % 5 ? fmod(360 + (uniform(n, 1, 7) - 0.5) * 0.2, 360) : 360 * uniform(n, 1, 7);
        sky[n][1] = n % 5 ? 80 + uniform(n, 2, 7) * 0.05 : 180 * uniform(n, 2, 7) - 90;
        if (n % 11)
            place_on_sky(sky[n][0], sky[n][1], places[n].position);
        for (uint32_t i = 0; i < SKETCH_LENGTH; i++)
            points[n][i] = n % 7 == 3 ? points[n - 1][i] + 0.03f * (float)normal(n, i, 9) : (float)normal(n, i, 9);
        places[n].sketch = n % 13 ? points[n] : NULL;
    }
    const struct duplicate_rule rule = {.radius_arcsec = 8, .distance = 0.25};
    assert_int_equal(duplicates_find(places, SKY, SKY, &rule, note, NULL), 0);
    for (int a = 0; a < SKY; a++)
        for (int b = a + 1; b < SKY; b++) {
            double apart = separation(sky[a], sky[b]), distance2 = 0;
            for (int i = 0; i < SKETCH_LENGTH; i++)
                distance2 += pow((double)points[a][i] - (double)points[b][i], 2);
            int sky_near = a % 11 && b % 11 && apart < 8;
            int alike = a % 13 && b % 13 && sqrt(distance2) < 0.25;
            int certain = fabs(apart - 8) > 0.05 && fabs(sqrt(distance2) - 0.25) > 1e-4; /* single precision */
            if (certain)
                assert_int_equal(found[a][b], sky_near + alike);
            pairs += found[a][b];
            expected += sky_near + alike;
        }
    print_message("duplicates: %d pairs, %d by brute force\n", pairs, expected);
    assert_true(expected > 60 && abs(pairs - expected) <= 3);
    float nowhere[3];
    place_on_sky(NAN, 3, nowhere);
    assert_true(nowhere[0] == 0 && nowhere[1] == 0 && nowhere[2] == 0);
    static uint8_t all[SKY][SKY];
    memcpy(all, found, sizeof all);
    memset(found, 0, sizeof found);
    assert_int_equal(duplicates_find(places, SKY, 100, &rule, note, NULL), 0); /* only those of the first hundred */
    for (int a = 0; a < SKY; a++)
        for (int b = 0; b < SKY; b++)
            assert_int_equal(found[a][b], a < 100 ? all[a][b] : 0);
    const struct duplicate_rule off = {0, 0};
    memset(found, 0, sizeof found);
    assert_int_equal(duplicates_find(places, SKY, SKY, &off, note, NULL), 0);
    for (int a = 0; a < SKY; a++)
        for (int b = 0; b < SKY; b++)
            assert_int_equal(found[a][b], 0);
}

/* --- the draw ----------------------------------------------------------------------------------------------------- */

#define DRAWN 60

static struct candidate candidates[DRAWN];
static float points[DRAWN][SKETCH_LENGTH];

static double gumbel_of(uint32_t a, uint32_t b)
{
    return -log(-log(uniform(a, b, 77)));
}

/* Candidates of three crowded clusters, many with near-duplicates in chains, better scores unlike the scan's. */
static void make_candidates(uint32_t trial)
{
    for (uint32_t n = 0; n < DRAWN; n++) {
        for (uint32_t i = 0; i < SKETCH_LENGTH; i++)
            points[n][i] = n % 3 ? points[n - 1][i] + 0.06f * (float)normal(n, i, trial) : (float)normal(n, i, trial);
        candidates[n] =
            (struct candidate){.key = n + 1,
                               .stream = STREAM_ACTIVE,
                               .score = score_round((float)(0.1 + uniform(n, trial, 51))),
                               .scanned = score_round((float)(0.1 + uniform(n, trial, 52))),
                               .place = {.sketch = points[n]},
                               .cluster = uniform(n, trial, 53) < 0.2 ? 0 : 1 + (int)(3 * uniform(n, trial, 54)),
                               .gumbel = gumbel_of(n, trial)};
    }
    for (int a = 0; a < DRAWN; a++)
        for (int b = 0; b < DRAWN; b++)
            near_sketch[a][b] = a != b && sqrt((double)sketch_distance2(points[a], points[b])) < 0.6;
}

static double value_of(const struct draw_rule *rule, int n, double gumbel)
{
    return log((double)candidates[n].score) + gumbel / rule->power;
}

/* The rules of draw.h, word by word. */
static int is_taken(const struct draw_rule *rule, int room, int at, double gumbel)
{
    double v[DRAWN];
    int on[DRAWN], above = 0;
    for (int n = 0; n < DRAWN; n++)
        v[n] = value_of(rule, n, n == at ? gumbel : candidates[n].gumbel);
    for (int n = 0; n < DRAWN; n++) {
        int in_cluster = 0;
        on[n] = 1;
        for (int k = 0; k < DRAWN; k++) {
            on[n] &= !(near_sketch[n][k] && v[k] > v[n]);
            in_cluster += candidates[n].cluster && candidates[k].cluster == candidates[n].cluster && v[k] > v[n];
        }
        on[n] &= in_cluster < (candidates[n].cluster == 1 ? room - 1 : room); /* one of cluster 1 is on offer */
    }
    for (int n = 0; n < DRAWN; n++)
        above += on[n] && v[n] > v[at];
    return on[at] && above < (int)rule->places &&
           log((double)candidates[at].scanned) + gumbel / rule->power > rule->left_out;
}

/* P(taken | the others), by finding the Gumbel at which a candidate gets in. */
static double probability_of(const struct draw_rule *rule, int room, int at)
{
    double low = -60, high = 60;
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (is_taken(rule, room, at, middle))
            high = middle;
        else
            low = middle;
    }
    return -expm1(-exp(-high));
}

static void probabilities_by_trying_every_gumbel(void **state)
{
    (void)state;
    const struct candidate on_offer = {.key = 99, .stream = STREAM_ACTIVE, .kept = 1, .cluster = 1};
    int checked = 0, crowded = 0, alike = 0;
    for (uint32_t trial = 0; trial < 60; trial++) {
        size_t taken[DRAWN];
        struct draw_rule rule = {.power = trial % 3 ? 1 : 4,
                                 .places = 3 + trial % 20,
                                 .cap = 3 + (int)(trial % 4),
                                 .kept = &on_offer,
                                 .kept_count = 1,
                                 .duplicates = {.distance = 0.6},
                                 .left_out = trial % 2 ? -0.5 : -INFINITY};
        make_candidates(trial);
        for (int n = 0; n < DRAWN; n++) /* all of a shortlist are above what is left out */
            if (log((double)candidates[n].scanned) + candidates[n].gumbel / rule.power <= rule.left_out)
                candidates[n].scanned =
                    score_round((float)exp(rule.left_out - candidates[n].gumbel / rule.power + 0.1));
        long count = draw_candidates(&rule, candidates, DRAWN, taken);
        int expected = 0;
        for (int n = 0; n < DRAWN; n++) {
            int in = is_taken(&rule, rule.cap, n, candidates[n].gumbel);
            expected += in;
            assert_int_equal(candidates[n].outcome == OUTCOME_TAKEN, in);
            crowded += candidates[n].outcome == OUTCOME_CLUSTER;
            alike += candidates[n].outcome == OUTCOME_DUPLICATE;
            if (candidates[n].outcome == OUTCOME_DUPLICATE)
                assert_true(near_sketch[n][candidates[n].like - 1]);
            if (!in)
                continue;
            double probability = probability_of(&rule, rule.cap, n);
            if (fabs(candidates[n].probability - probability) > 1e-9)
                fail_msg("trial %u, candidate %d: %.12g is not %.12g", trial, n, candidates[n].probability,
                         probability);
            checked++;
        }
        assert_int_equal(count, expected);
        for (long i = 0; i < count; i++) {
            assert_int_equal(candidates[taken[i]].outcome, OUTCOME_TAKEN);
            if (i)
                assert_true(value_of(&rule, (int)taken[i - 1], candidates[taken[i - 1]].gumbel) >
                            value_of(&rule, (int)taken[i], candidates[taken[i]].gumbel));
        }
    }
    print_message("draw: %d picks checked, %d out for their cluster, %d as near-duplicates\n", checked, crowded, alike);
    assert_true(checked > 300 && crowded > 100 && alike > 100);
}

/* --- the whole choice --------------------------------------------------------------------------------------------- */

#define POOL 240

static struct place pool_place[POOL];
static float pool_point[POOL][SKETCH_LENGTH], scan_score[POOL], better_score[POOL];
static uint8_t alike[POOL][POOL];

static int cluster_of(int galaxy)
{
    return 1 + (galaxy % 10 < 6 ? 0 : galaxy % 10 - 5); /* cluster 1 has six tenths of the pool */
}

static void make_pool(void)
{
    for (uint32_t n = 0; n < POOL; n++) {
        for (uint32_t i = 0; i < SKETCH_LENGTH; i++)
            pool_point[n][i] =
                n % 6 == 1 ? pool_point[n - 1][i] + 0.01f * (float)normal(n, i, 301) : (float)normal(n, i, 301);
        pool_place[n].sketch = pool_point[n];
        better_score[n] = score_round((float)(0.05 + uniform(n, 1, 302)));
        scan_score[n] = score_round(better_score[n] * (float)(0.6 + 0.4 * uniform(n, 2, 303)));
    }
    for (int a = 0; a < POOL; a++)
        for (int b = 0; b < POOL; b++)
            alike[a][b] = a != b && sqrt((double)sketch_distance2(pool_point[a], pool_point[b])) < 0.5;
}

static struct select_request diverse_request(uint64_t cycle)
{
    return (struct select_request){.seed = seed,
                                   .cycle = cycle,
                                   .queue_size = 42,
                                   .random_share = 0.25f,
                                   .power = 2,
                                   .kept_active = 2,
                                   .shortlist = 3,
                                   .duplicates = {.distance = 0.5},
                                   .cluster_share = 0.3,
                                   .held = 3};
}

/* Galaxies 0 and 7 are on offer; 20 and 21 look like artefacts; 30 is far from all others. Offered in the given order. */
static size_t choose(const struct select_request *request, const int *order, struct selected *selected,
                     struct candidate *ret_candidates, size_t *ret_count)
{
    struct selector *selector;
    struct candidate *list;
    size_t chosen;
    assert_int_equal(selector_new(request, &selector), 0);
    for (int i = 0; i < POOL; i++) {
        int n = order[i];
        if (n == 0 || n == 7)
            selector_keep(selector, (uint64_t)n + 1, STREAM_ACTIVE, scan_score[n]);
        else if (n == 20 || n == 21)
            selector_hold(selector, (uint64_t)n + 1, 5, scan_score[n]);
        else
            selector_offer(selector, (uint64_t)n + 1, SPLIT_TRAIN, 0, scan_score[n]);
    }
    assert_int_equal(selector_candidates(selector, &list, ret_count), 0);
    for (size_t i = 0; i < *ret_count; i++) {
        int n = (int)list[i].key - 1;
        list[i].place = pool_place[n];
        list[i].cluster = cluster_of(n);
        if (list[i].stream == STREAM_ACTIVE)
            list[i].score = better_score[n];
        if (n == 30 && list[i].stream == STREAM_ACTIVE)
            list[i].held = 6;
    }
    assert_int_equal(selector_finish(selector, selected, &chosen), 0);
    assert_true(*ret_count <= POOL);
    memcpy(ret_candidates, list, *ret_count * sizeof *list);
    selector_free(selector);
    return chosen;
}

static void shuffle(int *order, uint32_t number)
{
    for (int i = 0; i < POOL; i++)
        order[i] = i;
    for (int i = POOL - 1; i > 0; i--) {
        int other = (int)(uniform((uint32_t)i, number, 400) * (i + 1)), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

/* No two alike, no cluster above its share, nothing held back; in any order of the pool the same. */
static void batches_keep_their_rules_in_any_order(void **state)
{
    (void)state;
    static struct candidate list[POOL], again[POOL];
    struct selected selected[42], other[42];
    int order[POOL], out_alike = 0, out_cluster = 0;
    make_pool();
    for (uint64_t cycle = 0; cycle < 40; cycle++) {
        struct select_request request = diverse_request(cycle);
        size_t count, other_count;
        request.power = cycle % 2 ? 2 : 0;
        shuffle(order, 1);
        size_t chosen = choose(&request, order, selected, list, &count);
        int in_cluster[8] = {0}, active = 0, held = 0;
        in_cluster[cluster_of(0)]++;
        in_cluster[cluster_of(7)]++;
        for (size_t i = 0; i < chosen; i++) {
            int n = (int)selected[i].key - 1;
            assert_true(n != 20 && n != 21 && !alike[n][0] && !alike[n][7]);
            for (size_t k = 0; k < i; k++)
                assert_true(!alike[n][selected[k].key - 1] && selected[k].key != selected[i].key);
            if (selected[i].stream != STREAM_ACTIVE)
                continue;
            active++;
            assert_true(n != 30 && selected[i].score == better_score[n]);
            in_cluster[cluster_of(n)]++;
        }
        for (int c = 1; c < 8; c++) /* 0.3 of the 30 new and 2 kept places, rounded up */
            assert_true(in_cluster[c] <= 10);
        assert_int_equal(active, 30);
        for (size_t i = 0; i < count; i++) {
            held += list[i].outcome == OUTCOME_HELD && list[i].held == 5;
            out_alike += list[i].outcome == OUTCOME_DUPLICATE;
            out_cluster += list[i].outcome == OUTCOME_CLUSTER;
        }
        assert_int_equal(held, 2);
        shuffle(order, 2 + (uint32_t)cycle);
        assert_int_equal(choose(&request, order, other, again, &other_count), chosen);
        for (size_t i = 0; i < chosen; i++)
            assert_true(other[i].key == selected[i].key && other[i].stream == selected[i].stream &&
                        other[i].probability == selected[i].probability && other[i].score == selected[i].score);
        assert_int_equal(other_count, count);
    }
    assert_true(out_alike > 20 && out_cluster > 20);
}

/*
 * Over many cycles the picks weighted by 1 / probability, with the random draws and what the rules exclude beforehand, add up
 * to the whole pool, though cluster 1 may take a third of the places only and holds most of the value; unweighted they do not.
 */
static void estimates_are_unbiased_with_diversity(void **state)
{
    (void)state;
    enum { CYCLES = 6000 };
    static struct candidate list[POOL];
    struct selected selected[42];
    double truth = 0, value[POOL], sum = 0, squares = 0, naive = 0;
    int order[POOL];
    make_pool();
    shuffle(order, 0);
    for (int n = 0; n < POOL; n++) {
        value[n] = cluster_of(n) == 1 ? 4 + (n % 6 < 2 ? 3 : 0) : (double)better_score[n];
        truth += value[n];
    }
    for (uint64_t cycle = 0; cycle < CYCLES; cycle++) {
        struct select_request request = diverse_request(cycle);
        size_t count, chosen = choose(&request, order, selected, list, &count);
        uint8_t apart[POOL] = {
            0}; /* known before the draw: on offer, held back, drawn at random, or like one of them */
        double estimate = 0, picks = 0, active = 0;
        int first[POOL], firsts = 0;
        first[firsts++] = 0;
        first[firsts++] = 7;
        for (size_t i = 0; i < count; i++) /* a random draw that was left out for its likeness is apart too */
            apart[list[i].key - 1] |= list[i].stream == STREAM_RANDOM;
        for (size_t i = 0; i < chosen; i++)
            if (selected[i].stream == STREAM_RANDOM)
                first[firsts++] = (int)selected[i].key - 1;
        apart[20] = apart[21] = apart[30] = 1;
        for (int i = 0; i < firsts; i++)
            for (int n = 0; n < POOL; n++)
                apart[n] |= n == first[i] || alike[n][first[i]];
        for (int n = 0; n < POOL; n++)
            estimate += apart[n] ? value[n] : 0;
        for (size_t i = 0; i < chosen; i++)
            if (selected[i].stream == STREAM_ACTIVE) {
                assert_true(!apart[selected[i].key - 1] && selected[i].probability > 0);
                estimate += value[selected[i].key - 1] / selected[i].probability;
                picks += value[selected[i].key - 1];
                active++;
            }
        naive += picks / active * POOL / CYCLES;
        sum += estimate / CYCLES;
        squares += estimate * estimate / CYCLES;
    }
    double error = sqrt((squares - sum * sum) / CYCLES);
    print_message("estimate %.2f +- %.2f of %.2f, unweighted %.2f\n", sum, error, truth, naive);
    if (fabs(sum - truth) > 4 * error)
        fail_msg("%g is not %g within 4 x %g", sum, truth, error);
    assert_true(error < 0.02 * truth && fabs(naive - truth) > 0.1 * truth);
}

/* Limits that one seed in a few hundred breaks: of few kinds few directions are independent, and errors have long tails. */
static int fix_seed(void **state)
{
    (void)state;
    seed = 1;
    return 0;
}

static int free_seed(void **state)
{
    (void)state;
    seed = drawn_seed;
    return 0;
}

int main(void)
{
    seed = drawn_seed = test_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sketches_keep_distances, fix_seed, free_seed),
        cmocka_unit_test(embeddings_that_are_not_finite_have_no_sketch),
        cmocka_unit_test(views_are_averaged),
        cmocka_unit_test(clusters_find_the_kinds),
        cmocka_unit_test(what_is_like_nothing_else_is_no_kind),
        cmocka_unit_test(duplicates_by_brute_force),
        cmocka_unit_test(probabilities_by_trying_every_gumbel),
        cmocka_unit_test(batches_keep_their_rules_in_any_order),
        cmocka_unit_test_setup_teardown(estimates_are_unbiased_with_diversity, fix_seed, free_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
