/*
 * Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
 * A number is a pure function of (key, counter), so every thread, rank, batch and backend draws the same ones.
 *
 * Domains (the last counter word) keep uses apart; each lists what its counter words hold:
 *   PHILOX_SCORE    key = seed, counter = {element / 4, pass, head, model << 4 | domain}
 *   PHILOX_TRAIN    key = seed, counter = {element / 4, galaxy key, step, head << 8 | domain}; layers of a net count
 *                   as heads from PHILOX_LAYER on
 *   PHILOX_WEIGHTS  key = seed, counter = {element / 4, tensor index, 0, domain}
 *   PHILOX_SELECT   key = seed, counter = {galaxy key low, galaxy key high, cycle, domain}
 *   PHILOX_SHUFFLE  key = seed, counter = {element, head, step, domain}
 *   PHILOX_GATE     key = seed, counter = {element / 4, resample, 0, domain}
 *   PHILOX_AUGMENT  key = seed, counter = {element / 4 << 16 | galaxy key >> 32, galaxy key, view, domain}
 *   PHILOX_TARGETS  key = seed, counter = {row low, row high, 0, domain}
 *   PHILOX_BAG      key = seed, counter = {row low, row high, head, domain}
 *   PHILOX_SKETCH   key = seed, counter = {input or cluster, 0 or 1, 0, domain}
 *   PHILOX_SAMPLE   key = seed, counter = {galaxy key low, galaxy key high, 0, domain}
 *   PHILOX_SURVEY   key = seed, counter = {element / 4, galaxy, stage, domain}   (simulator)
 *   PHILOX_VOTES    key = seed, counter = {element, galaxy, classification, domain}   (simulator)
 */
#ifndef TRIAGE_BASE_PHILOX_H
#define TRIAGE_BASE_PHILOX_H

#include "base/host_device.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum philox_domain {
    PHILOX_LAYER = 256, /* not a domain: see PHILOX_TRAIN */
    PHILOX_SCORE = 1,
    PHILOX_TRAIN,
    PHILOX_WEIGHTS,
    PHILOX_SELECT,
    PHILOX_SHUFFLE,
    PHILOX_GATE,
    PHILOX_SURVEY,
    PHILOX_VOTES,
    PHILOX_AUGMENT,
    PHILOX_TARGETS,
    PHILOX_BAG,
    PHILOX_SKETCH,
    PHILOX_SAMPLE,
};

struct philox {
    uint32_t word[4];
};

/* Ten rounds over the counter {c0, c1, c2, c3} with the 64-bit key. Four independent uniform 32-bit words. */
HOST_DEVICE static inline struct philox philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (struct philox){
        {c0, c1, c2, c3}
    };
}

/* Uniform in [0, 1) with 24 bits. */
HOST_DEVICE static inline float philox_uniform(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

/* Shuffles the rows (Fisher and Yates), by PHILOX_SHUFFLE. */
static inline void philox_shuffle(uint64_t seed, uint32_t head, uint32_t step, uint64_t *row, size_t count)
{
    for (size_t i = count; i-- > 1;) {
        uint32_t word = philox(seed, (uint32_t)i, head, step, PHILOX_SHUFFLE).word[0];
        size_t other = (size_t)((uint64_t)word * (i + 1) >> 32);
        uint64_t kept = row[i];
        row[i] = row[other];
        row[other] = kept;
    }
}

/* Two standard normal numbers from two words (Box and Muller 1958). */
static inline void philox_normal(uint32_t a, uint32_t b, float out[2])
{
    double radius = sqrt(-2.0 * log(((double)a + 1.0) * 0x1p-32));
    double angle = 6.283185307179586 * ((double)b * 0x1p-32);
    out[0] = (float)(radius * cos(angle));
    out[1] = (float)(radius * sin(angle));
}

#endif
