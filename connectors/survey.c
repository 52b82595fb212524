/* Draws the parameters of simulated galaxies; see survey.h. Pictures are survey_render.c, opinions
 * survey_answers.c. */
#include "connectors/survey.h"
#include "base/philox.h"

#include <string.h>

#define PI 3.14159265f

enum stage { STAGE_KIND, STAGE_VIEW, STAGE_STRUCTURE, STAGE_ARMS, STAGE_SECOND, STAGE_FIELD };

/* A run of uniform numbers of one galaxy and stage. */
struct stream {
    uint64_t seed;
    uint32_t number, stage, element;
};

static float uniform(struct stream *stream)
{
    struct philox words = philox(stream->seed, stream->element / 4, stream->number, stream->stage, PHILOX_SURVEY);
    return philox_uniform(words.word[stream->element++ % 4]);
}

struct range {
    float low, high;
};

static float between(struct stream *stream, float low, float high)
{
    return low + (high - low) * uniform(stream);
}

static float draw(struct stream *stream, struct range range)
{
    return between(stream, range.low, range.high);
}

/* Log-uniform. */
static float scale(struct stream *stream, float low, float high)
{
    return low * powf(high / low, uniform(stream));
}

/* One row per kind: how common it is, and what its parameters are drawn from (uniform between low and high).
 */
struct kind {
    const char *name;
    float share;
    struct range axis_ratio, bulge_share, bulge_index, arms, bar, ring, dust, tidal, companion, clumps;
    int edge_on;
    enum survey_artefact artefact;
};

/* clang-format off */
static const struct kind kinds[] = {
    {.name = "elliptical", .share = .25f,
     .axis_ratio = {.55f, 1}, .bulge_share = {1, 1}, .bulge_index = {2, 5}},
    {.name = "cigar", .share = .06f,
     .axis_ratio = {.2f, .5f}, .bulge_share = {1, 1}, .bulge_index = {1.5f, 3}},
    {.name = "lenticular", .share = .12f,
     .axis_ratio = {.35f, 1}, .bulge_share = {.3f, .8f}, .bulge_index = {2, 4}, .arms = {0, .15f}, .bar = {0, .3f}},
    {.name = "spiral", .share = .23f,
     .axis_ratio = {.4f, 1}, .bulge_share = {.03f, .45f}, .bulge_index = {1, 3}, .arms = {.4f, 1},
     .bar = {-.2f, .2f}},
    {.name = "barred spiral", .share = .10f,
     .axis_ratio = {.45f, 1}, .bulge_share = {.05f, .35f}, .bulge_index = {1, 3}, .arms = {.25f, 1},
     .bar = {.4f, 1}},
    {.name = "faint spiral", .share = .05f,
     .axis_ratio = {.35f, 1}, .bulge_share = {.1f, .6f}, .bulge_index = {1, 4}, .arms = {.1f, .4f},
     .bar = {-.3f, .5f}},
    {.name = "edge-on disc", .share = .10f,
     .axis_ratio = {.08f, .2f}, .bulge_share = {-.12f, .45f}, .bulge_index = {1, 2.5f}, .dust = {-.8f, 1},
     .edge_on = 1},
    {.name = "merger", .share = .03f,
     .axis_ratio = {.4f, 1}, .bulge_share = {.1f, .9f}, .bulge_index = {1, 4}, .arms = {-.5f, .6f},
     .tidal = {.3f, 1}, .companion = {.5f, 1}},
    {.name = "disturbed", .share = .02f,
     .axis_ratio = {.4f, 1}, .bulge_share = {.1f, .7f}, .bulge_index = {1, 4}, .arms = {-.3f, .4f},
     .tidal = {.35f, 1}},
    {.name = "ring", .share = .015f,
     .axis_ratio = {.5f, 1}, .bulge_share = {.2f, .6f}, .bulge_index = {2, 4}, .ring = {.5f, 1}},
    {.name = "irregular", .share = .01f,
     .axis_ratio = {.4f, 1}, .bulge_share = {0, .1f}, .bulge_index = {1, 1.5f}, .clumps = {.5f, 1}},
    {.name = "star", .share = .007f,
     .axis_ratio = {1, 1}, .artefact = SURVEY_STAR},
    {.name = "satellite trail", .share = .004f,
     .axis_ratio = {.4f, 1}, .bulge_share = {.2f, 1}, .bulge_index = {1, 4}, .artefact = SURVEY_TRAIL},
    {.name = "dead columns", .share = .004f,
     .axis_ratio = {.4f, 1}, .bulge_share = {.2f, 1}, .bulge_index = {1, 4}, .artefact = SURVEY_COLUMNS},
};
/* clang-format on */
#define KINDS ((int)(sizeof kinds / sizeof *kinds))

