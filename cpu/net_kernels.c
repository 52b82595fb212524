/* Builds the loops of inference for each instruction set; see net_kernels.h. */
#include "cpu/net_kernels.h"
#include "cpu/head_kernels.h"

#include <stdint.h>
#include <string.h>

#define KERNEL(name)          name##_portable
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c)) /* the processor may have no other */
#include "cpu/net_kernels_body.h"

#ifdef __x86_64__
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define KERNEL(name)          name##_avx2
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf(a, b, c)
#include "cpu/net_kernels_body.h"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("fma,avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512")
#define KERNEL(name)          name##_avx512
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf(a, b, c)
#include "cpu/net_kernels_body.h"
#pragma GCC pop_options
#endif

const struct net_kernels *net_kernels(enum precision precision)
{
    int bf16 = precision == PRECISION_BF16;
#ifdef __x86_64__
    if (strcmp(head_kernels()->name, "avx512") == 0)
        return bf16 ? &net_bf16_avx512 : &net_fp32_avx512;
    if (strcmp(head_kernels()->name, "avx2") == 0)
        return bf16 ? &net_bf16_avx2 : &net_fp32_avx2;
#endif
    return bf16 ? &net_bf16_portable : &net_fp32_portable;
}
