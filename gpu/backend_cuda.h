/* The backend for NVIDIA devices. A program finds it by dlopen() (daemon/backend.c) and never links it. */
#ifndef TRIAGE_GPU_BACKEND_CUDA_H
#define TRIAGE_GPU_BACKEND_CUDA_H

#include "gpu/host.h"

extern "C" __attribute__((visibility("default"))) const struct backend backend_cuda;

#endif
