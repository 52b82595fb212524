/*
 * Weights in the .safetensors format under timm's names: an 8-byte little-endian length, a JSON header {name:
 * {dtype, shape, data_offsets}}, raw little-endian data. Not for pickled checkpoints.
 */
#ifndef TRIAGE_MODEL_SAFETENSORS_H
#define TRIAGE_MODEL_SAFETENSORS_H

#include "model/net.h"

/*
 * Fills `parameters` (net.h order). Every tensor of the net must be there once, as F32 with exactly its shape
 * and finite values; names may carry Zoobot's prefix "encoder.". num_batches_tracked counters and a
 * classifier are passed over; any other tensor is an error. ERROR_INPUT names the tensor (and both shapes),
 * ERROR_NOT_FOUND without a file, ERROR_LIMIT above 1 GiB; on any error `parameters` is untouched.
 */
int safetensors_load(const char *path, const struct net *net, float *parameters);

/* Writes the parameters atomically, tensors in table order. */
int safetensors_save(const char *path, const struct net *net, const float *parameters);

#endif
