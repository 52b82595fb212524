/* The backend for ordinary processors: convolutions by oneDNN, everything else plain loops, one image per
 * thread. */
#ifndef TRIAGE_CPU_BACKEND_CPU_H
#define TRIAGE_CPU_BACKEND_CPU_H

#include "model/backend.h"

extern const struct backend backend_cpu;

#endif
