/* See stored_views.h. */
#include "model/stored_views.h"
#include "model/backend.h"

void stored_view_look(const struct stored_views *views, size_t item, int side, struct augment_look *ret_look)
{
    if (views->view == VIEW_PLAIN)
        augment_look_plain(views->augmentation, views->pixel_side, side, ret_look);
    else
        augment_look_random(views->augmentation, views->pixel_side, side, views->seed, views->key[item],
                            (uint32_t)views->view, ret_look);
}

void stored_view(const struct stored_views *views, size_t item, int side, int channels, float *input)
{
    struct augment_source source = {views->pixels + views->row[item] * views->stride_bytes, views->pixel_side,
                                    channels};
    if (views->view == VIEW_PLAIN)
        augment_plain(views->augmentation, &source, side, input);
    else
        augment(views->augmentation, &source, side, views->seed, views->key[item], (uint32_t)views->view, input);
}

struct looking {
    const struct stored_views *views;
    const struct net *net;
    float *images;
};

static void look(void *context, long item, int worker)
{
    const struct looking *looking = context;
    const struct net *net = looking->net;
    size_t floats = (size_t)net->side * (size_t)net->side * (size_t)net->channels;
    (void)worker;
    stored_view(looking->views, (size_t)item, net->side, net->channels, looking->images + (size_t)item * floats);
}

void stored_views_look(const struct backend *backend, struct backend_context *context, const struct net *net,
                       const struct stored_views *views, size_t count, float *images)
{
    struct looking looking = {views, net, images};
    backend->for_each(context, look, &looking, (long)count);
}

int stored_views_forward(const struct backend *backend, struct backend_context *context, const struct net *net,
                         struct plan *plan, const struct stored_views *views, size_t count, float *images,
                         float *outputs)
{
    if (backend->forward_views)
        return backend->forward_views(plan, views, count, outputs);
    stored_views_look(backend, context, net, views, count, images);
    return backend->forward(plan, images, count, outputs);
}

int stored_views_train(const struct backend *backend, struct backend_context *context, const struct net *net,
                       struct training *training, float *parameters, const struct stored_views *views, size_t count,
                       const struct train_pass *pass, float *images, float *outputs)
{
    if (backend->train_forward_views)
        return backend->train_forward_views(training, parameters, views, count, pass, outputs);
    stored_views_look(backend, context, net, views, count, images);
    return backend->train_forward(training, parameters, images, count, pass, outputs);
}
