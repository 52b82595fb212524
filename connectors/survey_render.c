/* Pictures of simulated galaxies: light, blur, noise, stretch; see survey.h. What a galaxy is like is
 * survey.c. */
#include "connectors/survey.h"
#include "base/error.h"
#include "base/philox.h"

#include <stdlib.h>
#include <string.h>

#define PI                3.14159265f
#define NOISE_STAGE       64    /* apart from the stages of survey.c */
#define SKY_ELECTRONS     150.f /* per pixel, with READ_ELECTRONS^2 the variance that is the unit of light */
#define READ_ELECTRONS    5.f
#define STRETCH_SOFTEN    3.f   /* light in sky noise units at which the stretch turns from linear to logarithmic */
#define STRETCH_WHITE     160.f /* light that becomes 255 */
#define STRETCH_BLACK     -.7f
#define REFERENCE_SIDE    128.f /* fluxes of field objects are given for this side */
#define KERNEL_RADIUS_MAX 200

int survey_canvas_new(int side, int channels, struct survey_canvas *ret_canvas)
{
    memset(ret_canvas, 0, sizeof *ret_canvas);
    if (side < SURVEY_SIDE_MIN || side > SURVEY_SIDE_MAX)
        return error_set(ERROR_INPUT, "a side of %d pixels: choose %d to %d", side, SURVEY_SIDE_MIN, SURVEY_SIDE_MAX);
    if (channels != 1 && channels != 3)
        return error_set(ERROR_INPUT, "%d channels: choose 1 (grey) or 3 (colour)", channels);
    size_t pixels = (size_t)side * (size_t)side;
    float *memory = calloc(pixels * (size_t)(channels + 2), sizeof(float));
    if (!memory)
        return error_set(ERROR_SYSTEM, "out of memory for a picture of %d pixels side", side);
    ret_canvas->side = side;
    ret_canvas->channels = channels;
    for (int c = 0; c < channels; c++)
        ret_canvas->plane[c] = memory + pixels * (size_t)c;
    for (int i = 0; i < 2; i++)
        ret_canvas->scratch[i] = memory + pixels * (size_t)(channels + i);
    return 0;
}

void survey_canvas_free(struct survey_canvas *canvas)
{
    free(canvas->plane[0]);
    memset(canvas, 0, sizeof *canvas);
}

/* Share of each plane in light of this colour; the mean over colour is 1, and 1 for a grey picture. */
static void colour_weights(const struct survey_canvas *canvas, float colour, float weight[3])
{
    weight[0] = canvas->channels == 1 ? 1 : expf(.4f * colour);
    weight[1] = 1;
    weight[2] = canvas->channels == 1 ? 1 : expf(-.5f * colour);
}

static void add(struct survey_canvas *canvas, int at, float light, const float weight[3])
{
    for (int c = 0; c < canvas->channels; c++)
        canvas->plane[c][at] += light * weight[c];
}

/* b_n of the Sersic profile: the asymptotic series of Ciotti & Bertin (1999), good to 1e-4 for n >= 0.5. */
static float sersic_b(float n)
{
    return 2 * n - 1.f / 3 + 4 / (405 * n) + 46 / (25515 * n * n);
}

/* Area of the superellipse |u|^c + |v|^c = 1 over that of the circle. */
static float superellipse_area(float c)
{
    return 4 * powf(tgammaf(1 + 1 / c), 2) / tgammaf(1 + 2 / c) / PI;
}

/* A profile prepared for evaluation in pixels. */
struct prepared {
    float x, y, cosine, sine, inverse_radius, inverse_axis, inverse_index, b, centre_light, boxiness;
};

