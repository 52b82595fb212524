/* Small nets, and random values to run them on: what every suite over backends starts from. */
#ifndef TRIAGE_TESTS_SMALL_NETS_H
#define TRIAGE_TESTS_SMALL_NETS_H

#include "model/net.h"

#include <stddef.h>
#include <stdint.h>

#define NETS_SEED 20240229u

/* 0..1, from the counter RNG. */
float uniform(uint32_t stream, size_t element);
float *random_images(const struct net *net, size_t count, uint32_t stream);

/* Random weights, and batch norms and biases that differ from channel to channel. */
float *random_parameters(const struct net *net);

size_t output_floats(const struct net *net);

/* Largest error over largest value; infinite where anything is not finite, or nothing but zeros is wanted. */
double relative_error(const float *have, const float *want, size_t count);

void begin_net(struct net *net, const char *name, int channels, int side, enum padding padding);
struct layer *add_layer(struct net *net, enum layer_kind kind, int in, int out);
void add_conv(struct net *net, int in, int out, int kernel, int stride, int groups);

/* Stem, two residuals in a row (the first one's sum opens the second), narrowing, one more, top, pool. */
void small_net(struct net *net, int channels, int side, enum padding padding);

/* A residual around a single convolution, opened by a convolution that nothing is folded into. */
void bare_net(struct net *net, int side);

/*
 * Bias, ReLU and max pooling in every surrounding: folded, after a convolution without bias, after batch norm, after an addition,
 * and where a residual opens; pools that leave a border over, one of values below zero; a dense layer at the end. `side` from 14 on.
 */
void plain_net(struct net *net, int channels, int side, enum padding padding);

/* --- nets of one layer --- */

extern const char *const kind_names[]; /* by enum layer_kind */
extern const size_t batch_sizes[2];

/* What a suite asserts of a net on `count` images. */
typedef void net_check(const struct net *net, size_t count);

/* Small and odd sides, with either padding, in both batches. */
void on_all_sides(struct net *net, net_check *check);

void each_convolution(net_check *check);
void each_other_layer(net_check *check); /* that leaves the shape as it is or pools it */
void each_squeeze_and_excitation(net_check *check);

/* A bias puts values on both sides of zero. Ceilings that some of them reach, squares that leave a border over, and convolutions
 * as large as the image. */
void each_layer_without_norm(net_check *check);

#endif
