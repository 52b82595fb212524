/* Marks inline functions that CUDA kernels call too, and nothing else: the same source for processor and device. */
#ifndef TRIAGE_BASE_HOST_DEVICE_H
#define TRIAGE_BASE_HOST_DEVICE_H

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

#endif
