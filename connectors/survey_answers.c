/*
 * What volunteers would probably say of a simulated galaxy: one table from (question, answer) to a utility,
 * then a softmax per question; see survey.h. Not a model of real volunteers, and not the drawing of votes
 * (volunteers.h).
 */
#include "connectors/survey.h"

#include <math.h>
#include <string.h>

#define DEGREES            57.29578f
#define FLOOR              -5.f /* utility of an answer that cannot be meant */
#define CARELESS           .02f /* share of votes given at random however clear the picture */
#define CARELESS_INVISIBLE .25f /* and the share added where nothing can be seen */

/* What can be seen of a galaxy, each on the scale its rules below use. */
enum quantity {
    ALWAYS, /* 1: LINEAR from 0 gives a constant */
    FEATURED,
    EDGE_ON, /* observed axis ratio with blur, discs and spheroids alike */
    ARMS,
    BAR,
    BULGE, /* square root of the bulge's share of light */
    ROUNDNESS,
    PITCH, /* degrees */
    ARM_COUNT,
    BROKEN_ARMS,
    BOXY,
    TIDAL,
    MERGER,
    DISTURBED, /* whichever of the two is stronger */
    ODD,
    RING,
    CLUMPS,
    ASYMMETRY,
    ARTEFACT,
    STAR,
    TRAIL,
    COLUMNS,
    QUANTITIES,
};

/* LINEAR: utility = b (quantity - a). NEAR: utility = -(quantity - a)^2 / (2 b^2), b widened where little is
 * seen. */
enum shape { LINEAR, NEAR };

struct rule {
    const char *question, *answer; /* the question by the beginning of its name, up to the end or a '-' */
    enum quantity quantity;
    enum shape shape;
    float a, b;
};