static struct prepared prepare(const struct survey_sersic *profile, int side)
{
    float n = profile->index, b = sersic_b(n), radius = profile->radius * (float)side;
    float area = 2 * PI * n * profile->axis_ratio * radius * radius * superellipse_area(profile->boxiness);
    return (struct prepared){
        .x = profile->x * (float)side,
        .y = profile->y * (float)side,
        .cosine = cosf(profile->angle),
        .sine = sinf(profile->angle),
        .inverse_radius = 1 / radius,
        .inverse_axis = 1 / profile->axis_ratio,
        .inverse_index = 1 / n,
        .b = b,
        /* I(0) = I_e e^b, so the e^b of the total cancels. */
        .centre_light = profile->flux / (area * powf(b, -2 * n) * tgammaf(2 * n)),
        .boxiness = profile->boxiness,
    };
}

static float sersic_at(const struct prepared *profile, float dx, float dy)
{
    float u = dx * profile->cosine + dy * profile->sine;
    float v = (dy * profile->cosine - dx * profile->sine) * profile->inverse_axis;
    float radius = profile->boxiness == 2 ? sqrtf(u * u + v * v)
                                          : powf(powf(fabsf(u), profile->boxiness) + powf(fabsf(v), profile->boxiness),
                                                 1 / profile->boxiness);
    float scaled = radius * profile->inverse_radius;
    if (profile->inverse_index != 1)
        scaled = powf(scaled, profile->inverse_index);
    return profile->centre_light * expf(-profile->b * scaled);
}

/* Samples per pixel and axis: fine near the cusp, where the light changes within a pixel. */
static int samples(float distance, float radius)
{
    return distance < 2 ? 16 : distance < 4 ? 6 : distance < 1.3f * radius ? 2 : 1;
}

void survey_add_sersic(struct survey_canvas *canvas, const struct survey_sersic *profile)
{
    struct prepared prepared = prepare(profile, canvas->side);
    float weight[3], radius = profile->radius * (float)canvas->side;
    colour_weights(canvas, profile->colour, weight);
    /* A disc-like profile has nothing left beyond nine radii (1e-5 of its light); a cuspy one goes on. */
    float reach = profile->index <= 1.2f ? 9 * radius + 3 : 2 * (float)canvas->side;
    int low_x = (int)fmaxf(0, prepared.x - reach), low_y = (int)fmaxf(0, prepared.y - reach);
    int high_x = (int)fminf((float)canvas->side, prepared.x + reach);
    int high_y = (int)fminf((float)canvas->side, prepared.y + reach);
    for (int y = low_y; y < high_y; y++)
        for (int x = low_x; x < high_x; x++) {
            float dx = (float)x - prepared.x, dy = (float)y - prepared.y, light = 0;
            int fine = samples(hypotf(dx + .5f, dy + .5f), radius);
            float step = 1 / (float)fine;
            for (int j = 0; j < fine; j++)
                for (int i = 0; i < fine; i++)
                    light += sersic_at(&prepared, dx + ((float)i + .5f) * step, dy + ((float)j + .5f) * step);
            add(canvas, y * canvas->side + x, light * step * step, weight);
        }
}

/* A point of light, shared among the four nearest pixels. */
static void add_point(struct survey_canvas *canvas, float x, float y, float flux, float colour)
{
    float weight[3], px = x * (float)canvas->side - .5f, py = y * (float)canvas->side - .5f;
    colour_weights(canvas, colour, weight);
    int ix = (int)floorf(px), iy = (int)floorf(py);
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 2; i++) {
            float share = (i ? px - (float)ix : (float)ix + 1 - px) * (j ? py - (float)iy : (float)iy + 1 - py);
            int at_x = ix + i, at_y = iy + j;
            if (at_x >= 0 && at_y >= 0 && at_x < canvas->side && at_y < canvas->side)
                add(canvas, at_y * canvas->side + at_x, flux * share, weight);
        }
}

/* The plane of the disc: what the pixels have to be turned and stretched into, and the amounts of light. */
struct disc {
    const struct survey_galaxy *galaxy;
    float x, y, cosine, sine, inverse_axis, radius, height, winding, bar_cosine, bar_sine;
    float disc_light, bar_light, ring_light, tail_light;
};

