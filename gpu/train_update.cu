/*
 * AdamW where the parameters are: they and their moments stay on the device from step to step. Every rank has all of them and does the
 * same, on gradients that are the same.
 */
#include "gpu/train.h"
#include "gpu/train_state.h"

/* Up, by way of the pinned parameters. */
static int send(struct training *training, float *device, const float *plain)
{
    train_pack(training, training->staged_parameters, plain);
    CHECK_CUDA(cudaMemcpyAsync(device, training->staged_parameters, training->padded_count * sizeof(float),
                               cudaMemcpyHostToDevice, training->context->compute));
    CHECK_CUDA(cudaStreamSynchronize(training->context->compute));
    return 0;
}

static int bring(struct training *training, const float *device, float *plain)
{
    CHECK_CUDA(cudaMemcpyAsync(training->staged_parameters, device, training->padded_count * sizeof(float),
                               cudaMemcpyDeviceToHost, training->context->compute));
    CHECK_CUDA(cudaStreamSynchronize(training->context->compute));
    train_unpack(training, training->staged_parameters, plain);
    return 0;
}

int gpu_train_hold(struct training *training, const float *parameters, const float *moment1, const float *moment2)
{
    for (int r = 0; r < ranks_count(training->context); r++) {
        struct training *one = training->rank[r];
        CHECK_CUDA(cudaSetDevice(one->context->device));
        RETURN_IF(send(one, one->parameters, parameters));
        RETURN_IF(send(one, one->moment1, moment1));
        RETURN_IF(send(one, one->moment2, moment2));
        one->held = 1;
    }
    return 0;
}

int gpu_train_fetch(struct training *training, float *parameters, float *moment1, float *moment2)
{
    if (!training->held)
        return error_set(ERROR_STATE, "nothing of %s is held on the device", training->net.name);
    CHECK_CUDA(cudaSetDevice(training->context->device));
    RETURN_IF(bring(training, training->parameters, parameters));
    RETURN_IF(bring(training, training->moment1, moment1));
    return bring(training, training->moment2, moment2);
}

/* Where a range of parameters in table order lies among those with every layer aligned. */
static int place_range(const struct training *training, const struct train_range *range, struct update_range *ret_range)
{
    size_t start = 0;
    for (int i = 0; i < training->net.layers; i++) {
        size_t count = layer_parameter_count(&training->net.layer[i]);
        if (range->offset >= start && range->offset + range->count <= start + count) {
            ret_range->at = training->place[i] + range->offset - start;
            ret_range->count = range->count;
            return 0;
        }
        start += count;
    }
    return error_set(ERROR_INPUT, "parameters %zu to %zu are not of one layer of %s", range->offset,
                     range->offset + range->count, training->net.name);
}

/* Ranges and their factors to the device. */
static int send_ranges(struct training *training, const struct train_range *range, int ranges,
                       const struct adamw *adamw)
{
    if (!training->held || ranges < 0 || ranges > TRAIN_RANGES_MAX)
        return error_set(ERROR_STATE, "%d ranges of parameters, held %d: hold parameters first, and at most %d", ranges,
                         training->held, TRAIN_RANGES_MAX);
    CHECK_CUDA(cudaSetDevice(training->context->device));
    for (int i = 0; i < ranges; i++) {
        struct adamw own = *adamw;
        own.learning_rate *= range[i].factor;
        RETURN_IF(place_range(training, &range[i], &training->staged_ranges[i]));
        training->staged_ranges[i].factors = adamw_factors(&own);
    }
    CHECK_CUDA(cudaMemcpyAsync(training->ranges, training->staged_ranges, (size_t)ranges * sizeof *training->ranges,
                               cudaMemcpyHostToDevice, training->context->compute));
    return 0;
}

int gpu_train_squares(struct training *training, const struct train_range *range, int ranges, double *ret_squares)
{
    const struct adamw none = {0, 0, 1, 1};
    cudaStream_t stream = training->context->compute;
    *ret_squares = 0;
    if (!ranges)
        return 0;
    RETURN_IF(send_ranges(training, range, ranges, &none));
    struct square_ranges::arguments arguments = {training->ranges, training->gradients, training->squares};
    RETURN_IF(launch<square_ranges>(stream, (size_t)ranges, arguments));
    CHECK_CUDA(cudaMemcpyAsync(training->staged_squares, training->squares, (size_t)ranges * sizeof(double),
                               cudaMemcpyDeviceToHost, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    for (int i = 0; i < ranges; i++)
        *ret_squares += training->staged_squares[i];
    return 0;
}

int gpu_train_update(struct training *training, const struct train_range *range, int ranges, const struct adamw *adamw)
{
    for (int r = 0; r < ranks_count(training->context) && ranges; r++) {
        struct training *one = training->rank[r];
        RETURN_IF(send_ranges(one, range, ranges, adamw));
        struct update_ranges::arguments arguments = {one->ranges, one->gradients, one->parameters, one->moment1,
                                                     one->moment2};
        RETURN_IF(launch<update_ranges>(one->context->compute, (size_t)ranges * UPDATE_BLOCKS, arguments));
    }
    for (int r = 0; r < ranks_count(training->context) && ranges; r++) { /* the staged ranges are free again */
        CHECK_CUDA(cudaSetDevice(training->rank[r]->context->device));
        CHECK_CUDA(cudaStreamSynchronize(training->rank[r]->context->compute));
    }
    return 0;
}
