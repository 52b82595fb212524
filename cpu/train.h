/* Nets in training on the cpu backend; contracts in model/backend.h. Used by backend_cpu.c only. */
#ifndef TRIAGE_CPU_TRAIN_H
#define TRIAGE_CPU_TRAIN_H

#include "base/workers.h"
#include "model/backend.h"

int cpu_open_training(struct workers *workers, const struct net *net, size_t batch_limit,
                      struct training **ret_training);
void cpu_close_training(struct training *training);
int cpu_train_forward(struct training *training, float *parameters, const float *images, size_t count,
                      const struct train_pass *pass, float *outputs);
int cpu_train_backward(struct training *training, const float *parameters, const float *output_gradients,
                       int first_layer, float *gradients, float *image_gradients);

#endif