static const struct rule rules[] = {
    {"smooth-or-featured", "smooth",             ALWAYS,      LINEAR, 1,    0   },
    {"smooth-or-featured", "featured-or-disk",   FEATURED,    LINEAR, .38f, 9   },
    {"smooth-or-featured", "features",           FEATURED,    LINEAR, .38f, 9   },
    {"smooth-or-featured", "artifact",           ARTEFACT,    LINEAR, .55f, 9   },
    {"smooth-or-featured", "problem",            ARTEFACT,    LINEAR, .55f, 9   },
    {"smooth-or-featured", "star-artifact-zoom", ARTEFACT,    LINEAR, .55f, 9   },
    {"disk-edge-on",       "yes",                EDGE_ON,     LINEAR, .29f, -24 },
    {"disk-edge-on",       "no",                 ALWAYS,      LINEAR, 1,    0   },
    {"has-spiral-arms",    "yes",                ARMS,        LINEAR, .27f, 11  },
    {"has-spiral-arms",    "no",                 ALWAYS,      LINEAR, 1,    0   },
    {"bar",                "yes",                BAR,         LINEAR, .36f, 10  },
    {"bar",                "strong",             BAR,         NEAR,   .85f, .17f},
    {"bar",                "weak",               BAR,         NEAR,   .45f, .15f},
    {"bar",                "no",                 BAR,         NEAR,   .0f,  .20f},
    {"bulge-size",         "dominant",           BULGE,       NEAR,   .9f,  .11f},
    {"bulge-size",         "large",              BULGE,       NEAR,   .7f,  .1f },
    {"bulge-size",         "obvious",            BULGE,       NEAR,   .6f,  .1f },
    {"bulge-size",         "moderate",           BULGE,       NEAR,   .5f,  .1f },
    {"bulge-size",         "small",              BULGE,       NEAR,   .3f,  .1f },
    {"bulge-size",         "just-noticeable",    BULGE,       NEAR,   .33f, .1f },
    {"bulge-size",         "none",               BULGE,       NEAR,   .08f, .1f },
    {"bulge-size",         "no",                 BULGE,       NEAR,   .08f, .1f },
    {"how-rounded",        "round",              ROUNDNESS,   NEAR,   .95f, .13f},
    {"how-rounded",        "completely",         ROUNDNESS,   NEAR,   .95f, .13f},
    {"how-rounded",        "in-between",         ROUNDNESS,   NEAR,   .6f,  .13f},
    {"how-rounded",        "cigar",              ROUNDNESS,   NEAR,   .25f, .12f},
    {"how-rounded",        "cigar-shaped",       ROUNDNESS,   NEAR,   .25f, .12f},
    {"bulge-shape",        "round",              BULGE,       LINEAR, .25f, 9   },
    {"bulge-shape",        "rounded",            BULGE,       LINEAR, .25f, 9   },
    {"bulge-shape",        "boxy",               BOXY,        LINEAR, .45f, 9   },
    {"bulge-shape",        "no-bulge",           ALWAYS,      LINEAR, 1,    0   },
    {"bulge-shape",        "none",               ALWAYS,      LINEAR, 1,    0   },
    {"edge-on-bulge",      "rounded",            BULGE,       LINEAR, .25f, 9   },
    {"edge-on-bulge",      "boxy",               BOXY,        LINEAR, .45f, 9   },
    {"edge-on-bulge",      "none",               ALWAYS,      LINEAR, 1,    0   },
    {"edge-on-bulge",      "yes",                BULGE,       LINEAR, .25f, 9   },
    {"edge-on-bulge",      "no",                 ALWAYS,      LINEAR, 1,    0   },
    {"spiral-winding",     "tight",              PITCH,       NEAR,   10,   4   },
    {"spiral-winding",     "medium",             PITCH,       NEAR,   19,   4   },
    {"spiral-winding",     "loose",              PITCH,       NEAR,   31,   6   },
    {"spiral-arm-count",   "1",                  ARM_COUNT,   NEAR,   1,    .4f },
    {"spiral-arm-count",   "2",                  ARM_COUNT,   NEAR,   2,    .4f },
    {"spiral-arm-count",   "3",                  ARM_COUNT,   NEAR,   3,    .4f },
    {"spiral-arm-count",   "4",                  ARM_COUNT,   NEAR,   4,    .4f },
    {"spiral-arm-count",   "more-than-4",        ARM_COUNT,   NEAR,   5.6f, .6f },
    {"spiral-arm-count",   "5-plus",             ARM_COUNT,   NEAR,   5.6f, .6f },
    {"spiral-arm-count",   "cant-tell",          BROKEN_ARMS, LINEAR, .6f,  7   },
    {"spiral-count",       "1",                  ARM_COUNT,   NEAR,   1,    .4f },
    {"spiral-count",       "2",                  ARM_COUNT,   NEAR,   2,    .4f },
    {"spiral-count",       "3",                  ARM_COUNT,   NEAR,   3,    .4f },
    {"spiral-count",       "4",                  ARM_COUNT,   NEAR,   4,    .4f },
    {"spiral-count",       "more-than-4",        ARM_COUNT,   NEAR,   5.6f, .6f },
    {"spiral-count",       "cant-tell",          BROKEN_ARMS, LINEAR, .6f,  7   },
    {"merging",            "none",               ALWAYS,      LINEAR, 1,    0   },
    {"merging",            "neither",            ALWAYS,      LINEAR, 1,    0   },
    {"merging",            "minor-disturbance",  TIDAL,       NEAR,   .45f, .15f},
    {"merging",            "major-disturbance",  TIDAL,       LINEAR, .55f, 9   },
    {"merging",            "tidal-debris",       TIDAL,       LINEAR, .4f,  9   },
    {"merging",            "both",               DISTURBED,   LINEAR, .7f,  8   },
    {"merging",            "merger",             MERGER,      LINEAR, .4f,  11  },
    {"something-odd",      "yes",                ODD,         LINEAR, .42f, 10  },
    {"something-odd",      "no",                 ALWAYS,      LINEAR, 1,    0   },
    {"ring",               "yes",                RING,        LINEAR, .35f, 11  },
    {"ring",               "no",                 ALWAYS,      LINEAR, 1,    0   },
    {"clumps",             "yes",                CLUMPS,      LINEAR, .4f,  9   },
    {"clumps",             "no",                 ALWAYS,      LINEAR, 1,    0   },
    {"clumpy-appearance",  "yes",                CLUMPS,      LINEAR, .4f,  9   },
    {"clumpy-appearance",  "no",                 ALWAYS,      LINEAR, 1,    0   },
    {"galaxy-symmetrical", "yes",                ASYMMETRY,   LINEAR, .45f, -9  },
    {"galaxy-symmetrical", "no",                 ALWAYS,      LINEAR, 1,    0   },
    {"problem",            "star",               STAR,        LINEAR, .3f,  8   },
    {"problem",            "artifact",           ALWAYS,      LINEAR, 1,    0   },
    {"problem",            "zoom",               ALWAYS,      LINEAR, 2,    2   },
    {"problem",            "bad-zoom",           ALWAYS,      LINEAR, 2,    2   },
    {"artifact",           "satellite",          TRAIL,       LINEAR, .2f,  8   },
    {"artifact",           "diffraction",        STAR,        LINEAR, .2f,  7   },
    {"artifact",           "saturation",         STAR,        LINEAR, .2f,  6   },
    {"artifact",           "ray",                COLUMNS,     LINEAR, .4f,  5   },
    {"artifact",           "scattered",          ALWAYS,      LINEAR, 1,    0   },
    {"artifact",           "ghost",              ALWAYS,      LINEAR, 2,    1   },
    {"artifact",           "other",              COLUMNS,     LINEAR, .2f,  6   },
};
#define RULES ((int)(sizeof rules / sizeof *rules))

static float logistic(float value)
{
    return 1 / (1 + expf(-value));
}

static float larger(float a, float b)
{
    return a > b ? a : b;
}

float survey_visibility(const struct survey_galaxy *galaxy)
{
    float resolved = logistic(2.5f * logf(galaxy->radius / galaxy->seeing / 4));
    return resolved * logistic(2 * logf(galaxy->signal / 3));
}

