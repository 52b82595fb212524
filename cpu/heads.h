/* The cpu backend's two pool-sized jobs on heads; the contracts are those of model/backend.h. Used by
 * backend_cpu.c only. */
#ifndef TRIAGE_CPU_HEADS_H
#define TRIAGE_CPU_HEADS_H

#include "cpu/workers.h"
#include "model/backend.h"

int cpu_head_fit(struct workers *workers, const struct fit_request *request, struct head_set *heads,
                 struct fit_report *ret_report);
int cpu_head_score(struct workers *workers, const struct score_request *request, backend_stop *stop,
                   void *stop_context);

#endif
