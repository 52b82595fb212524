/*
 * A simulated survey: galaxies with known parameters, their pictures, and what volunteers would probably say
 * of them. It is for tests and demonstrations, where the truth has to be known. Not for science: nothing here
 * was fitted to real galaxies, and every file made from it must say that it is simulated. It writes no files
 * and draws no votes (connectors/volunteers.h).
 *
 * Everything is a pure function of (seed, galaxy number), by the counter RNG in domain PHILOX_SURVEY: the
 * same galaxy whatever the number of threads or galaxies. Size and signal-to-noise are drawn independently of
 * the kind, so that brightness alone tells nothing about morphology.
 *
 * Lengths are in units of the picture's side, angles in radians, light in units of the sky noise of one
 * pixel.
 */
#ifndef TRIAGE_CONNECTORS_SURVEY_H
#define TRIAGE_CONNECTORS_SURVEY_H

#include "model/schema.h"

#include <stdint.h>

#define SURVEY_SIDE_MIN    16
#define SURVEY_SIDE_MAX    1024
#define SURVEY_OBJECTS_MAX 12 /* field stars and small galaxies in one picture */
#define SURVEY_KNOTS_MAX   28 /* star-forming regions of one galaxy */
#define SURVEY_WOBBLES     3

enum survey_artefact {
    SURVEY_NO_ARTEFACT,
    SURVEY_STAR,    /* a saturated star with diffraction spikes instead of a galaxy */
    SURVEY_TRAIL,   /* a satellite trail across the galaxy */
    SURVEY_COLUMNS, /* dead and bleeding columns */
};

/* A Sersic profile: I(r) = I_e exp(-b_n ((r / radius)^(1/index) - 1)), r the elliptical radius (Sersic 1968).
 */
struct survey_sersic {
    float x, y;       /* centre, 0..1 */
    float flux;       /* total, to infinity */
    float radius;     /* effective (half-light) radius along the major axis */
    float index;      /* n: 1 = exponential disc, 4 = de Vaucouleurs; 0.5 .. 8 */
    float axis_ratio; /* minor / major, 0 < q <= 1 */
    float angle;      /* of the major axis, from x towards y */
    float boxiness;   /* exponent of the isophote's superellipse; 2 = ellipse, above = boxy */
    float colour;     /* -1 blue .. 1 red */
};

/* A field star (radius 0) or a small round galaxy. */
struct survey_object {
    float x, y, flux, radius, colour;
};

struct survey_knot {
    float radius, angle, flux; /* in the plane of the disc; flux as a share of the disc's */
};

struct survey_galaxy {
    const char *kind; /* name of the row of kinds it was drawn from: "spiral" */
    /* how well it can be seen */
    float signal; /* mean surface brightness inside the effective radius, in units of the sky noise of a pixel
                   */
    float seeing; /* full width at half maximum of the point spread function */
    float radius; /* half-light radius of the whole */
    float x, y, angle, axis_ratio, colour;
    /* structure; shares and strengths are 0..1 */
    float bulge_share, bulge_index, bulge_boxiness;
    int edge_on;   /* the disc is seen from the side: sech^2 across, exponential along */
    float arms;    /* contrast of the spiral arms */
    int arm_count; /* 1 .. 6 */
    float pitch;   /* of the logarithmic spiral; small = tightly wound */
    float arm_phase;
    int handedness;    /* 1 or -1 */
    float flocculence; /* how broken the arms are */
    float bar, bar_angle;
    float ring;
    float dust; /* dark lane of an edge-on disc */
    float tidal, tidal_phase;
    float companion; /* 0 = none, else how obvious the second galaxy is */
    struct survey_sersic second;
    float clumps;
    enum survey_artefact artefact;
    float artefact_strength, artefact_angle;
    float wobble_phase[SURVEY_WOBBLES];
    int knots, objects;
    struct survey_knot knot[SURVEY_KNOTS_MAX];
    struct survey_object object[SURVEY_OBJECTS_MAX];
    uint64_t seed; /* with `number`, the key of the noise */
    uint32_t number;
};

/* Draws the parameters of galaxy `number`. */
void survey_draw(uint64_t seed, uint32_t number, struct survey_galaxy *ret_galaxy);

/*
 * Probability of each answer, given that its question is asked: logistic and softmax functions of the
 * parameters and of how well they can be seen, with a few per cent of careless votes. Questions are known by
 * the beginning of their names ("bar", "bar-dr5"); one that is unknown gets a flat distribution. probability
 * [schema->answers] OUTPUT, sums to 1 within each question
 */
void survey_answers(const struct schema *schema, const struct survey_galaxy *galaxy, float *probability);

/* How well structure can be seen, 0..1, from size against seeing and from the signal. */
float survey_visibility(const struct survey_galaxy *galaxy);

/* The planes a picture is made on; one per thread. */
struct survey_canvas {
    int side;          /* pixels */
    int channels;      /* 1 = grey, 3 = red, green, blue */
    float *plane[3];   /* [side][side], sky noise units, sky subtracted */
    float *scratch[2]; /* [side][side] */
};

/* ERROR_INPUT for a side or channel count out of range; ERROR_SYSTEM without memory. */
int survey_canvas_new(int side, int channels, struct survey_canvas *ret_canvas);
void survey_canvas_free(struct survey_canvas *canvas);

/*
 * The picture: light, blurred by the point spread function, Poisson and read noise, asinh stretch (Lupton et
 * al. 2004). pixels  [side][side][channels] OUTPUT
 */
void survey_render(struct survey_canvas *canvas, const struct survey_galaxy *galaxy, uint8_t *pixels);

/*
 * Adds the profile to the planes, integrated over each pixel (finely near the cusp).
 * Total flux = 2 pi n q r_e^2 I_e e^b b^-2n Gamma(2n) for elliptical isophotes (Graham & Driver 2005, eq. 4).
 */
void survey_add_sersic(struct survey_canvas *canvas, const struct survey_sersic *profile);

/*
 * Blurs every plane by the point spread function: two Gaussians, the second three times as wide with a tenth
 * of the light (the form SDSS uses). The border reflects, so the sum of each plane is kept. seeing  full
 * width at half maximum of the core
 */
void survey_blur(struct survey_canvas *canvas, float seeing);

#endif