static struct disc prepare_disc(const struct survey_galaxy *galaxy, int side, float flux)
{
    float radius = galaxy->radius * (float)side, q = galaxy->axis_ratio, height = .6f * radius;
    float ring_share = .75f * galaxy->ring, bar_share = .3f * galaxy->bar, thickness = q * radius;
    struct disc disc = {
        .galaxy = galaxy,
        .x = galaxy->x * (float)side,
        .y = galaxy->y * (float)side,
        .cosine = cosf(galaxy->angle),
        .sine = sinf(galaxy->angle),
        .inverse_axis = 1 / q,
        .radius = radius,
        .height = galaxy->edge_on ? .7f * radius : height,
        .winding = (float)galaxy->handedness / tanf(galaxy->pitch),
        .bar_cosine = cosf(galaxy->bar_angle),
        .bar_sine = sinf(galaxy->bar_angle),
    };
    float area = galaxy->edge_on ? 4 * disc.height * thickness : 2 * PI * q * height * height;
    disc.disc_light = flux * (1 - ring_share) * (1 - bar_share) / area;
    /* Bar: exp(-rho^2.5) on superellipses of exponent 3, half-axes 0.9 and 0.24 radii: 3.29 a b in total. */
    disc.bar_light = flux * bar_share / (3.29f * .9f * .24f * radius * radius * q);
    /* Ring: Gaussian across, 1.15 radii from the centre, 0.14 radii wide. */
    disc.ring_light = flux * ring_share / (2 * PI * q * 1.15f * .14f * sqrtf(2 * PI) * radius * radius);
    disc.tail_light = .35f * galaxy->tidal * flux / (2 * PI * q * radius * radius);
    return disc;
}

static float smooth_step(float value, float low, float high)
{
    float at = fminf(1, fmaxf(0, (value - low) / (high - low)));
    return at * at * (3 - 2 * at);
}

/*
 * Factor by which logarithmic spiral arms raise the disc's light: 1 + A (w - 1), w a von Mises profile in the
 * phase m (theta - ln(r / r_0) / tan(pitch)), normalised to mean 1 so that arms move light and make none.
 */
static float arm_factor(const struct disc *disc, float radius, float theta)
{
    const struct survey_galaxy *galaxy = disc->galaxy;
    const float sharpness = 2.5f, mean = .27005f; /* I_0(k) e^-k */
    float relative = radius / disc->radius, turn = logf(relative + 1e-3f), wander = 0;
    for (int i = 0; i < SURVEY_WOBBLES; i++)
        wander += sinf((float)(i + 1) * theta + (float)(2 * i + 3) * turn + galaxy->wobble_phase[i]);
    float phase = (float)galaxy->arm_count * (theta - disc->winding * turn - galaxy->arm_phase) +
                  (.2f + 1.1f * galaxy->flocculence) * wander;
    float amount = galaxy->arms * smooth_step(relative, .3f, .75f) * (1 - smooth_step(relative, 2.2f, 3.4f));
    amount *= 1 - .5f * galaxy->flocculence * (1 + sinf(7 * theta + 5 * turn + galaxy->wobble_phase[0]));
    return 1 + .9f * amount * (expf(sharpness * (cosf(phase) - 1)) / mean - 1);
}

/* Two tidal tails: one-turn spiral arcs that leave the disc, opposite each other, the second fainter. */
static float tail_light(const struct disc *disc, float radius, float theta)
{
    float relative = radius / disc->radius, turn = theta - 1.1f * disc->galaxy->handedness * logf(relative + 1e-3f);
    float reach = smooth_step(relative, .8f, 1.5f) * expf(-relative / 1.6f);
    float first = expf(14 * (cosf(turn - disc->galaxy->tidal_phase) - 1));
    float second = expf(14 * (-cosf(turn - disc->galaxy->tidal_phase) - 1));
    return 6 * disc->tail_light * reach * (first + .5f * second);
}

