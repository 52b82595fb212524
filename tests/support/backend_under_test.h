/* Which backend a suite runs on: cpu, or, where the suite is built a second time as NAME_gpu, the emulated cuda backend (gpu/ compiled
 * for the processor, on the stand-in of tests/gpu). */
#ifndef TRIAGE_TESTS_BACKEND_UNDER_TEST_H
#define TRIAGE_TESTS_BACKEND_UNDER_TEST_H

#include "cpu/backend_cpu.h"

#ifdef TEST_BACKEND_CUDA
extern const struct backend backend_cuda;
#define BACKEND_UNDER_TEST (&backend_cuda)
#define BACKEND_THREADS    1 /* host threads have no part in what it computes */
#else
#define BACKEND_UNDER_TEST (&backend_cpu)
#define BACKEND_THREADS    3
#endif

#endif
