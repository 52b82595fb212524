/* Fast hashes for checksums, schema identity and splitting by id (XXH3; CRC-32 where others must compute the same). Not for
 * secrets. */
#ifndef TRIAGE_BASE_HASH_H
#define TRIAGE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_TEXT_BYTES 33

uint64_t hash_64(const void *bytes, size_t length);

/* 128 bits as 32 lower-case hexadecimal characters. */
void hash_text(const void *bytes, size_t length, char text[HASH_TEXT_BYTES]);

/* CRC-32 of zlib, gzip and PNG. */
uint32_t hash_crc32(const void *bytes, size_t length);

#endif
