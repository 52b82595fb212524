/* Images: every kind of PNG and JPEG gives the pixels it shows, resizing is exact, and no bytes do harm. */
#include "base/error.h"
#include "connectors/image.h"
#include "connectors/png_write.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jpeglib.h>
#include <png.h>

#include <cmocka.h>

#define WIDTH  44
#define HEIGHT 36
#define SQUARE 36 /* the largest one, 4 pixels in from the left */

static char folder[] = "/tmp/image_test.XXXXXX";
static char path[64];

struct bytes {
    uint8_t *bytes;
    size_t length;
};

static void store(const void *bytes, size_t length)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* A smooth picture with different channels. */
static uint8_t shade(int x, int y, int channel)
{
    return (uint8_t)(channel == 0 ? 40 + 3 * x : channel == 1 ? 20 + 5 * y : 200 - 2 * x - 2 * y);
}

/* --- resizing ------------------------------------------------------------------------------------ */

/* The mean over each output pixel of the source repeated `side` times along both axes: exact in integers. */
static double repeated_mean(const uint8_t *source, int width, int left, int top, int source_side, int channels,
                            int wanted, int side, int x, int y)
{
    long sum = 0;
    for (int v = y * source_side; v < (y + 1) * source_side; v++)
        for (int u = x * source_side; u < (x + 1) * source_side; u++) {
            const uint8_t *pixel = source + ((long)(top + v / side) * width + left + u / side) * channels;
            sum += wanted >= 0 ? pixel[wanted] : pixel[0] + pixel[1] + pixel[2];
        }
    return (double)sum / source_side / source_side / (wanted >= 0 ? 1 : 3);
}

static void check_resize(const uint8_t *source, int width, int left, int top, int source_side, int source_channels,
                         int side, int channels)
{
    uint8_t pixels[60 * 60 * 3];
    assert_int_equal(image_resize(source, width, left, top, source_side, source_channels, side, channels, pixels), 0);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < channels; c++) {
                int wanted = source_channels == 1 ? 0 : channels == 3 ? c : -1;
                double exact =
                    repeated_mean(source, width, left, top, source_side, source_channels, wanted, side, x, y);
                assert_float_equal(pixels[(y * side + x) * channels + c], exact, 0.5 + 1e-4);
            }
}

static void resize_equals_brute_force(void **state)
{
    (void)state;
    static uint8_t source[64 * 70 * 3];
    unsigned seed = 7;
    print_message("seed %u\n", seed);
    for (int turn = 0; turn < 60; turn++) {
        int source_channels = turn & 1 ? 3 : 1, channels = turn & 2 ? 3 : 1;
        int source_side = 1 + rand_r(&seed) % 60, side = 1 + rand_r(&seed) % 60;
        int width = source_side + rand_r(&seed) % 5, left = rand_r(&seed) % (width - source_side + 1);
        for (size_t i = 0; i < sizeof source; i++)
            source[i] = (uint8_t)(rand_r(&seed) >> 7);
        check_resize(source, width, left, rand_r(&seed) % 4, source_side, source_channels, side, channels);
    }
}

static void resize_of_known_pictures(void **state)
{
    (void)state;
    static const uint8_t four[] = {0, 100, 200, 255, 10, 90, 220, 235, 0, 0, 9, 9, 0, 2, 9, 10};
    uint8_t pixels[64], all[50 * 50], large[300 * 300];
    assert_int_equal(image_resize(four, 4, 0, 0, 4, 1, 2, 1, pixels), 0);
    assert_memory_equal(pixels, ((uint8_t[]){50, 228, 0, 9}), 4); /* means 50, 227.5, 0.5 and 9.25, ties to even */
    assert_int_equal(image_resize(four, 4, 0, 0, 2, 1, 4, 1, pixels), 0);
    assert_memory_equal(pixels, ((uint8_t[]){0, 0, 100, 100, 0, 0, 100, 100, 10, 10, 90, 90, 10, 10, 90, 90}), 16);
    assert_int_equal(image_resize(four, 4, 1, 1, 3, 1, 3, 1, pixels), 0);
    assert_memory_equal(pixels, ((uint8_t[]){90, 220, 235, 0, 9, 9, 2, 9, 10}), 9);
    memset(all, 255, sizeof all);
    assert_int_equal(image_resize(all, 50, 0, 0, 50, 1, 300, 1, large), 0);
    for (size_t i = 0; i < sizeof large; i++)
        assert_int_equal(large[i], 255);
    static const uint8_t colour[] = {1, 1, 0, 255, 255, 255, 10, 20, 0, 0, 0, 1}; /* means 0.67, 255, 10, 0.33 */
    assert_int_equal(image_resize(colour, 2, 0, 0, 2, 3, 2, 1, pixels), 0);
    assert_memory_equal(pixels, ((uint8_t[]){1, 255, 10, 0}), 4);
    assert_int_equal(image_resize(colour, 2, 0, 0, 2, 3, 1, 1, pixels), 0); /* 66.5 of the exact means, not 66.75 */
    assert_int_equal(pixels[0], 66);
    assert_int_equal(image_resize(four, 4, 0, 0, 1, 1, 1, 3, pixels), 0);
    assert_memory_equal(pixels, ((uint8_t[]){0, 0, 0}), 3);
}