/* What can be seen of the structure; a strength shrinks with the visibility. */
static void look(const struct survey_galaxy *galaxy, float seen[QUANTITIES])
{
    float visibility = survey_visibility(galaxy), q = galaxy->axis_ratio, disc = 1 - galaxy->bulge_share;
    float blur = .45f * galaxy->seeing / galaxy->radius, broad = sqrtf((q * q + blur * blur) / (1 + blur * blur));
    float faced = galaxy->edge_on ? 0 : logistic(12 * (q - .3f));
    float thin = logistic(30 * (.28f - broad)) * (galaxy->edge_on ? 1 : .45f);
    memset(seen, 0, QUANTITIES * sizeof *seen);
    seen[ALWAYS] = 1;
    seen[ARMS] = visibility * faced * galaxy->arms * powf(disc, .4f);
    seen[BAR] = visibility * faced * galaxy->bar;
    seen[BULGE] = sqrtf(galaxy->bulge_share);
    seen[ROUNDNESS] = broad;
    seen[EDGE_ON] = broad;
    seen[PITCH] = galaxy->pitch * DEGREES;
    seen[ARM_COUNT] = (float)galaxy->arm_count;
    seen[BROKEN_ARMS] = 1 - (1 - galaxy->flocculence) * sqrtf(visibility);
    seen[BOXY] = visibility * (galaxy->bulge_boxiness > 2 ? 1.4f : .3f) * larger(seen[BULGE], .1f);
    seen[TIDAL] = sqrtf(visibility) * galaxy->tidal;
    seen[MERGER] = galaxy->companion;
    seen[DISTURBED] = .5f * (seen[TIDAL] + seen[MERGER]);
    seen[RING] = sqrtf(visibility) * galaxy->ring;
    seen[CLUMPS] = visibility * larger(galaxy->clumps, .4f * galaxy->arms);
    seen[ASYMMETRY] = larger(seen[TIDAL], larger(seen[MERGER], .6f * galaxy->clumps));
    seen[ODD] = larger(larger(seen[TIDAL], .9f * seen[MERGER]),
                       larger(seen[RING], larger(visibility * galaxy->clumps, .55f * visibility * galaxy->dust)));
    seen[ARTEFACT] = galaxy->artefact ? .3f + .7f * galaxy->artefact_strength : 0;
    seen[ARTEFACT] += galaxy->artefact == SURVEY_STAR ? .4f : 0;
    seen[STAR] = galaxy->artefact == SURVEY_STAR;
    seen[TRAIL] = galaxy->artefact == SURVEY_TRAIL;
    seen[COLUMNS] = galaxy->artefact == SURVEY_COLUMNS;
    /* Any one feature is enough: one minus the chance that none is noticed. */
    float none = (1 - seen[ARMS]) * (1 - seen[BAR]) * (1 - thin) * (1 - .6f * seen[TIDAL]) * (1 - seen[RING]) *
                 (1 - visibility * galaxy->clumps) * (1 - .35f * seen[MERGER]) * (1 - .25f * visibility * disc);
    seen[FEATURED] = 1 - none;
}

/* The rule's question names this one: "bar" is "bar" and "bar-dr5", but "bulge" is not "bulge-size" by
 * itself. */
static int same_question(const char *name, const char *rule)
{
    size_t length = strlen(rule);
    return strncmp(name, rule, length) == 0 && (name[length] == 0 || name[length] == '-');
}

/* Returns 1 and the utility of the answer; 0 when no rule knows it. `ret_known` is set if the question is
 * known. */
static int utility_of(const char *question, const char *answer, const float seen[QUANTITIES], float visibility,
                      float *ret_utility, int *ret_known)
{
    for (int i = 0; i < RULES; i++) {
        const struct rule *rule = &rules[i];
        if (!same_question(question, rule->question))
            continue;
        *ret_known = 1;
        if (strcmp(answer, rule->answer) != 0)
            continue;
        float difference = seen[rule->quantity] - rule->a, width = rule->b * (1.5f - .5f * visibility);
        *ret_utility = rule->shape == LINEAR ? rule->b * difference : -difference * difference / (2 * width * width);
        return 1;
    }
    return 0;
}

static void soften(float *value, int count, float careless)
{
    float largest = value[0], sum = 0;
    for (int i = 1; i < count; i++)
        largest = larger(largest, value[i]);
    for (int i = 0; i < count; i++)
        sum += value[i] = expf(value[i] - largest);
    for (int i = 0; i < count; i++)
        value[i] = (1 - careless) * value[i] / sum + careless / (float)count;
}

void survey_answers(const struct schema *schema, const struct survey_galaxy *galaxy, float *probability)
{
    float seen[QUANTITIES], visibility = survey_visibility(galaxy);
    float careless = CARELESS + CARELESS_INVISIBLE * (1 - visibility) * (1 - visibility);
    look(galaxy, seen);
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        float *value = probability + question->first;
        int known = 0;
        for (int i = 0; i < question->count; i++) {
            const char *answer = schema->answer[question->first + i].name;
            if (!utility_of(question->name, answer, seen, visibility, &value[i], &known))
                value[i] = known ? FLOOR : 0;
        }
        soften(value, question->count, careless);
    }
}