static const struct kind *draw_kind(struct stream *stream)
{
    float total = 0, at = uniform(stream);
    for (int i = 0; i < KINDS; i++)
        total += kinds[i].share;
    at *= total;
    for (int i = 0; i < KINDS - 1; i++) {
        if (at < kinds[i].share)
            return &kinds[i];
        at -= kinds[i].share;
    }
    return &kinds[KINDS - 1];
}

/* Size, brightness, place and colour: nothing here looks at the kind. */
static void draw_view(struct stream *stream, struct survey_galaxy *galaxy)
{
    galaxy->signal = scale(stream, 4, 40);
    galaxy->seeing = scale(stream, .010f, .024f);
    galaxy->radius = scale(stream, .085f, .18f);
    galaxy->x = .5f + between(stream, -.015f, .015f);
    galaxy->y = .5f + between(stream, -.015f, .015f);
    galaxy->angle = between(stream, 0, PI);
    galaxy->colour = between(stream, -.45f, .45f);
}

/* Ranges may begin below zero: that share of galaxies has none of it. */
static float strength(struct stream *stream, struct range range)
{
    float value = draw(stream, range);
    return value > 0 ? value : 0;
}

static void draw_structure(struct stream *stream, const struct kind *kind, struct survey_galaxy *galaxy)
{
    galaxy->kind = kind->name;
    galaxy->edge_on = kind->edge_on;
    galaxy->axis_ratio = draw(stream, kind->axis_ratio);
    galaxy->bulge_share = strength(stream, kind->bulge_share);
    galaxy->bulge_index = kind->bulge_index.high > 0 ? draw(stream, kind->bulge_index) : 1;
    galaxy->bulge_boxiness = uniform(stream) < .25f ? 4 : 2;
    galaxy->arms = strength(stream, kind->arms);
    galaxy->bar = strength(stream, kind->bar);
    galaxy->ring = strength(stream, kind->ring);
    galaxy->dust = strength(stream, kind->dust);
    galaxy->tidal = strength(stream, kind->tidal);
    galaxy->companion = strength(stream, kind->companion);
    galaxy->clumps = strength(stream, kind->clumps);
    galaxy->bar_angle = between(stream, 0, PI);
    galaxy->tidal_phase = between(stream, 0, 2 * PI);
    galaxy->artefact = kind->artefact;
    galaxy->artefact_strength = kind->artefact ? between(stream, .35f, 1) : 0;
    galaxy->artefact_angle = between(stream, 0, PI);
}

static int draw_arm_count(struct stream *stream)
{
    static const float share[] = {.06f, .58f, .16f, .10f, .05f, .05f};
    float at = uniform(stream);
    int count = 1;
    while (count < 6 && at >= share[count - 1])
        at -= share[count++ - 1];
    return count;
}

