/* head_fit on the device; the recipe is that of model/head_fit.h. Used by backend_cuda.cu only. */
#ifndef TRIAGE_GPU_FIT_H
#define TRIAGE_GPU_FIT_H

#include "gpu/context.h"

int gpu_head_fit(struct backend_context *context, const struct fit_request *request, struct head_set *heads,
                 struct fit_report *ret_report);

#endif