/* --- PNG ----------------------------------------------------------------------------------------- */

struct png_kind {
    int depth, colour, interlaced, transparent;
};

static void take_bytes(png_structp png, png_bytep bytes, size_t count)
{
    struct bytes *out = png_get_io_ptr(png);
    out->bytes = realloc(out->bytes, out->length + count);
    assert_non_null(out->bytes);
    memcpy(out->bytes + out->length, bytes, count);
    out->length += count;
}

static void flush_nothing(png_structp png)
{
    (void)png;
}

/* The sample of a pixel as the file holds it, and what it must be read as. */
static int png_sample(const struct png_kind *kind, int x, int y, int channel, int *ret_read)
{
    int levels = (1 << kind->depth) - 1, value = shade(x, y, channel);
    if (kind->colour == PNG_COLOR_TYPE_PALETTE) {
        value = (x + y) % (levels + 1);
        *ret_read = channel == 0 ? value : channel == 1 ? 255 - value : 7;
        return value;
    }
    int stored = kind->depth == 16 ? value * 257 + (x % 3 - 1) * 100 : value * levels / 255;
    *ret_read = (int)lround(stored * 255.0 / levels);
    return stored;
}

static void fill_png_row(const struct png_kind *kind, int channels, int alpha, int y, uint8_t *row)
{
    int read;
    memset(row, 0, (size_t)WIDTH * 8);
    for (int x = 0; x < WIDTH; x++)
        for (int c = 0; c < channels + alpha; c++) {
            long at = (long)x * (channels + alpha) + c;
            int sample = c == channels ? (x * 5) % 256 : png_sample(kind, x, y, c, &read);
            if (kind->depth == 16) {
                row[2 * at] = (uint8_t)(sample >> 8);
                row[2 * at + 1] = (uint8_t)sample;
            } else
                row[at * kind->depth / 8] |= (uint8_t)(sample << (8 - kind->depth - at * kind->depth % 8));
        }
}