static void draw_arms(struct stream *stream, struct survey_galaxy *galaxy)
{
    galaxy->arm_count = draw_arm_count(stream);
    galaxy->pitch = scale(stream, 8, 38) * (PI / 180);
    galaxy->arm_phase = between(stream, 0, 2 * PI);
    galaxy->handedness = uniform(stream) < .5f ? 1 : -1;
    galaxy->flocculence = powf(uniform(stream), 2);
    for (int i = 0; i < SURVEY_WOBBLES; i++)
        galaxy->wobble_phase[i] = between(stream, 0, 2 * PI);
    float amount = galaxy->clumps > 0 ? galaxy->clumps : galaxy->edge_on ? 0 : .5f * galaxy->arms;
    galaxy->knots = (int)(SURVEY_KNOTS_MAX * amount * between(stream, .4f, 1));
    float share = galaxy->clumps > 0 ? .6f * galaxy->clumps : .12f * galaxy->arms;
    for (int i = 0; i < galaxy->knots; i++) {
        struct survey_knot *knot = &galaxy->knot[i];
        knot->radius = between(stream, .45f, galaxy->clumps > 0 ? 1.5f : 2.f) * galaxy->radius;
        knot->flux = 2 * share * uniform(stream) / (float)galaxy->knots;
        /* On an arm, give or take: theta = phase + ln(r / r_0) / tan(pitch) + 2 pi k / m. */
        int arm = (int)(uniform(stream) * (float)galaxy->arm_count);
        knot->angle = 2 * PI * (float)arm / (float)galaxy->arm_count + between(stream, -.2f, .2f);
        if (galaxy->clumps > 0)
            knot->angle = between(stream, 0, 2 * PI);
    }
}

static void draw_second(struct stream *stream, struct survey_galaxy *galaxy)
{
    float direction = between(stream, 0, 2 * PI), distance = between(stream, 1.1f, 2.6f) * galaxy->radius;
    galaxy->second = (struct survey_sersic){
        .x = galaxy->x + distance * cosf(direction),
        .y = galaxy->y + distance * sinf(direction),
        .flux = galaxy->companion * between(stream, .5f, 1), /* a share; the renderer multiplies */
        .radius = galaxy->radius * between(stream, .4f, .8f),
        .index = between(stream, 1, 4),
        .axis_ratio = between(stream, .4f, 1),
        .angle = between(stream, 0, PI),
        .boxiness = 2,
        .colour = galaxy->colour + between(stream, -.2f, .3f),
    };
}

static void draw_field(struct stream *stream, struct survey_galaxy *galaxy)
{
    galaxy->objects = (int)(SURVEY_OBJECTS_MAX * powf(uniform(stream), 1.5f));
    for (int i = 0; i < galaxy->objects; i++) {
        struct survey_object *object = &galaxy->object[i];
        int star = uniform(stream) < .6f;
        object->x = uniform(stream);
        object->y = uniform(stream);
        object->radius = star ? 0 : scale(stream, .006f, .02f);
        object->flux = scale(stream, 30, star ? 1500 : 800);
        object->colour = between(stream, -.6f, .8f);
        /* The middle belongs to the galaxy, or every chance neighbour would look like a merger. */
        if (hypotf(object->x - galaxy->x, object->y - galaxy->y) < .25f)
            object->flux *= .05f;
    }
}

void survey_draw(uint64_t seed, uint32_t number, struct survey_galaxy *ret_galaxy)
{
    struct stream stream = {.seed = seed, .number = number, .stage = STAGE_KIND};
    memset(ret_galaxy, 0, sizeof *ret_galaxy);
    ret_galaxy->seed = seed;
    ret_galaxy->number = number;
    const struct kind *kind = draw_kind(&stream);
    stream = (struct stream){seed, number, STAGE_VIEW, 0};
    draw_view(&stream, ret_galaxy);
    stream = (struct stream){seed, number, STAGE_STRUCTURE, 0};
    draw_structure(&stream, kind, ret_galaxy);
    stream = (struct stream){seed, number, STAGE_ARMS, 0};
    draw_arms(&stream, ret_galaxy);
    stream = (struct stream){seed, number, STAGE_SECOND, 0};
    draw_second(&stream, ret_galaxy);
    stream = (struct stream){seed, number, STAGE_FIELD, 0};
    draw_field(&stream, ret_galaxy);
}
