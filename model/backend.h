/*
 * THE compute seam. A backend turns a net (a table of layers) into a plan once and runs it many times,
 * choosing its own layouts and fusion; and it does the two pool-sized jobs on heads. Implementations: cpu/
 * (oneDNN), gpu/ (CUDA) and tests/support/reference_backend.c (plain loops, the oracle). One conformance suite runs over all of
 * them.
 */
#ifndef TRIAGE_MODEL_BACKEND_H
#define TRIAGE_MODEL_BACKEND_H

#include "model/head_fit.h"
#include "model/information.h"
#include "model/net.h"
#include "model/optimizer.h"
#include "model/schema.h"
#include "model/stored_views.h"

#include <stddef.h>
#include <stdint.h>

struct backend_context; /* threads and scratch memory; one per process */
struct plan;            /* a net compiled for inference */
struct training;        /* a net compiled for training, with the activations of one batch */

/* Asked between bounded blocks of work; non-zero cancels with ERROR_CANCELLED. May be NULL. */
typedef int backend_stop(void *context);

/* One line of text. */
typedef void backend_tell(const char *text);

/* Work on one item, by one of the worker threads (0 .. threads - 1). */
typedef void backend_task(void *context, long item, int worker);

/* What head_score does with the concentrations of each galaxy. */
enum reducer {
    REDUCE_INFORMATION, /* entropies and expected fractions: information_row_floats() floats per row, see
                           information.h */
    REDUCE_DUMP,        /* every concentration: float[passes][answers] per row, passes of the first head first */
};

struct score_request {
    const struct head_set *heads;
    const struct schema *schema;
    const uint16_t *embedding;     /* fp16 rows of `views` times heads->inputs values */
    size_t embedding_stride_bytes; /* from one row to the next */
    const uint64_t *row;           /* [count] rows to read, or NULL for 0 .. count-1 */
    size_t count;
    int views;                  /* embeddings per row, pass t looks at number t % views; 0 = 1 */
    int passes;                 /* T in total, spread evenly over the heads; a multiple of heads->count and of views */
    uint64_t seed;              /* with heads->model it fixes every mask: same ranking for any thread or batch count */
    enum information_kind kind; /* model/information.h */
    const uint16_t *votes_due;  /* [count] votes still expected at the root, N of the mutual information; NULL
                                   for a dump */
    enum reducer reducer;
    float *output; /* [count] rows of what `reducer` says */
};

/* What every backend asks of a request before it scores: ERROR_STATE for heads of another schema or
 * network, ERROR_INPUT for what makes no sense. */
int score_request_check(const struct score_request *request);

/*
 * What a net is computed in. bfloat16 holds weights and what passes between layers, sums are in float; embeddings of a trained
 * net are within about 3 % of float's, of one that was never trained within 10 % (tests/unit/precision_test.c). It is faster
 * where the processor has AVX-512 bf16 instructions; without AVX-512 the cpu backend refuses it, for embeddings in float beside others
 * in bfloat16 would be ranked as if they were alike. TF32 is float everywhere but in products on a GPU, whose factors are rounded to
 * 10 bits of mantissa; elsewhere it is FP32.
 */
enum precision { PRECISION_FP32, PRECISION_BF16, PRECISION_TF32 };

/* What one pass of training depends on besides images and parameters. */
struct train_pass {
    uint64_t seed;
    uint32_t step;       /* of the optimiser; with seed and key it fixes every mask (PHILOX_TRAIN) */
    const uint64_t *key; /* [count] galaxy keys; NULL = 0, 1, ... */
    int live_norm;       /* batch norm: 1 = this batch's statistics, and the running ones follow them by
                            net->momentum; 0 = frozen, the running ones are used */
};

/* Parameters side by side that learn at the same rate, all of one layer. */
struct train_range {
    size_t offset, count; /* in table order (net.h) */
    double factor;        /* of the learning rate */
};

#define TRAIN_RANGES_MAX 4096

/* A device of a backend, and what a net takes of it. */
struct backend_device {
    char name[96], capability[16];
    char error[512]; /* why it cannot be used, with what to do next; "" = it can, and only then what follows is known */
    size_t memory_bytes, free_bytes;
    size_t plan_images,
        plan_bytes; /* of the net: images at a time that fit, and the memory for them; 0 = not even one */
};

#define BACKEND_DEVICES_MAX 16

struct backend_report {
    char versions[256]; /* of driver and libraries */
    int devices;        /* listed: as many as there are, `limit` at most */
    struct backend_device device[BACKEND_DEVICES_MAX];
};

struct backend {
    const char *name;

    /*
     * (NULL in cpu) The first `limit` devices (BACKEND_DEVICES_MAX = all), and how much of each the net would take. Needs no open
     * context, and leaves devices from `limit` on alone: looking at one takes some hundred MB of it until the process ends. A
     * device that cannot be used is listed with its error, and those behind it all the same. An error only where no device can be
     * asked for, or for the net.
     */
    int (*report)(const struct net *net, enum precision precision, int limit, struct backend_report *ret_report);

