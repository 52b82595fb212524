/* Training of nets on the device; contracts as in model/backend.h. Used by backend_cuda.cu only. */
#ifndef TRIAGE_GPU_TRAIN_H
#define TRIAGE_GPU_TRAIN_H

#include "gpu/context.h"

int gpu_open_training(struct backend_context *context, const struct net *net, size_t batch_limit,
                      struct training **ret_training);
void gpu_close_training(struct training *training);
int gpu_train_forward(struct training *training, float *parameters, const float *images, size_t count,
                      const struct train_pass *pass, float *outputs);
int gpu_train_forward_views(struct training *training, float *parameters, const struct stored_views *views,
                            size_t count, const struct train_pass *pass, float *outputs);
int gpu_train_backward(struct training *training, const float *parameters, const float *output_gradients,
                       int first_layer, float *gradients, float *image_gradients);
int gpu_train_hold(struct training *training, const float *parameters, const float *moment1, const float *moment2);
int gpu_train_fetch(struct training *training, float *parameters, float *moment1, float *moment2);
int gpu_train_squares(struct training *training, const struct train_range *range, int ranges, double *ret_squares);
int gpu_train_update(struct training *training, const struct train_range *range, int ranges, const struct adamw *adamw);
int gpu_calibrate(struct backend_context *context, const struct net *net, const float *images, size_t count,
                  float *parameters);

#endif