static float bar_light(const struct disc *disc, float u, float v)
{
    float along = fabsf(u * disc->bar_cosine + v * disc->bar_sine) / (.9f * disc->radius);
    float across = fabsf(v * disc->bar_cosine - u * disc->bar_sine) / (.24f * disc->radius);
    float rho = cbrtf(along * along * along + across * across * across);
    return disc->bar_light * expf(-powf(rho, 2.5f));
}

static float edge_on_light(const struct disc *disc, float u, float v)
{
    float thickness = disc->galaxy->axis_ratio * disc->radius, across = 1 / coshf(v / thickness);
    float light = disc->disc_light * expf(-fabsf(u) / disc->height) * across * across;
    float lane = (v - .15f * thickness) / (.45f * thickness);
    return light * (1 - .85f * disc->galaxy->dust * expf(-.5f * lane * lane) *
                            (1 - smooth_step(fabsf(u), 0, 3 * disc->radius)));
}

/* Light of the disc and all that lives in it; `ret_blue` says how much more of it is young than on average.
 */
static float disc_at(const struct disc *disc, float dx, float dy, float *ret_blue)
{
    const struct survey_galaxy *galaxy = disc->galaxy;
    float u = dx * disc->cosine + dy * disc->sine, v = dy * disc->cosine - dx * disc->sine;
    *ret_blue = 0;
    if (galaxy->edge_on)
        return edge_on_light(disc, u, v);
    v *= disc->inverse_axis;
    float radius = sqrtf(u * u + v * v);
    if (galaxy->tidal > 0) { /* outer isophotes drift off the centre */
        u -= .35f * galaxy->tidal * radius * cosf(galaxy->tidal_phase);
        v -= .35f * galaxy->tidal * radius * sinf(galaxy->tidal_phase);
        radius = sqrtf(u * u + v * v);
    }
    float light = disc->disc_light * expf(-radius / disc->height), theta = 0;
    if (galaxy->arms > 0 || galaxy->tidal > 0)
        theta = atan2f(v, u);
    if (galaxy->arms > 0) {
        float factor = arm_factor(disc, radius, theta);
        light *= factor;
        *ret_blue = .25f * (factor - 1);
    }
    if (galaxy->bar > 0)
        light += bar_light(disc, u, v);
    if (galaxy->ring > 0) {
        float across = (radius / disc->radius - 1.15f) / .14f, ring = disc->ring_light * expf(-.5f * across * across);
        *ret_blue = ring / (light + ring + 1e-9f);
        light += ring;
    }
    if (galaxy->tidal > 0)
        light += tail_light(disc, radius, theta);
    return light;
}

static void add_disc(struct survey_canvas *canvas, const struct survey_galaxy *galaxy, float flux)
{
    struct disc disc = prepare_disc(galaxy, canvas->side, flux);
    float weight[3];
    colour_weights(canvas, galaxy->colour - .15f, weight);
    for (int y = 0; y < canvas->side; y++)
        for (int x = 0; x < canvas->side; x++) {
            float dx = (float)x - disc.x, dy = (float)y - disc.y, light = 0, blue = 0;
            int fine = hypotf(dx, dy) < (galaxy->edge_on ? 2 : .8f) * disc.radius ? 2 : 1;
            float step = 1 / (float)fine;
            for (int i = 0; i < fine * fine; i++) {
                float more, at_x = dx + ((float)(i % fine) + .5f) * step, at_y = dy + ((float)(i / fine) + .5f) * step;
                light += disc_at(&disc, at_x, at_y, &more);
                blue += more;
            }
            light *= step * step;
            blue = canvas->channels == 1 ? 0 : fminf(.5f, fmaxf(-.3f, blue * step * step));
            float tinted[3] = {weight[0] * (1 - .5f * blue), weight[1], weight[2] * (1 + .8f * blue)};
            add(canvas, y * canvas->side + x, light, tinted);
        }
}

