/*
 * Weights in the .safetensors format under timm's names: an 8-byte little-endian length, a JSON header {name:
 * {dtype, shape, data_offsets}}, raw little-endian data. A trunk and its head are two files. Not for pickled checkpoints.
 */
#ifndef TRIAGE_MODEL_SAFETENSORS_H
#define TRIAGE_MODEL_SAFETENSORS_H

#include "model/net.h"

/*
 * Fills `parameters` (net.h order). Every tensor of the net must be there once, as F32 with exactly its shape
 * and finite values; names may carry Zoobot's prefix "encoder.". num_batches_tracked counters and a
 * classifier are passed over; any other tensor is an error.
 * The file must say that it is for this net, for its conventions (padding, batch norm's epsilon) show in neither names nor
 * shapes: by `architecture` in its metadata, as safetensors_save() writes it, or else in config.json beside it, as timm and
 * Zoobot publish it. ERROR_INPUT names the tensor (and both shapes) or says what to do; ERROR_NOT_FOUND without a file,
 * ERROR_LIMIT above 1 GiB; on any error `parameters` is untouched.
 */
int safetensors_load(const char *path, const struct net *net, float *parameters);

/* Writes the parameters atomically, tensors in table order, the net's name in the metadata. */
int safetensors_save(const char *path, const struct net *net, const float *parameters);

/* What the outputs of a linear layer behind a net mean; kept in the metadata as `target` and, a JSON list, `outputs`. */
struct safetensors_head {
    const char *target;        /* "votes", "classes", "value" or "binomial" (target.h) */
    const char *const *output; /* [outputs] names of answers or classes */
    int outputs;
};

/* The layer as timm names it: classifier.weight [outputs][net outputs], classifier.bias [outputs]; `values` has them in this
 * order. Loading refuses one for another net, target or other outputs, by ERROR_INPUT, as safetensors_load() does. */
int safetensors_save_head(const char *path, const struct net *net, const struct safetensors_head *head,
                          const float *values);
int safetensors_load_head(const char *path, const struct net *net, const struct safetensors_head *head, float *values);

#endif
