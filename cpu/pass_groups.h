/*
 * The products of all MC-dropout passes for the price of a few. Passes of one head differ only in which inputs they drop, so up to
 * GROUP_PASSES of them share their products: inputs are sorted by which of the group's passes keep them (at most 2^GROUP_PASSES
 * sets), each set is summed once and added to every pass that keeps it. The masks are those of head.h, and so are the results,
 * summed in an order that depends on the masks only.
 */
#ifndef TRIAGE_CPU_PASS_GROUPS_H
#define TRIAGE_CPU_PASS_GROUPS_H

#include "cpu/head_kernels.h"
#include "model/backend.h"

/* Of one head, looking at one view. */
struct pass_group {
    int head, view, passes;
    int pass[GROUP_PASSES]; /* numbers over all heads */
    int runs;
    struct mask_run run[1 << GROUP_PASSES];
    int *input;    /* [inputs] sorted; the last run ends where those begin that no pass keeps */
    float *weight; /* [answers_padded / GROUP_ANSWERS][inputs][GROUP_ANSWERS] in that order, scaled as the masks say */
};

struct pass_groups {
    int count, answers_padded; /* a multiple of GROUP_ANSWERS */
    struct pass_group *group;  /* [count] */
    float *weight;
    int *input;
};

/* Checked by the caller: passes are a multiple of heads and views. ERROR_LIMIT for too many weights, ERROR_SYSTEM without memory. */
int pass_groups_new(const struct score_request *request, struct pass_groups *ret_groups);
void pass_groups_free(struct pass_groups *groups); /* zeroed is fine */

#endif
