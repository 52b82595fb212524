/* What the decoders give to image.c. */
#ifndef TRIAGE_CONNECTORS_IMAGE_DECODE_H
#define TRIAGE_CONNECTORS_IMAGE_DECODE_H

#include <stddef.h>
#include <stdint.h>

struct decoded {
    int width, height, channels; /* 1 or 3 */
    uint8_t *pixels;             /* [height][width][channels]; the caller frees it */
};

/* ERROR_INPUT with the reason, nothing allocated then. */
int image_decode_png(const uint8_t *bytes, size_t length, struct decoded *ret_decoded);
int image_decode_jpeg(const uint8_t *bytes, size_t length, struct decoded *ret_decoded);

/* 0, or ERROR_INPUT for sides outside image.h's limits. */
int image_check_sides(unsigned long width, unsigned long height);

#endif
