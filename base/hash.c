/* The one file that knows xxhash; see hash.h. */
#include "base/hash.h"

#include <stdio.h>
#include <xxhash.h>

uint64_t hash_64(const void *bytes, size_t length)
{
    return XXH3_64bits(bytes, length);
}

void hash_text(const void *bytes, size_t length, char text[HASH_TEXT_BYTES])
{
    XXH128_hash_t hash = XXH3_128bits(bytes, length);
    snprintf(text, HASH_TEXT_BYTES, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
}
