/* head_score on the device; the contract is that of model/backend.h. Used by backend_cuda.cu only. */
#ifndef TRIAGE_GPU_SCORE_H
#define TRIAGE_GPU_SCORE_H

#include "gpu/context.h"
#include "gpu/kernels_heads.h"

int gpu_head_score(struct backend_context *context, const struct score_request *request, backend_stop *stop,
                   void *stop_context);

/* A schema as kernels need it. */
void tree_of(const struct schema *schema, struct tree *ret_tree);

#endif
