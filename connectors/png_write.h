/* Writes PNG files in memory, for the simulator and for pictures. */
#ifndef TRIAGE_CONNECTORS_PNG_WRITE_H
#define TRIAGE_CONNECTORS_PNG_WRITE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Encodes 8-bit pixels.
 *   pixels  [height][width][channels], channels 1 (grey) or 3 (RGB)
 * The caller frees *ret_bytes.
 */
int png_write(int width, int height, int channels, const uint8_t *pixels, uint8_t **ret_bytes, size_t *ret_length);

#endif
