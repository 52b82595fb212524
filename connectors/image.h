/*
 * Image files into the pool's pixel column: PNG (libpng) and JPEG (libjpeg-turbo), recognised by their first
 * bytes. Not for downloading, and not for what the network sees (model/input.h).
 */
#ifndef TRIAGE_CONNECTORS_IMAGE_H
#define TRIAGE_CONNECTORS_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define IMAGE_SIDE_MIN       32
#define IMAGE_SIDE_MAX       16384
#define IMAGE_PIXELS_MAX     (64ul << 20) /* a decoder takes 0.2 GB for it, 0.7 GB if progressive */
#define IMAGE_FILE_BYTES_MAX ((size_t)64 << 20)

/*
 * Decodes the largest central square of the image and brings it to side x side by area averaging.
 *
 *   pixels  [side][side][channels] OUTPUT, written on success only; channels 1: grey, the unweighted mean of
 *           the colours; channels 3: red, green, blue. Alpha is ignored.
 *
 * ERROR_NOT_FOUND for an absent file. ERROR_INPUT with a reason a person understands for one that is no
 * image, is damaged or cut short (a decoder's warning is enough), is smaller than IMAGE_SIDE_MIN, or larger
 * than IMAGE_SIDE_MAX or IMAGE_PIXELS_MAX. ERROR_LIMIT above IMAGE_FILE_BYTES_MAX; ERROR_SYSTEM for one that
 * cannot be read. Several threads may call it at once.
 */
int image_load(const char *path, int side, int channels, uint8_t *pixels);

/*
 * Area average: each output pixel is the mean of the source area it covers, fractions of pixels included;
 * also defined for enlarging. Takes the square of `source_side` pixels at (left, top).
 *
 *   source  [height][width][source_channels]; the channels are averaged when channels == 1
 *   pixels  [side][side][channels] OUTPUT
 *
 * ERROR_SYSTEM without memory.
 */
int image_resize(const uint8_t *source, int width, int left, int top, int source_side, int source_channels, int side,
                 int channels, uint8_t *pixels);

/*
 * The path of a file location of a catalogue: a relative one is joined to the catalogue's folder, an absolute one stays. A
 * catalogue from elsewhere reaches nothing but what lies in its own folder or in `folders` (absolute, separated by commas; "/"
 * allows all): names are compared, links inside an allowed folder are followed. ERROR_INPUT for any other location, an empty
 * one, one with control characters, or one with a step '..'; ERROR_LIMIT when the path does not fit.
 */
int image_resolve(const char *catalogue_folder, const char *folders, const char *file_loc, char *path, size_t size);

#endif