static void add_knots(struct survey_canvas *canvas, const struct survey_galaxy *galaxy, float flux)
{
    float cosine = cosf(galaxy->angle), sine = sinf(galaxy->angle);
    for (int i = 0; i < galaxy->knots; i++) {
        const struct survey_knot *knot = &galaxy->knot[i];
        float theta = knot->angle;
        if (galaxy->clumps <= 0) /* on the arms of arm_factor() */
            theta += galaxy->arm_phase +
                     (float)galaxy->handedness / tanf(galaxy->pitch) * logf(knot->radius / galaxy->radius);
        float u = knot->radius * cosf(theta), v = knot->radius * sinf(theta) * galaxy->axis_ratio;
        float x = galaxy->x + u * cosine - v * sine, y = galaxy->y + u * sine + v * cosine;
        struct survey_sersic blob = {.x = x,
                                     .y = y,
                                     .flux = knot->flux * flux,
                                     .radius = .02f * (galaxy->clumps > 0 ? 1.2f : .5f),
                                     .index = .7f,
                                     .axis_ratio = 1,
                                     .boxiness = 2,
                                     .colour = galaxy->colour - .6f};
        survey_add_sersic(canvas, &blob);
    }
}

static void add_galaxy(struct survey_canvas *canvas, const struct survey_galaxy *galaxy)
{
    float radius = galaxy->radius * (float)canvas->side;
    /* Half of the light lies inside the effective radius. */
    float flux = 2 * galaxy->signal * PI * radius * radius * galaxy->axis_ratio, bulge = galaxy->bulge_share;
    struct survey_sersic spheroid = {
        .x = galaxy->x,
        .y = galaxy->y,
        .flux = flux * bulge,
        .radius = galaxy->radius * (bulge < 1 ? .18f + .45f * bulge : 1),
        .index = galaxy->bulge_index,
        .axis_ratio = bulge < 1 ? fmaxf(.72f, galaxy->axis_ratio) : galaxy->axis_ratio,
        .angle = galaxy->angle,
        .boxiness = galaxy->edge_on ? galaxy->bulge_boxiness : 2,
        .colour = galaxy->colour + .35f,
    };
    if (bulge > 0)
        survey_add_sersic(canvas, &spheroid);
    if (bulge < 1)
        add_disc(canvas, galaxy, flux * (1 - bulge));
    add_knots(canvas, galaxy, flux);
    if (galaxy->companion > 0) {
        struct survey_sersic second = galaxy->second;
        second.flux *= flux;
        survey_add_sersic(canvas, &second);
    }
}

static void add_field(struct survey_canvas *canvas, const struct survey_galaxy *galaxy)
{
    float area = (float)(canvas->side * canvas->side) / (REFERENCE_SIDE * REFERENCE_SIDE);
    for (int i = 0; i < galaxy->objects; i++) {
        const struct survey_object *object = &galaxy->object[i];
        if (object->radius <= 0) {
            add_point(canvas, object->x, object->y, object->flux * area, object->colour);
            continue;
        }
        struct survey_sersic small = {.x = object->x,
                                      .y = object->y,
                                      .flux = object->flux * area,
                                      .radius = object->radius,
                                      .index = 1,
                                      .axis_ratio = .8f,
                                      .boxiness = 2,
                                      .colour = object->colour};
        survey_add_sersic(canvas, &small);
    }
}

/* The right half of a normalised Gaussian kernel. Returns its radius in pixels. */
static int gaussian(float sigma, float *kernel)
{
    int radius = (int)ceilf(4 * sigma);
    radius = radius > KERNEL_RADIUS_MAX ? KERNEL_RADIUS_MAX : radius;
    float sum = 0;
    for (int i = 0; i <= radius; i++) {
        kernel[i] = expf(-.5f * (float)(i * i) / (sigma * sigma));
        sum += i ? 2 * kernel[i] : kernel[i];
    }
    for (int i = 0; i <= radius; i++)
        kernel[i] /= sum;
    return radius;
}

/* Half-sample reflection, so that a symmetric kernel loses nothing over the border. */
static int reflect(int at, int side)
{
    while (at < 0 || at >= side)
        at = at < 0 ? -1 - at : 2 * side - 1 - at;
    return at;
}

