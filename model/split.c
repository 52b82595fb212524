/* See split.h. */
#include "model/split.h"
#include "base/hash.h"

#include <string.h>

#define SPLIT_SHARE_MIN 0.05
#define SPLIT_SHARE_MAX 0.2
#define SPLIT_GALAXIES  60.0

double split_fraction(uint64_t galaxies)
{
    double share = galaxies ? SPLIT_GALAXIES / (double)galaxies : SPLIT_SHARE_MAX;
    return share < SPLIT_SHARE_MIN ? SPLIT_SHARE_MIN : share > SPLIT_SHARE_MAX ? SPLIT_SHARE_MAX : share;
}

enum split split_of(const char *id_str, double fraction)
{
    double place = (double)(hash_64(id_str, strlen(id_str)) >> 11) * 0x1p-53;
    return place < fraction       ? SPLIT_VALIDATION
           : place < 2 * fraction ? SPLIT_GATE
           : place < 3 * fraction ? SPLIT_TEST
                                  : SPLIT_TRAIN;
}