static struct bytes make_png(const struct png_kind *kind)
{
    struct bytes out = {0};
    uint8_t row[WIDTH * 8], opacity[256];
    png_color palette[256];
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    assert_non_null(info);
    png_set_write_fn(png, &out, take_bytes, flush_nothing);
    png_set_IHDR(png, info, WIDTH, HEIGHT, kind->depth, kind->colour,
                 kind->interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    for (int i = 0; i < 256; i++) {
        palette[i] = (png_color){(png_byte)i, (png_byte)(255 - i), 7};
        opacity[i] = (uint8_t)(i * 3);
    }
    if (kind->colour == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(png, info, palette, 1 << kind->depth);
    if (kind->transparent)
        png_set_tRNS(png, info, opacity, kind->colour == PNG_COLOR_TYPE_PALETTE ? 1 << kind->depth : 0,
                     &(png_color_16){.gray = 1, .red = 40, .green = 20, .blue = 200});
    png_write_info(png, info);
    int passes = png_set_interlace_handling(png), channels = kind->colour & PNG_COLOR_MASK_COLOR ? 3 : 1;
    if (kind->colour == PNG_COLOR_TYPE_PALETTE)
        channels = 1;
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < HEIGHT; y++) {
            fill_png_row(kind, channels, (kind->colour & PNG_COLOR_MASK_ALPHA) != 0, y, row);
            png_write_row(png, row);
        }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return out;
}

static const struct png_kind png_kinds[] = {
    {8,  PNG_COLOR_TYPE_GRAY,       0, 0},
    {1,  PNG_COLOR_TYPE_GRAY,       0, 1},
    {2,  PNG_COLOR_TYPE_GRAY,       1, 0},
    {4,  PNG_COLOR_TYPE_GRAY,       0, 0},
    {16, PNG_COLOR_TYPE_GRAY,       0, 0},
    {16, PNG_COLOR_TYPE_GRAY,       1, 1},
    {8,  PNG_COLOR_TYPE_RGB,        0, 0},
    {8,  PNG_COLOR_TYPE_RGB,        1, 1},
    {16, PNG_COLOR_TYPE_RGB,        0, 1},
    {8,  PNG_COLOR_TYPE_GRAY_ALPHA, 0, 0},
    {16, PNG_COLOR_TYPE_GRAY_ALPHA, 1, 0},
    {8,  PNG_COLOR_TYPE_RGB_ALPHA,  0, 0},
    {16, PNG_COLOR_TYPE_RGB_ALPHA,  1, 0},
    {8,  PNG_COLOR_TYPE_PALETTE,    0, 0},
    {8,  PNG_COLOR_TYPE_PALETTE,    1, 1},
    {4,  PNG_COLOR_TYPE_PALETTE,    0, 1},
    {1,  PNG_COLOR_TYPE_PALETTE,    1, 0},
};
#define PNG_KINDS (sizeof png_kinds / sizeof *png_kinds)

static void every_kind_of_png_is_read(void **state)
{
    (void)state;
    uint8_t pixels[SQUARE * SQUARE * 3], grey[SQUARE * SQUARE];
    for (size_t i = 0; i < PNG_KINDS; i++) {
        struct bytes png = make_png(&png_kinds[i]);
        store(png.bytes, png.length);
        free(png.bytes);
        assert_int_equal(image_load(path, SQUARE, 3, pixels), 0);
        assert_int_equal(image_load(path, SQUARE, 1, grey), 0);
        int coloured = png_kinds[i].colour & PNG_COLOR_MASK_COLOR;
        for (int at = 0; at < SQUARE * SQUARE; at++) {
            int sum = 0, read;
            for (int c = 0; c < 3; c++) {
                png_sample(&png_kinds[i], at % SQUARE + (WIDTH - SQUARE) / 2, at / SQUARE, coloured ? c : 0, &read);
                assert_int_equal(pixels[3 * at + c], read);
                sum += read;
            }
            assert_int_equal(grey[at], (int)lround(sum / 3.0));
        }
    }
}

static void written_png_is_read_back(void **state)
{
    (void)state;
    uint8_t pixels[HEIGHT * HEIGHT * 3], back[HEIGHT * HEIGHT * 3];
    for (int channels = 1; channels <= 3; channels += 2) {
        struct bytes png;
        for (int i = 0; i < HEIGHT * HEIGHT * channels; i++)
            pixels[i] = (uint8_t)(i * 37 + i / 256);
        assert_int_equal(png_write(HEIGHT, HEIGHT, channels, pixels, &png.bytes, &png.length), 0);
        store(png.bytes, png.length);
        free(png.bytes);
        assert_int_equal(image_load(path, HEIGHT, channels, back), 0);
        assert_memory_equal(pixels, back, (size_t)(HEIGHT * HEIGHT * channels));
    }
}

static void upright_pictures_are_cut_at_both_ends(void **state)
{
    (void)state;
    uint8_t pixels[50 * 32], back[32 * 32];
    struct bytes png;
    for (int i = 0; i < 50 * 32; i++)
        pixels[i] = (uint8_t)(i / 32);
    assert_int_equal(png_write(32, 50, 1, pixels, &png.bytes, &png.length), 0);
    store(png.bytes, png.length);
    free(png.bytes);
    assert_int_equal(image_load(path, 32, 1, back), 0);
    assert_int_equal(back[0], 9);
    assert_int_equal(back[32 * 32 - 1], 40);
}

/* --- JPEG ---------------------------------------------------------------------------------------- */

enum jpeg_kind { JPEG_COLOUR, JPEG_GREY, JPEG_PROGRESSIVE, JPEG_CMYK, JPEG_MANY_SCANS, JPEG_KINDS };

/* A valid progressive script of 1 + 3 x 63 scans: each coefficient alone, in three steps of precision. */
static int many_scans(jpeg_scan_info scans[190])
{
    int count = 0;
    scans[count++] = (jpeg_scan_info){.comps_in_scan = 1};
    for (int k = 1; k < 64; k++)
        for (int low = 2; low >= 0; low--)
            scans[count++] =
                (jpeg_scan_info){.comps_in_scan = 1, .Ss = k, .Se = k, .Ah = low == 2 ? 0 : low + 1, .Al = low};
    return count;
}

static struct bytes make_jpeg(enum jpeg_kind kind)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    jpeg_scan_info scans[190];
    unsigned char *bytes = NULL;
    unsigned long length = 0;
    int channels = kind == JPEG_GREY || kind == JPEG_MANY_SCANS ? 1 : kind == JPEG_CMYK ? 4 : 3;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &length);
    jpeg.image_width = WIDTH;
    jpeg.image_height = HEIGHT;
    jpeg.input_components = channels;
    jpeg.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 98, TRUE);
    for (int c = 0; c < channels; c++)
        jpeg.comp_info[c].h_samp_factor = jpeg.comp_info[c].v_samp_factor = 1;
    if (kind == JPEG_PROGRESSIVE)
        jpeg_simple_progression(&jpeg);
    if (kind == JPEG_MANY_SCANS) {
        jpeg.num_scans = many_scans(scans);
        jpeg.scan_info = scans;
    }
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        uint8_t row[WIDTH * 4];
        for (int i = 0; i < WIDTH * channels; i++)
            row[i] = shade(i / channels, (int)jpeg.next_scanline, i % channels);
        jpeg_write_scanlines(&jpeg, &(JSAMPROW){row}, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    return (struct bytes){bytes, length};
}

