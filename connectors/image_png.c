/* PNG in and out: with png_write.h the one place that knows libpng. Every kind of PNG is brought to 8-bit
 * grey or RGB. */
#include "base/error.h"
#include "connectors/image_decode.h"
#include "connectors/png_write.h"

#include <assert.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reading {
    const uint8_t *bytes;
    size_t length, at;
    jmp_buf jump;
    char reason[128];
};

static void on_error(png_structp png, png_const_charp message)
{
    struct reading *reading = png_get_error_ptr(png);
    snprintf(reading->reason, sizeof reading->reason, "%s", message);
    longjmp(reading->jump, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message; /* about metadata; damaged pixels are errors */
}

static void read_bytes(png_structp png, png_bytep out, size_t count)
{
    struct reading *reading = png_get_io_ptr(png);
    if (count > reading->length - reading->at)
        png_error(png, "the file ends too early");
    memcpy(out, reading->bytes + reading->at, count);
    reading->at += count;
}

static void set_transforms(png_structp png)
{
    png_set_expand(png);
    png_set_scale_16(png); /* rounds; png_set_strip_16() would cut the low byte off */
    png_set_strip_alpha(png);
    png_set_interlace_handling(png);
}

int image_decode_png(const uint8_t *bytes, size_t length, struct decoded *ret_decoded)
{
    struct reading reading = {.bytes = bytes, .length = length};
    uint8_t *volatile pixels = NULL;
    png_bytep *volatile rows = NULL;
    volatile int result = 0;
    png_infop info = NULL;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reading, on_error, on_warning);
    if (png)
        info = png_create_info_struct(png);
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return error_set(ERROR_SYSTEM, "out of memory for a PNG decoder");
    }
    if (setjmp(reading.jump)) {
        result = error_set(ERROR_INPUT, "damaged PNG: %s", reading.reason);
        goto out;
    }
    png_set_read_fn(png, &reading, read_bytes);
    png_read_info(png, info);
    png_uint_32 width = png_get_image_width(png, info), height = png_get_image_height(png, info);
    result = image_check_sides(width, height);
    if (result)
        goto out;
    set_transforms(png);
    png_read_update_info(png, info);
    size_t row_bytes = png_get_rowbytes(png, info);
    pixels = malloc(row_bytes * height);
    rows = malloc(height * sizeof *rows);
    if (!pixels || !rows) {
        result = error_set(ERROR_SYSTEM, "out of memory for an image of %u x %u pixels", width, height);
        goto out;
    }
    for (png_uint_32 y = 0; y < height; y++)
        rows[y] = pixels + y * row_bytes;
    png_read_image(png, rows);
    png_read_end(png, NULL);
    *ret_decoded = (struct decoded){(int)width, (int)height, png_get_channels(png, info), pixels};
    pixels = NULL;
out:
    free(pixels);
    free((void *)rows);
    png_destroy_read_struct(&png, &info, NULL);
    return result;
}

int png_write(int width, int height, int channels, const uint8_t *pixels, uint8_t **ret_bytes, size_t *ret_length)
{
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)width,
                       .height = (png_uint_32)height,
                       .format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB};
    png_alloc_size_t length = PNG_IMAGE_PNG_SIZE_MAX(image);
    assert(channels == 1 || channels == 3);
    uint8_t *bytes = malloc(length);
    if (!bytes)
        return error_set(ERROR_SYSTEM, "out of memory for a PNG of %d x %d pixels", width, height);
    if (!png_image_write_to_memory(&image, bytes, &length, 0, pixels, 0, NULL)) {
        free(bytes);
        return error_set(ERROR_SYSTEM, "cannot write a PNG: %s", image.message);
    }
    *ret_bytes = bytes;
    *ret_length = length;
    return 0;
}
