/* See pass_groups.h. The products themselves are the kernel `passes` of head_kernels.h. */
#include "cpu/pass_groups.h"
#include "base/error.h"
#include "base/philox.h"

#include <stdlib.h>
#include <string.h>

#define WEIGHTS_MAX ((size_t)512 << 20) /* bytes */
#define ALIGNMENT   64

_Static_assert(GROUP_PASSES <= 8, "draw_masks() has one bit of a byte for each of the group's passes");

static size_t round_up(size_t value, size_t step)
{
    return (value + step - 1) / step * step;
}

/* Groups of like size: one head's passes at one view, GROUP_PASSES at most. Returns how many; `group` may be NULL. */
static int share_out(const struct score_request *request, struct pass_group *group)
{
    int views = request->views ? request->views : 1, per_head = request->passes / request->heads->count, count = 0;
    for (int head = 0; head < request->heads->count; head++)
        for (int view = 0; view < views; view++) {
            int first = head * per_head, wanted = 0, placed = 0;
            for (int pass = first; pass < first + per_head; pass++)
                wanted += pass % views == view;
            int groups = (wanted + GROUP_PASSES - 1) / GROUP_PASSES;
            for (int pass = first; pass < first + per_head && group; pass++)
                if (pass % views == view) {
                    struct pass_group *into = &group[count + placed++ * groups / wanted];
                    into->head = head;
                    into->view = view;
                    into->pass[into->passes++] = pass;
                }
            count += groups;
        }
    return count;
}

/* Which of the group's passes keep each input, one bit each; returns what kept inputs are multiplied with. */
static float draw_masks(const struct score_request *request, const struct pass_group *group, float *mask, uint8_t *kept)
{
    const struct head_set *heads = request->heads;
    float factor = 0;
    memset(kept, 0, (size_t)heads->inputs);
    for (int i = 0; i < group->passes; i++) {
        uint32_t pass = (uint32_t)(group->pass[i] % (request->passes / heads->count));
        uint32_t counter[3] = {pass, (uint32_t)group->head, heads->model << 4 | PHILOX_SCORE};
        head_kernels()->dropout(request->seed, counter, heads->dropout, heads->inputs, mask);
        for (int k = 0; k < heads->inputs; k++)
            if (mask[k] > 0) {
                kept[k] |= (uint8_t)(1u << i);
                factor = mask[k];
            }
    }
    return factor;
}

static void sort_inputs(struct pass_group *group, const uint8_t *kept, int inputs)
{
    int at = 0;
    for (unsigned bits = (1u << group->passes) - 1; bits > 0; bits--) {
        int first = at;
        for (int k = 0; k < inputs; k++)
            if (kept[k] == bits)
                group->input[at++] = k;
        if (at > first)
            group->run[group->runs++] = (struct mask_run){at, bits};
    }
}

static void pack_weights(const struct head_set *heads, struct pass_group *group, float factor)
{
    int kept = group->runs ? group->run[group->runs - 1].end : 0;
    for (int a = 0; a < heads->answers; a++) {
        const float *weight =
            heads->weight + ((size_t)group->head * (size_t)heads->answers + (size_t)a) * (size_t)heads->inputs;
        float *packed = group->weight + (size_t)(a / GROUP_ANSWERS * GROUP_ANSWERS) * (size_t)heads->inputs;
        for (int i = 0; i < kept; i++)
            packed[i * GROUP_ANSWERS + a % GROUP_ANSWERS] = weight[group->input[i]] * factor;
    }
}

int pass_groups_new(const struct score_request *request, struct pass_groups *ret_groups)
{
    const struct head_set *heads = request->heads;
    size_t inputs = (size_t)heads->inputs, padded = round_up((size_t)heads->answers, GROUP_ANSWERS);
    int count = share_out(request, NULL);
    size_t bytes = round_up((size_t)count * padded * inputs * sizeof(float), ALIGNMENT);
    *ret_groups = (struct pass_groups){.count = count, .answers_padded = (int)padded};
    if (bytes > WEIGHTS_MAX)
        return error_set(ERROR_LIMIT,
                         "%d passes of %d answers need %zu MiB of masked weights, more than %zu: use fewer passes",
                         request->passes, heads->answers, bytes >> 20, WEIGHTS_MAX >> 20);
    float *mask = malloc(round_up(inputs, 32) * sizeof *mask);
    uint8_t *kept = malloc(inputs);
    ret_groups->group = calloc((size_t)count, sizeof *ret_groups->group);
    ret_groups->input = malloc((size_t)count * inputs * sizeof(int));
    ret_groups->weight = aligned_alloc(ALIGNMENT, bytes);
    int complete = mask && kept && ret_groups->group && ret_groups->input && ret_groups->weight;
    if (complete) {
        share_out(request, ret_groups->group);
        memset(ret_groups->weight, 0, bytes);
    }
    for (int g = 0; g < count && complete; g++) {
        struct pass_group *group = &ret_groups->group[g];
        group->input = ret_groups->input + (size_t)g * inputs;
        group->weight = ret_groups->weight + (size_t)g * padded * inputs;
        float factor = draw_masks(request, group, mask, kept);
        sort_inputs(group, kept, heads->inputs);
        pack_weights(heads, group, factor);
    }
    free(mask);
    free(kept);
    if (complete)
        return 0;
    pass_groups_free(ret_groups);
    return error_set(ERROR_SYSTEM, "out of memory for scoring with %d passes", request->passes);
}

void pass_groups_free(struct pass_groups *groups)
{
    free(groups->group);
    free(groups->input);
    free(groups->weight);
    *groups = (struct pass_groups){0};
}