static void jpegs_are_read(void **state)
{
    (void)state;
    uint8_t pixels[SQUARE * SQUARE * 3];
    for (enum jpeg_kind kind = JPEG_COLOUR; kind <= JPEG_PROGRESSIVE; kind++) {
        struct bytes jpeg = make_jpeg(kind);
        store(jpeg.bytes, jpeg.length);
        free(jpeg.bytes);
        assert_int_equal(image_load(path, SQUARE, 3, pixels), 0);
        for (int i = 0; i < SQUARE * SQUARE * 3; i++) {
            int x = i / 3 % SQUARE + (WIDTH - SQUARE) / 2, y = i / 3 / SQUARE;
            assert_float_equal(pixels[i], shade(x, y, kind == JPEG_GREY ? 0 : i % 3), 4);
        }
    }
}

/* --- what is refused ----------------------------------------------------------------------------- */

static void assert_refused(int code, const char *message)
{
    uint8_t pixels[40 * 40 * 3];
    memset(pixels, 99, sizeof pixels);
    int result = image_load(path, 40, 1, pixels);
    if (result != code || !strstr(error_message(), message))
        fail_msg("%d '%s' instead of %d '%s'", result, error_message(), code, message);
    assert_int_equal(strncmp(error_message(), path, strlen(path)), 0);
    assert_int_equal(pixels[0], 99);
    assert_int_equal(pixels[1599], 99);
}

static uint32_t crc(const uint8_t *bytes, size_t length)
{
    uint32_t value = UINT32_MAX;
    for (size_t i = 0; i < length; i++) {
        value ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
    }
    return ~value;
}

