/* Builds the hot loops for each instruction set and picks one; see head_kernels.h. */
#include "cpu/head_kernels.h"
#include "base/error.h"
#include "base/half.h"
#include "base/philox.h"
#include "model/head.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif
/* clang passes over the pragmas below; it builds only what fuzzes the parsers, which needs no speed. */
#if defined __x86_64__ && !defined __clang__
#define HAS_WIDER_SETS 1
#else
#define HAS_WIDER_SETS 0
#endif

/* What no compiler finds by itself, exact in every set: products of the low halves of 64-bit lanes, and half to float. */
#ifdef __x86_64__
#define MULTIPLY_LOW(a, b) ((KERNEL(wide))_mm_mul_epu32((__m128i)(a), (__m128i)(b)))
#else
#define MULTIPLY_LOW(a, b) (((a)&0xffffffffu) * ((b)&0xffffffffu))
#endif
#define VECTOR_BYTES 16
#define KERNEL(name) name##_portable
#define KERNEL_NAME  "portable"
#include "cpu/head_kernels_body.h"

#if HAS_WIDER_SETS
#pragma GCC push_options
#pragma GCC target("avx2")
#define MULTIPLY_LOW(a, b) ((KERNEL(wide))_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
#define VECTOR_BYTES       32
#define KERNEL(name)       name##_avx2
#define KERNEL_NAME        "avx2"
#include "cpu/head_kernels_body.h"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512")
#define MULTIPLY_LOW(a, b) ((KERNEL(wide))_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
#define HALVES(memory)     ((KERNEL(vector))_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(memory))))
#define VECTOR_BYTES       64
#define KERNEL(name)       name##_avx512
#define KERNEL_NAME        "avx512"
#include "cpu/head_kernels_body.h"
#pragma GCC pop_options
#endif

static _Atomic(const struct head_kernels *) chosen;

/* Best first; ends with the one every processor has. */
static int available(const struct head_kernels *list[3])
{
    int count = 0;
#if HAS_WIDER_SETS
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        list[count++] = &kernels_avx512;
    if (__builtin_cpu_supports("avx2"))
        list[count++] = &kernels_avx2;
#endif
    list[count++] = &kernels_portable;
    return count;
}

const struct head_kernels *head_kernels(void)
{
    const struct head_kernels *list[3], *already = atomic_load(&chosen);
    if (already)
        return already;
    available(list);
    return list[0];
}

int head_kernels_choose(const char *name)
{
    const struct head_kernels *list[3];
    int count = available(list);
    if (!name) {
        atomic_store(&chosen, NULL);
        return 0;
    }
    for (int i = 0; i < count; i++)
        if (!strcmp(list[i]->name, name)) {
            atomic_store(&chosen, list[i]);
            return 0;
        }
    return error_set(ERROR_NOT_FOUND, "this processor cannot run the %s kernels", name);
}
