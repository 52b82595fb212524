/*
 * The cpu backend's two pool-sized jobs on heads; the contracts are those of model/backend.h. Used by
 * backend_cpu.c only.
 *
 * Memory. Fit: 16 bytes per weight of every head and 8 per training row and head; embeddings are converted in
 * blocks of 64 rows, so the number of galaxies is not limited. One head is one item of parallel work: more
 * threads than heads do not help. Score: the masked weights, 4 * passes * answers * inputs bytes (5 MiB for
 * 30 x 34 x 1280; ERROR_LIMIT above 512 MiB), and 256 * (views * inputs + 1.25 * passes * answers) bytes per thread (0.7 MiB;
 * ERROR_LIMIT above 128 MiB).
 */
#ifndef TRIAGE_CPU_HEADS_H
#define TRIAGE_CPU_HEADS_H

#include "base/workers.h"
#include "model/backend.h"

int cpu_head_fit(struct workers *workers, const struct fit_request *request, struct head_set *heads,
                 struct fit_report *ret_report);
int cpu_head_score(struct workers *workers, const struct score_request *request, backend_stop *stop,
                   void *stop_context);

#endif