static void put_32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Makes the checksums of all chunks right again, so that damage reaches the code behind them. */
static void mend_png(uint8_t *bytes, size_t length)
{
    for (size_t at = 8; at + 12 <= length;) {
        size_t count =
            (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 | (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (count > length - at - 12)
            return;
        put_32(bytes + at + 8 + count, crc(bytes + at + 4, count + 4));
        at += count + 12;
    }
}

static void png_of_sides(uint32_t width, uint32_t height)
{
    struct bytes png = make_png(&png_kinds[0]);
    put_32(png.bytes + 16, width);
    put_32(png.bytes + 20, height);
    mend_png(png.bytes, png.length);
    store(png.bytes, png.length);
    free(png.bytes);
}

static void each_refusal_has_its_reason(void **state)
{
    (void)state;
    unlink(path);
    assert_refused(ERROR_NOT_FOUND, "no such file");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(ERROR_INPUT, "not a regular file");
    unlink(path);
    store("", 0);
    assert_refused(ERROR_INPUT, "the file is empty");
    store("SIMPLE  =                    T", 30);
    assert_refused(ERROR_INPUT, "neither a PNG nor a JPEG");
    store("\xff\xd8", 2);
    assert_refused(ERROR_INPUT, "neither a PNG nor a JPEG");
    png_of_sides(31, 400);
    assert_refused(ERROR_INPUT, "too small: 31 x 400");
    png_of_sides(400, 31);
    assert_refused(ERROR_INPUT, "too small: 400 x 31");
    png_of_sides(32, 16385);
    assert_refused(ERROR_INPUT, "too large: 32 x 16385");
    png_of_sides(16384, 16384);
    assert_refused(ERROR_INPUT, "64 million in all");
    png_of_sides(0, 40);
    assert_refused(ERROR_INPUT, "damaged PNG");
    struct bytes jpeg = make_jpeg(JPEG_CMYK);
    store(jpeg.bytes, jpeg.length);
    free(jpeg.bytes);
    assert_refused(ERROR_INPUT, "JPEG");
    jpeg = make_jpeg(JPEG_MANY_SCANS);
    store(jpeg.bytes, jpeg.length);
    free(jpeg.bytes);
    assert_refused(ERROR_INPUT, "more than 100 scans");
    store("", 0);
    assert_int_equal(truncate(path, (off_t)IMAGE_FILE_BYTES_MAX + 1), 0);
    assert_refused(ERROR_LIMIT, "more than the limit");
}

/* A file cut short anywhere is refused, down to its last byte: half an image must not become a galaxy with
 * grey legs. */
static void every_cut_is_noticed(void **state)
{
    (void)state;
    uint8_t pixels[40 * 40];
    for (int i = 0; i < 4; i++) {
        struct bytes file = i == 0   ? make_png(&png_kinds[6])
                            : i == 1 ? make_png(&png_kinds[7])
                            : i == 2 ? make_jpeg(JPEG_COLOUR)
                                     : make_jpeg(JPEG_PROGRESSIVE);
        store(file.bytes, file.length);
        for (size_t length = file.length; length-- > 0;) {
            assert_int_equal(image_load(path, 40, 1, pixels), length + 1 == file.length ? 0 : ERROR_INPUT);
            assert_int_equal(truncate(path, (off_t)length), 0);
        }
        free(file.bytes);
    }
}

/* Bytes changed, cut and copied about at random: an image or a reason, never a crash (this runs under
 * sanitizers). */
static void damage_never_crashes(void **state)
{
    (void)state;
    uint8_t pixels[40 * 40 * 3];
    unsigned seed = 20240613;
    long good = 0, turns = 6000;
    print_message("seed %u\n", seed);
    for (long turn = 0; turn < turns; turn++) {
        size_t kind = (size_t)rand_r(&seed) % (PNG_KINDS + JPEG_KINDS);
        struct bytes file =
            kind < PNG_KINDS ? make_png(&png_kinds[kind]) : make_jpeg((enum jpeg_kind)(kind - PNG_KINDS));
        for (int changes = 1 + rand_r(&seed) % 6; changes > 0; changes--) {
            size_t at = (size_t)rand_r(&seed) % file.length;
            if (turn % 2) /* headers are short; give them their share */
                at %= 256;
            file.bytes[at] =
                rand_r(&seed) % 2 ? (uint8_t)rand_r(&seed) : file.bytes[at] ^ (uint8_t)(1u << rand_r(&seed) % 8);
        }
        if (turn % 3 == 0 && file.length > 64) /* one piece over another */
            memmove(file.bytes + rand_r(&seed) % 32 + 8, file.bytes + file.length / 2, file.length / 4);
        if (turn % 5 == 0)
            file.length = 1 + (size_t)rand_r(&seed) % file.length;
        if (kind < PNG_KINDS && turn % 4)
            mend_png(file.bytes, file.length);
        store(file.bytes, file.length);
        free(file.bytes);
        int result = image_load(path, 40, turn % 7 ? 1 : 3, pixels);
        assert_true(result == 0 || (result == ERROR_INPUT && error_message()[0]));
        good += result == 0;
    }
    print_message("%ld of %ld damaged files could be read\n", good, turns);
    assert_in_range(good, 1, turns / 2);
}

static void locations_resolve_against_the_catalogue(void **state)
{
    (void)state;
    char out[64];
    assert_int_equal(image_resolve("/data/gz2", "", "images/1.jpg", out, sizeof out), 0);
    assert_string_equal(out, "/data/gz2/images/1.jpg");
    assert_int_equal(image_resolve("/data/gz2", "/abs", "/abs/1.jpg", out, sizeof out), 0);
    assert_string_equal(out, "/abs/1.jpg");
    static const struct {
        const char *folders, *file_loc;
        int result;
    } absolute[] = {
        {"",                 "/data/gz2/1.jpg",  0          },
        {"",                 "/data/gz2//1.jpg", 0          },
        {"",                 "/data/gz2",        ERROR_INPUT},
        {"",                 "/data/gz22/1.jpg", ERROR_INPUT},
        {"",                 "/data/1.jpg",      ERROR_INPUT},
        {"",                 "/etc/passwd",      ERROR_INPUT},
        {"/a, /b/",          "/a/1.jpg",         0          },
        {"/a, /b/",          "/b/c/1.jpg",       0          },
        {"/a, /b/",          "/c/1.jpg",         ERROR_INPUT},
        {"/a, /b/",          "/aa/1.jpg",        ERROR_INPUT},
        {"relative, , /a/b", "/a/1.jpg",         ERROR_INPUT},
        {"/",                "/anything",        0          },
        {"/a,/",             "/etc/passwd",      0          },
    };
    for (size_t i = 0; i < sizeof absolute / sizeof *absolute; i++) {
        int result = image_resolve("/data/gz2", absolute[i].folders, absolute[i].file_loc, out, sizeof out);
        assert_int_equal(result, absolute[i].result);
        assert_string_equal(result ? absolute[i].file_loc : out, absolute[i].file_loc);
    }
    assert_non_null(strstr(error_message(), "images.folders"));
    assert_int_equal(image_resolve(".", "", "a b.png", out, sizeof out), 0);
    assert_string_equal(out, "./a b.png");
    assert_int_equal(image_resolve("/data", "", "", out, sizeof out), ERROR_INPUT);
    assert_int_equal(image_resolve("/data", "", "a\nb", out, sizeof out), ERROR_INPUT);
    const char *const climbing[] = {"..",   "../1.png", "a/../../b.png", "/data/../etc/passwd",
                                    "a/..", "./../a",   "a//../b"};
    for (size_t i = 0; i < sizeof climbing / sizeof *climbing; i++)
        assert_int_equal(image_resolve("/data", "", climbing[i], out, sizeof out), ERROR_INPUT);
    const char *const plain[] = {"..a/1.png", "a../1.png", "...", "a/.../b", "./a.png", "a..b"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        assert_int_equal(image_resolve("/data", "", plain[i], out, sizeof out), 0);
    assert_int_equal(
        image_resolve("/data", "", "12345678901234567890123456789012345678901234567890123456789", out, sizeof out),
        ERROR_LIMIT);
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/image", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resize_equals_brute_force),
        cmocka_unit_test(resize_of_known_pictures),
        cmocka_unit_test(every_kind_of_png_is_read),
        cmocka_unit_test(written_png_is_read_back),
        cmocka_unit_test(upright_pictures_are_cut_at_both_ends),
        cmocka_unit_test(jpegs_are_read),
        cmocka_unit_test(each_refusal_has_its_reason),
        cmocka_unit_test(every_cut_is_noticed),
        cmocka_unit_test(damage_never_crashes),
        cmocka_unit_test(locations_resolve_against_the_catalogue),
    };
    return cmocka_run_group_tests_name("image", tests, set_up, tear_down);
}
