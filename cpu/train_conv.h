/*
 * One convolution of a net in training, on a fixed number of images: forward, backward to its input and backward to
 * its weights, through oneDNN on channels-last tensors. Used by train.c only. Depthwise 5 x 5 weights, for which oneDNN
 * has no fast code in any version, are in train_kernels.h.
 *
 * One object may be used by several threads at once, each with a scratch of its own; train_conv_place() only by one.
 */
#ifndef TRIAGE_CPU_TRAIN_CONV_H
#define TRIAGE_CPU_TRAIN_CONV_H

#include "model/net.h"

#include <stddef.h>

struct dnnl_engine; /* oneDNN's: one for all convolutions and lanes of a net */
struct train_conv;
struct train_conv_lane; /* stream and scratch of one thread */

int train_conv_engine_open(struct dnnl_engine **ret_engine);
void train_conv_engine_close(struct dnnl_engine *engine); /* NULL is fine */

/* `side`: of the input. ERROR_SYSTEM if oneDNN cannot. */
int train_conv_open(struct dnnl_engine *engine, const struct net *net, const struct layer *layer, int side,
                    size_t images, struct train_conv **ret_conv);
void train_conv_close(struct train_conv *conv); /* NULL is fine */

/* Scratch bytes a lane needs for this convolution. */
size_t train_conv_scratch_bytes(const struct train_conv *conv);
int train_conv_lane_open(struct dnnl_engine *engine, size_t scratch_bytes, struct train_conv_lane **ret_lane);
void train_conv_lane_close(struct train_conv_lane *lane); /* NULL is fine */

/* Brings weights [out][in / groups][kernel][kernel] into the layouts of forward and backward; after every step. */
int train_conv_place(struct train_conv *conv, const float *weights, struct train_conv_lane *lane);

/* source [images][side][side][in], target [images][output side][output side][out]; gradients are shaped like them. */
int train_conv_forward(const struct train_conv *conv, struct train_conv_lane *lane, const float *source, float *target);
int train_conv_backward(const struct train_conv *conv, struct train_conv_lane *lane, const float *target_gradient,
                        float *source_gradient);
/* weight_gradient [out][in / groups][kernel][kernel], overwritten. */
int train_conv_backward_weights(const struct train_conv *conv, struct train_conv_lane *lane, const float *source,
                                const float *target_gradient, float *weight_gradient);

#endif
