/* IEEE half precision for stored embeddings; conversion only, arithmetic is always in float. */
#ifndef TRIAGE_BASE_HALF_H
#define TRIAGE_BASE_HALF_H

#include "base/host_device.h"

#include <stdint.h>
#include <string.h>

/* Round to nearest even; overflow becomes infinity. */
HOST_DEVICE static inline uint16_t half_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest >= 0x7f800000u)
        return (uint16_t)(sign | 0x7c00u | (rest > 0x7f800000u ? 0x200u : 0));
    if (rest >= 0x477ff000u)
        return (uint16_t)(sign | 0x7c00u);
    if (rest < 0x38800000u) { /* subnormal half: let the float adder do the rounding */
        float magic, scaled;
        uint32_t magic_bits = 0x3f000000u;
        memcpy(&magic, &magic_bits, 4);
        memcpy(&scaled, &rest, 4);
        scaled += magic;
        memcpy(&bits, &scaled, 4);
        return (uint16_t)(sign | (bits - magic_bits));
    }
    uint32_t odd = rest >> 13 & 1;
    return (uint16_t)(sign | ((rest - 0x38000000u + 0xfffu + odd) >> 13));
}

/* Exact. Without branches, so that compilers convert many at once: 2^112 lifts the exponent and normalises
 * subnormals. */
HOST_DEVICE static inline float half_to_float(uint16_t half)
{
    uint32_t bits = (uint32_t)(half & 0x7fffu) << 13, special = bits >= 0x0f800000u ? 0x7f800000u : 0u;
    float value;
    memcpy(&value, &bits, 4);
    value *= 0x1p112f;
    memcpy(&bits, &value, 4);
    bits |= special | (uint32_t)(half & 0x8000u) << 16; /* infinity and NaN keep their fraction */
    memcpy(&value, &bits, 4);
    return value;
}

#endif
