/* JPEG in: the one file that knows libjpeg-turbo. A warning (data cut short, bad code) counts as damage. */
#include "base/error.h"
#include "connectors/image_decode.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#define SCANS_MAX    100          /* a progressive file of thousands of scans would take minutes */
#define MEMORY_BYTES (512l << 20) /* coefficients of a progressive file; libjpeg gives up beyond */

struct failure {
    struct jpeg_error_mgr manager; /* first, so that libjpeg's pointer is ours */
    jmp_buf jump;
    char reason[JMSG_LENGTH_MAX];
};

static void on_error(j_common_ptr jpeg)
{
    struct failure *failure = (struct failure *)jpeg->err;
    failure->manager.format_message(jpeg, failure->reason);
    longjmp(failure->jump, 1);
}

static void on_message(j_common_ptr jpeg, int level)
{
    if (level < 0) /* a warning: libjpeg would go on with grey pixels */
        on_error(jpeg);
}

/* Called for every row of blocks; only progressive files have many scans. */
static void on_progress(j_common_ptr jpeg)
{
    struct failure *failure = (struct failure *)jpeg->err;
    if (((j_decompress_ptr)jpeg)->input_scan_number > SCANS_MAX) {
        snprintf(failure->reason, sizeof failure->reason, "more than %d scans", SCANS_MAX);
        longjmp(failure->jump, 1);
    }
}

int image_decode_jpeg(const uint8_t *bytes, size_t length, struct decoded *ret_decoded)
{
    struct jpeg_decompress_struct jpeg;
    struct jpeg_progress_mgr progress = {.progress_monitor = on_progress};
    struct failure failure;
    uint8_t *volatile pixels = NULL;
    volatile int result = 0;
    jpeg.err = jpeg_std_error(&failure.manager);
    failure.manager.error_exit = on_error;
    failure.manager.emit_message = on_message;
    if (setjmp(failure.jump)) {
        result = error_set(ERROR_INPUT, "damaged JPEG: %s", failure.reason);
        goto out;
    }
    jpeg_create_decompress(&jpeg);
    jpeg.progress = &progress;
    jpeg.mem->max_memory_to_use = MEMORY_BYTES;
    jpeg_mem_src(&jpeg, bytes, (unsigned long)length);
    jpeg_read_header(&jpeg, TRUE);
    result = image_check_sides(jpeg.image_width, jpeg.image_height);
    if (result)
        goto out;
    jpeg.out_color_space = jpeg.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(&jpeg);
    size_t row_bytes = (size_t)jpeg.output_width * (size_t)jpeg.output_components;
    pixels = malloc(row_bytes * jpeg.output_height);
    if (!pixels) {
        result = error_set(ERROR_SYSTEM, "out of memory for an image of %u x %u pixels", jpeg.output_width,
                           jpeg.output_height);
        goto out;
    }
    while (jpeg.output_scanline < jpeg.output_height) {
        JSAMPROW row = pixels + jpeg.output_scanline * row_bytes;
        jpeg_read_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_decompress(&jpeg);
    *ret_decoded = (struct decoded){(int)jpeg.output_width, (int)jpeg.output_height, jpeg.output_components, pixels};
    pixels = NULL;
out:
    free(pixels);
    jpeg_destroy_decompress(&jpeg);
    return result;
}
