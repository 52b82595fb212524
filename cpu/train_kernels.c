/* Builds the loops of training for each instruction set; see train_kernels.h. */
#include "cpu/train_kernels.h"
#include "cpu/head_kernels.h"

#include <stdint.h>
#include <string.h>

#define VECTOR_BYTES 16
#define KERNEL(name) name##_portable
#include "cpu/train_kernels_body.h"

#ifdef __x86_64__
#pragma GCC push_options
#pragma GCC target("avx2")
#define VECTOR_BYTES 32
#define KERNEL(name) name##_avx2
#include "cpu/train_kernels_body.h"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512")
#define VECTOR_BYTES 64
#define KERNEL(name) name##_avx512
#include "cpu/train_kernels_body.h"
#pragma GCC pop_options
#endif

const struct train_kernels *train_kernels(void)
{
#ifdef __x86_64__
    if (strcmp(head_kernels()->name, "avx512") == 0)
        return &train_avx512;
    if (strcmp(head_kernels()->name, "avx2") == 0)
        return &train_avx2;
#endif
    return &train_portable;
}
