/* The one file that knows xxhash and zlib; see hash.h. */
#include "base/hash.h"

#include <stdio.h>
#include <xxhash.h>
#include <zlib.h>

uint64_t hash_64(const void *bytes, size_t length)
{
    return XXH3_64bits(bytes, length);
}

void hash_text(const void *bytes, size_t length, char text[HASH_TEXT_BYTES])
{
    XXH128_hash_t hash = XXH3_128bits(bytes, length);
    snprintf(text, HASH_TEXT_BYTES, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
}

uint32_t hash_crc32(const void *bytes, size_t length)
{
    return (uint32_t)crc32_z(0, bytes, length);
}
