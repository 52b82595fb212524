/* Nets compiled for inference on the device; contracts as in model/backend.h. Used by backend_cuda.cu only. */
#ifndef TRIAGE_GPU_NET_H
#define TRIAGE_GPU_NET_H

#include "gpu/context.h"

int gpu_compile(struct backend_context *context, const struct net *net, const float *parameters,
                enum precision precision, struct plan **ret_plan);
void gpu_free_plan(struct plan *plan);
int gpu_forward(struct plan *plan, const float *images, size_t count, float *outputs);
int gpu_forward_views(struct plan *plan, const struct stored_views *views, size_t count, float *outputs);

#endif
