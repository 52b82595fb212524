/* What every file of the CUDA backend begins with: the program's C headers, readable as C++, for nvcc and for g++ alike. */
#ifndef TRIAGE_GPU_HOST_H
#define TRIAGE_GPU_HOST_H

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __CUDACC__
#pragma nv_diag_suppress 1675 /* GCC's own pragmas in shared headers */
#else
#pragma GCC diagnostic ignored "-Wmissing-field-initializers" /* C allows it, and shared headers use it */
#endif

extern "C" {
#include "base/error.h"
#include "base/half.h"
#include "base/host_device.h"
#include "base/philox.h"
#include "model/backend.h"
}

#define HD HOST_DEVICE static inline

/* Values kept from host code of all files of gpu/ are hidden: the library exports `backend_cuda` alone. */

#endif