    /*
     * Starts `threads` workers on the host (0 = one per core this process may use) and takes `devices` devices, ranks that share
     * every batch (not read by cpu).
     */
    int (*open)(int threads, int devices, struct backend_context **ret_context);
    void (*close)(struct backend_context *context); /* NULL is fine */
    int (*threads)(const struct backend_context *context);
    int (*devices)(const struct backend_context *context); /* NULL in cpu */

    /* (NULL in cpu) From now on says what each job is about to take of a device, before it takes it: not again as long as it is
     * the same. By any thread. */
    void (*tell)(struct backend_context *context, backend_tell *tell);

    /* (NULL: whatever it is asked for) What compile() computes in when asked for `wanted`: an enum precision, or ERROR_STATE where
     * it refuses that. */
    int (*precision)(enum precision wanted);

    /* task(task_context, item, worker) for every item once, on the host's worker threads; returns when all are done. */
    void (*for_each)(struct backend_context *context, backend_task *task, void *task_context, long items);

    /*
     * Compiles for inference: batch norm folded, one image per worker thread.
     *   parameters  [net_parameter_count()] floats in table order (net.h); copied, the caller keeps them
     */
    int (*compile)(struct backend_context *context, const struct net *net, const float *parameters,
                   enum precision precision, struct plan **ret_plan);
    void (*free_plan)(struct plan *plan); /* NULL is fine */

    /*
     * images   [count][side][side][channels] floats 0..1, channels last
     * outputs  [count][net outputs] OUTPUT
     */
    int (*forward)(struct plan *plan, const float *images, size_t count, float *outputs);

    /* (NULL in cpu) The same on views, looked up where the net runs: with the bits of stored_view(), but for AUGMENT_W20's mean,
     * which is summed in another order. */
    int (*forward_views)(struct plan *plan, const struct stored_views *views, size_t count, float *outputs);

    /*
     * Fills every batch-norm running mean and (unbiased) variance in `parameters` with the statistics of this
     * one batch, layer by layer, so that a net of random weights gives well-scaled embeddings.
     */
    int (*calibrate)(struct backend_context *context, const struct net *net, const float *images, size_t count,
                     float *parameters);

    /*
     * Compiles for training on up to `batch_limit` images at a time. Activations are kept for the backward pass: for
     * EfficientNet-B0 at 224 pixels about 65 MB per image. Results are the same bits for the same number of threads,
     * and the same within rounding for any.
     */
    int (*open_training)(struct backend_context *context, const struct net *net, size_t batch_limit,
                         struct training **ret_training);
    void (*close_training)(struct training *training); /* NULL is fine */

    /*
     * One pass in training mode: batch norm as `pass` says, stochastic depth on (Huang et al. 2016; a branch is dropped
     * per image with the layer's `drop`, or scaled by 1 / (1 - drop)).
     *   parameters  [net_parameter_count()], the running statistics are updated in place
     *   images      as in forward; kept by the caller until train_backward() is done
     *   outputs     [count][net outputs] OUTPUT
     */
    int (*train_forward)(struct training *training, float *parameters, const float *images, size_t count,
                         const struct train_pass *pass, float *outputs);

    /* (NULL in cpu) The same on views, as forward_views. */
    int (*train_forward_views)(struct training *training, float *parameters, const struct stored_views *views,
                               size_t count, const struct train_pass *pass, float *outputs);

    /*
     * Gradients of the last train_forward().
     *   output_gradients  [count][net outputs]: d loss / d outputs
     *   first_layer       index of the lowest layer wanted; gradients below stay zero and cost nothing. 0 = all
     *   gradients         [net_parameter_count()] OUTPUT; zero for running statistics
     *   image_gradients   [count][side][side][channels] OUTPUT, only with first_layer 0; NULL = not wanted
     */
    int (*train_backward)(struct training *training, const float *parameters, const float *output_gradients,
                          int first_layer, float *gradients, float *image_gradients);

    /*
     * (All four NULL in cpu.) Learning without the parameters' leaving the device. train_hold() copies parameters and AdamW's moments
     * there, [net_parameter_count()] each; from then on `parameters` NULL of a pass means those held, running statistics included,
     * and `gradients` NULL leaves the gradients there. train_squares() sums the squares of the gradients over these ranges, in
     * fixed order; train_update() is adamw_update() (the same bits) on each range at learning_rate * factor; train_fetch() copies back.
     * At most TRAIN_RANGES_MAX ranges.
     */
    int (*train_hold)(struct training *training, const float *parameters, const float *moment1, const float *moment2);
    int (*train_squares)(struct training *training, const struct train_range *range, int ranges, double *ret_squares);
    int (*train_update)(struct training *training, const struct train_range *range, int ranges,
                        const struct adamw *adamw);
    int (*train_fetch)(struct training *training, float *parameters, float *moment1, float *moment2);

    /* Fits the heads in place; see head_fit.h for the recipe. */
    int (*head_fit)(struct backend_context *context, const struct fit_request *request, struct head_set *heads,
                    struct fit_report *ret_report);

    /*
     * Streams embeddings through heads x passes and reduces. The same bits for any number of threads, split
     * or order of rows. ERROR_CANCELLED leaves `output` partly written.
     */
    int (*head_score)(struct backend_context *context, const struct score_request *request, backend_stop *stop,
                      void *stop_context);
};

#endif