/* Blurs the rows of `from` into the columns of `to`: two calls blur both ways and turn the plane back. */
static void blur_transposed(const float *from, float *to, int side, const float *kernel, int radius)
{
    float line[SURVEY_SIDE_MAX + 2 * KERNEL_RADIUS_MAX], blurred[SURVEY_SIDE_MAX];
    for (int y = 0; y < side; y++) {
        for (int x = -radius; x < side + radius; x++)
            line[x + radius] = from[y * side + (x >= 0 && x < side ? x : reflect(x, side))];
        for (int x = 0; x < side; x++)
            blurred[x] = kernel[0] * line[x + radius];
        for (int k = 1; k <= radius; k++)
            for (int x = 0; x < side; x++)
                blurred[x] += kernel[k] * (line[x + radius - k] + line[x + radius + k]);
        for (int x = 0; x < side; x++)
            to[x * side + y] = blurred[x];
    }
}

void survey_blur(struct survey_canvas *canvas, float seeing)
{
    float sigma = seeing * (float)canvas->side / 2.3548f, kernel[KERNEL_RADIUS_MAX + 1];
    size_t pixels = (size_t)canvas->side * (size_t)canvas->side;
    for (int c = 0; c < canvas->channels; c++) {
        /* Core, then nine parts of it and one part of itself blurred on to three times the width. */
        int radius = gaussian(sigma, kernel);
        float *plane = canvas->plane[c], *turned = canvas->scratch[0], *wide = canvas->scratch[1];
        blur_transposed(plane, turned, canvas->side, kernel, radius);
        blur_transposed(turned, plane, canvas->side, kernel, radius);
        radius = gaussian(sigma * sqrtf(8), kernel);
        blur_transposed(plane, turned, canvas->side, kernel, radius);
        blur_transposed(turned, wide, canvas->side, kernel, radius);
        for (size_t i = 0; i < pixels; i++)
            plane[i] = .9f * plane[i] + .1f * wide[i];
    }
}

/* Spikes and halo of a saturated star: made in the telescope, so not blurred again. */
static float star_at(const struct survey_galaxy *galaxy, float dx, float dy)
{
    float cosine = cosf(galaxy->artefact_angle), sine = sinf(galaxy->artefact_angle);
    float u = fabsf(dx * cosine + dy * sine), v = fabsf(dy * cosine - dx * sine);
    float length = .05f + .12f * galaxy->artefact_strength, width = .4f * galaxy->seeing;
    float spikes =
        expf(-u / length - .5f * v * v / (width * width)) + expf(-v / length - .5f * u * u / (width * width));
    float halo = powf(1 + (dx * dx + dy * dy) / (galaxy->seeing * galaxy->seeing), -1.4f);
    float core = (dx * dx + dy * dy) < .0009f * (1 + 2 * galaxy->artefact_strength) ? 300 : 0;
    return 120 * spikes + 500 * halo + core;
}

static float trail_at(const struct survey_galaxy *galaxy, float dx, float dy)
{
    float across = (dy * cosf(galaxy->artefact_angle) - dx * sinf(galaxy->artefact_angle) - .02f) / galaxy->seeing;
    return 70 * galaxy->artefact_strength * expf(-.5f * across * across);
}

static void add_artefact(struct survey_canvas *canvas, const struct survey_galaxy *galaxy)
{
    if (galaxy->artefact != SURVEY_STAR && galaxy->artefact != SURVEY_TRAIL)
        return;
    float weight[3], inverse = 1 / (float)canvas->side;
    colour_weights(canvas, galaxy->colour, weight);
    for (int y = 0; y < canvas->side; y++)
        for (int x = 0; x < canvas->side; x++) {
            float dx = ((float)x + .5f) * inverse - galaxy->x, dy = ((float)y + .5f) * inverse - galaxy->y;
            float light = galaxy->artefact == SURVEY_STAR ? star_at(galaxy, dx, dy) : trail_at(galaxy, dx, dy);
            add(canvas, y * canvas->side + x, light, weight);
        }
}

