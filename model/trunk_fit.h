/*
 * Teaching a net: trunk and a linear head together, from pixels and labels, with augmentation, AdamW, early stopping and a
 * checkpoint after which a run goes on bit for bit as if it had never stopped. Not for heads on cached embeddings (head_fit.h),
 * files of galaxies or progress lines (daemon/).
 *
 * The loss is the mean over a batch of target_loss() of: net -> dropout -> linear. One epoch shuffles the training rows
 * (Fisher and Yates, PHILOX_SHUFFLE) and takes whole batches; the rest of an epoch that fills none waits for the next
 * epoch's shuffle. After each epoch the validation loss is the mean over the validation rows, without dropout and
 * on the recipe's plain view (augment.h), through the net compiled for inference (running batch-norm statistics). The values of the best epoch are the
 * result; the start counts as epoch 0, so that a fit never ends worse than it began. The same bits for a number of threads.
 */
#ifndef TRIAGE_MODEL_TRUNK_FIT_H
#define TRIAGE_MODEL_TRUNK_FIT_H

#include "model/augment.h"
#include "model/backend.h"
#include "model/optimizer.h"
#include "model/target.h"

#include <stddef.h>
#include <stdint.h>

#define TRUNK_FIT_EPOCHS_MAX 10000
#define TRUNK_FIT_BATCH_MAX  1024
#define TRUNK_FIT_BLOCKS_MAX 64
#define TRUNK_MEANS_BYTES    32

struct trunk_recipe {
    double learning_rate, weight_decay;
    double block_decay; /* block b from the top learns at learning_rate * block_decay^b; the head at learning_rate */
    double clip_norm;   /* of the whole gradient; 0 = not clipped */
    double dropout;     /* between trunk and head */
    double stochastic_depth; /* of the last residual block, growing linearly from 0 at the first (Huang et al. 2016) */
    enum schedule schedule;
    enum augmentation augmentation;
    int blocks;    /* trained, from the top; 0 = only the head; TRUNK_FIT_BLOCKS_MAX = all */
    int live_norm; /* batch norm by this batch, running statistics follow, everywhere; 0 = frozen everywhere */
    int batch, epochs_max, patience, warmup_epochs;
    uint64_t seed;
};

/* Galaxies, one row each; all memory is the caller's and stays where it is. */
struct trunk_data {
    const uint8_t *pixels; /* [pixel_side][pixel_side][channels] per row */
    size_t pixels_stride_bytes;
    int pixel_side;
    const float *labels; /* [outputs] per row, see target.h */
    const uint64_t *key; /* per row: what the randomness of a galaxy hangs on */
    const uint64_t *train_row, *validation_row;
    size_t train_count, validation_count;
};

/* What one epoch came to. */
struct trunk_epoch {
    double learning_rate; /* of its last step */
    double train_loss;    /* per galaxy, as trained: with dropout and augmentation */
    double validation_loss;
    double quality; /* on the validation rows: share of right classes; RMSE of vote fractions or values */
    /* TARGET_VOTES, validation: mean over galaxies with votes on the question, and RMSE of its vote fractions */
    float question_loss[SCHEMA_QUESTIONS_MAX], question_rmse[SCHEMA_QUESTIONS_MAX];
};

struct trunk_fit;

/*
 * Opens a run at its beginning; the first step judges where it starts.
 *   values  [trunk_fit_values(net, target)] where to start from: the net's parameters in table order, then the head's weight
 *           [outputs][net outputs] and bias [outputs]; copied
 * ERROR_INPUT for data that teach nothing (no labelled galaxy, fewer than two, classes that are all the same) or a recipe
 * that makes no sense; ERROR_SYSTEM without memory. `target`, `data` and `net` are copied, what they point to is not.
 */
int trunk_fit_open(const struct backend *backend, struct backend_context *context, const struct net *net,
                   const struct target *target, const struct trunk_recipe *recipe, const struct trunk_data *data,
                   const float *values, struct trunk_fit **ret_fit);
void trunk_fit_close(struct trunk_fit *fit); /* NULL is fine */

/* Floats of trunk and head together. */
size_t trunk_fit_values(const struct net *net, const struct target *target);

