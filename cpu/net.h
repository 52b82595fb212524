/* The cpu backend's plans: nets compiled to oneDNN primitives. Contracts as in model/backend.h. Used by
 * backend_cpu.c only. */
#ifndef TRIAGE_CPU_NET_H
#define TRIAGE_CPU_NET_H

#include "base/workers.h"
#include "model/backend.h"

int cpu_precision(enum precision wanted);
int cpu_compile(struct workers *workers, const struct net *net, const float *parameters, enum precision precision,
                struct plan **ret_plan);
void cpu_free_plan(struct plan *plan);
int cpu_forward(struct plan *plan, const float *images, size_t count, float *outputs);
int cpu_calibrate(struct workers *workers, const struct net *net, const float *images, size_t count, float *parameters);

#endif
