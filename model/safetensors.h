/*
 * Weights in the .safetensors format under timm's names: an 8-byte little-endian length, a JSON header, raw data.
 * Only 32-bit floats are taken; num_batches_tracked counters and a classifier are passed over.
 */
#ifndef TRIAGE_MODEL_SAFETENSORS_H
#define TRIAGE_MODEL_SAFETENSORS_H

#include "model/net.h"

/*
 * Fills `parameters` (net.h order). Every tensor of the net must be there with exactly its shape; names may carry
 * Zoobot's prefix "encoder.". ERROR_INPUT names the tensor and both shapes; on any error `parameters` is untouched.
 */
int safetensors_load(const char *path, const struct net *net, float *parameters);

/* Writes the parameters atomically. */
int safetensors_save(const char *path, const struct net *net, const float *parameters);

#endif