/* Dead columns are black, bleeding ones white, from the centre outwards. */
static void break_columns(struct survey_canvas *canvas, const struct survey_galaxy *galaxy)
{
    int count = 2 + (int)(7 * galaxy->artefact_strength);
    for (int i = 0; i < count; i++) {
        float offset = .3f * galaxy->artefact_strength * sinf(5 * (float)i + 3 * galaxy->artefact_angle);
        int column = (int)((galaxy->x + offset) * (float)canvas->side);
        if (column < 0 || column >= canvas->side)
            continue;
        for (int y = 0; y < canvas->side; y++)
            for (int c = 0; c < canvas->channels; c++)
                canvas->plane[c][y * canvas->side + column] = i % 3 ? -10.f : STRETCH_WHITE;
    }
}

/* Poisson noise of light and sky, and read noise. With 150 electrons of sky a Poisson number is Gaussian
 * enough. */
static void add_noise(struct survey_canvas *canvas, const struct survey_galaxy *galaxy)
{
    const float unit = sqrtf(SKY_ELECTRONS + READ_ELECTRONS * READ_ELECTRONS); /* electrons per unit of light */
    uint32_t pixels = (uint32_t)(canvas->side * canvas->side);
    for (int c = 0; c < canvas->channels; c++)
        for (uint32_t i = 0; i < pixels; i += 4) {
            struct philox words =
                philox(galaxy->seed, (uint32_t)c << 24 | i / 4, galaxy->number, NOISE_STAGE, PHILOX_SURVEY);
            float normal[4];
            philox_normal(words.word[0], words.word[1], normal);
            philox_normal(words.word[2], words.word[3], normal + 2);
            for (uint32_t k = 0; k < 4 && i + k < pixels; k++) {
                float *light = &canvas->plane[c][i + k];
                *light += sqrtf(1 + fmaxf(0, *light) / unit) * normal[k];
            }
        }
}

/* The same asinh of the mean light for all channels, so that bright centres keep their colour (Lupton et al.
 * 2004). */
static void stretch(const struct survey_canvas *canvas, uint8_t *pixels)
{
    const float gain = 255 / asinhf((STRETCH_WHITE - STRETCH_BLACK) / STRETCH_SOFTEN);
    int count = canvas->side * canvas->side, channels = canvas->channels;
    for (int i = 0; i < count; i++) {
        float band[3], mean = 0, largest = 0;
        for (int c = 0; c < channels; c++)
            mean += (band[c] = canvas->plane[c][i] - STRETCH_BLACK) / (float)channels;
        float scaled = fmaxf(mean, 0) / STRETCH_SOFTEN;
        float factor = gain / STRETCH_SOFTEN * (scaled > 1e-3f ? asinhf(scaled) / scaled : 1);
        for (int c = 0; c < channels; c++)
            largest = fmaxf(largest, band[c] *= factor);
        for (int c = 0; c < channels; c++) {
            float value = largest > 255 ? band[c] * (255 / largest) : band[c];
            pixels[i * channels + c] = (uint8_t)(fmaxf(0, value) + .5f);
        }
    }
}

void survey_render(struct survey_canvas *canvas, const struct survey_galaxy *galaxy, uint8_t *pixels)
{
    size_t bytes = (size_t)canvas->side * (size_t)canvas->side * sizeof(float);
    for (int c = 0; c < canvas->channels; c++)
        memset(canvas->plane[c], 0, bytes);
    if (galaxy->artefact != SURVEY_STAR)
        add_galaxy(canvas, galaxy);
    add_field(canvas, galaxy);
    survey_blur(canvas, galaxy->seeing);
    add_artefact(canvas, galaxy);
    add_noise(canvas, galaxy);
    if (galaxy->artefact == SURVEY_COLUMNS)
        break_columns(canvas, galaxy);
    stretch(canvas, pixels);
}
