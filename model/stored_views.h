/*
 * Views of stored images as a job asks for them: which images of a column, looked at how (augment.h). A backend that has
 * `forward_views` looks where it computes, and bytes instead of floats travel; elsewhere the host's threads look.
 */
#ifndef TRIAGE_MODEL_STORED_VIEWS_H
#define TRIAGE_MODEL_STORED_VIEWS_H

#include "model/augment_look.h"

#include <stddef.h>
#include <stdint.h>

struct backend;
struct backend_context;
struct plan;
struct training;
struct train_pass;
struct net;

#define VIEW_PLAIN (-1)

struct stored_views {
    const uint8_t *pixels; /* of the column's first image, [pixel_side][pixel_side][channels of the net] each */
    size_t stride_bytes;   /* from one image to the next */
    int pixel_side;        /* at least the net's */
    const uint64_t *row;   /* [count] of the column */
    const uint64_t *key;   /* [count] galaxy keys; not read for plain views */
    enum augmentation augmentation;
    uint64_t seed;
    int view; /* of augment(), or VIEW_PLAIN */
};

/* How view number `item` is looked up for a net of `side` pixels. */
void stored_view_look(const struct stored_views *views, size_t item, int side, struct augment_look *ret_look);

/* View number `item`: input [side][side][channels] OUTPUT. */
void stored_view(const struct stored_views *views, size_t item, int side, int channels, float *input);

/* All of them by the host's threads: images [count][side][side][channels] OUTPUT. */
void stored_views_look(const struct backend *backend, struct backend_context *context, const struct net *net,
                       const struct stored_views *views, size_t count, float *images);

/* forward() and train_forward() of model/backend.h on views; `images` is memory for all of them, filled where the backend does not
 * look itself. */
int stored_views_forward(const struct backend *backend, struct backend_context *context, const struct net *net,
                         struct plan *plan, const struct stored_views *views, size_t count, float *images,
                         float *outputs);
int stored_views_train(const struct backend *backend, struct backend_context *context, const struct net *net,
                       struct training *training, float *parameters, const struct stored_views *views, size_t count,
                       const struct train_pass *pass, float *images, float *outputs);

#endif