/*
 * Where a net that was never trained starts: net_random_parameters(); head weights U(-1, 1) / sqrt(inputs), biases 0, or for
 * votes the constant Dirichlet fit of the training rows.
 */
int trunk_fit_random(const struct net *net, const struct target *target, const struct trunk_data *data, uint64_t seed,
                     float *values);

/* The head alone, as trunk_fit_random() makes it, behind a trunk that is already there. */
int trunk_fit_random_head(const struct net *net, const struct target *target, const struct trunk_data *data,
                          uint64_t seed, float *values);

/*
 * "Shrink and perturb" (Ash & Adams 2020, arXiv 1910.08475): share * values + (1 - share) * freshly drawn ones, drawn with
 * trunk_fit_fresh_seed(seed), for with the run's own they could be where the values once began. Running statistics stay as they
 * are: they follow the weights as the run goes on, if its batch norm is live.
 */
uint64_t trunk_fit_fresh_seed(uint64_t seed);
int trunk_fit_shrink(const struct net *net, const struct target *target, const struct trunk_data *data, uint64_t seed,
                     double share, float *values);

/*
 * Takes the next batch, or after the last one of an epoch (and before the first of all) judges the next batch of validation
 * galaxies: every step is bounded. Returns 1 when the run is over (epochs or patience), 0 to go on, negative on error:
 * ERROR_INPUT for a loss or gradient that is not finite, in training or validation (trunk_fit_bad_row() names the galaxy; the
 * best values stay as they are).
 */
int trunk_fit_step(struct trunk_fit *fit);

/* Row of the galaxy whose loss was not finite, or the largest of its batch where the gradient was not. */
uint64_t trunk_fit_bad_row(const struct trunk_fit *fit);

/* Epochs finished, and what they came to (epoch 1 first; index 0 is the start). */
int trunk_fit_epochs(const struct trunk_fit *fit);
const struct trunk_epoch *trunk_fit_epoch(const struct trunk_fit *fit, int epoch);
int trunk_fit_best_epoch(const struct trunk_fit *fit);

/* Share of the run's batches that are done, if it goes to epochs_max. */
double trunk_fit_progress(const struct trunk_fit *fit);
int trunk_fit_steps_per_epoch(const struct trunk_fit *fit);

/* The values of the best epoch; valid while the fit is open. */
const float *trunk_fit_best(const struct trunk_fit *fit);

/*
 * The whole state of a run in one file, written durably: values, moments, best values, counters, curve. Loading refuses, with
 * the reason, a file that is cut short or damaged, of another version, of another net, target (its class weights included),
 * schema, recipe or data (ERROR_INPUT or ERROR_STATE); the fit is untouched by a failure. `ret_means` are those of the run so far:
 * with the same ones it ends with the same bytes as a run that never stopped, with others within rounding.
 */
int trunk_fit_save(struct trunk_fit *fit, const char *path);
int trunk_fit_load(struct trunk_fit *fit, const char *path, char ret_means[TRUNK_MEANS_BYTES]);

/* What the sums of this fit are shared among, "cpu, 4 threads" or "cuda, 2 devices". */
void trunk_fit_means(const struct trunk_fit *fit, char means[TRUNK_MEANS_BYTES]);

/* Predictions of rows under `values`, [count][outputs], without dropout, on the plain view; `views` > 1 averages over random ones. */
int trunk_fit_predict(const struct trunk_fit *fit, const float *values, const uint64_t *row, size_t count, int views,
                      float *predictions);

/* The losses and quality of rows under `values` (never those of training), on the plain view, as after an epoch. A judging
 * that a step has begun begins again. ERROR_INPUT as trunk_fit_step(). */
int trunk_fit_judge(struct trunk_fit *fit, const float *values, const uint64_t *row, size_t count,
                    struct trunk_epoch *ret_judged);

/* Number of the block each layer belongs to, from the top (0): a stage of residual blocks counts as one, what comes after
 * the last of them belongs to it, and what comes before the first is one more. block [net->layers] OUTPUT; returns how many
 * there are. */
int net_blocks(const struct net *net, int *block);

#endif
