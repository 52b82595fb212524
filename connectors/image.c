/* Choosing the decoder, cropping and resizing; see image.h. */
#include "connectors/image.h"
#include "base/error.h"
#include "base/file.h"
#include "connectors/image_decode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int image_check_sides(unsigned long width, unsigned long height)
{
    unsigned long small = width < height ? width : height, large = width < height ? height : width;
    if (small < IMAGE_SIDE_MIN)
        return error_set(ERROR_INPUT, "too small: %lu x %lu pixels, at least %d are needed", width, height,
                         IMAGE_SIDE_MIN);
    if (large > IMAGE_SIDE_MAX || small * large > IMAGE_PIXELS_MAX)
        return error_set(ERROR_INPUT,
                         "too large: %lu x %lu pixels, at most %d on a side and %lu million in all are taken", width,
                         height, IMAGE_SIDE_MAX, IMAGE_PIXELS_MAX >> 20);
    return 0;
}

/* Source pixels and their shares for each output pixel along one axis. */
struct axis {
    int first, count;
    float *share;
};

static int make_axes(int source_side, int side, struct axis **ret_axes)
{
    double step = (double)source_side / side;
    int longest = (int)ceil(step) + 2;
    struct axis *axes = malloc((size_t)side * (sizeof *axes + (size_t)longest * sizeof(float)));
    if (!axes)
        return error_set(ERROR_SYSTEM, "out of memory for resizing an image");
    float *shares = (float *)(void *)(axes + side);
    for (int i = 0; i < side; i++) {
        double from = i * step, to = (i + 1) * step;
        int first = (int)from, last = (int)ceil(to - 1e-9) - 1;
        if (last >= source_side)
            last = source_side - 1;
        axes[i] = (struct axis){first, last - first + 1, shares + (size_t)i * (size_t)longest};
        for (int j = first; j <= last; j++) {
            double low = j > from ? j : from, high = j + 1 < to ? j + 1 : to;
            axes[i].share[j - first] = (float)((high - low) / step);
        }
    }
    *ret_axes = axes;
    return 0;
}

/* One source row to floats: the grey mean, or the three colours (a grey source repeated). */
static void widen_row(const uint8_t *source, int count, int source_channels, int channels, float *row)
{
    for (int x = 0; x < count; x++)
        for (int c = 0; c < channels; c++)
            row[x * channels + c] = source_channels == 1 ? source[x]
                                    : channels == 3
                                        ? source[3 * x + c]
                                        : (float)(source[3 * x] + source[3 * x + 1] + source[3 * x + 2]) / 3.0f;
}

int image_resize(const uint8_t *source, int width, int left, int top, int source_side, int source_channels, int side,
                 int channels, uint8_t *pixels)
{
    struct axis *axes = NULL;
    int result = make_axes(source_side, side, &axes), line = source_side * channels;
    if (result)
        return result;
    float *row = malloc(2 * (size_t)line * sizeof *row), *sum = row ? row + line : NULL;
    if (!row) {
        free(axes);
        return error_set(ERROR_SYSTEM, "out of memory for resizing an image");
    }
    for (int y = 0; y < side; y++) {
        memset(sum, 0, (size_t)line * sizeof *sum);
        for (int j = 0; j < axes[y].count; j++) {
            long at = ((long)(top + axes[y].first + j) * width + left) * source_channels;
            float share = axes[y].share[j];
            widen_row(source + at, source_side, source_channels, channels, row);
            for (int i = 0; i < line; i++)
                sum[i] += share * row[i];
        }
        for (int x = 0; x < side; x++)
            for (int c = 0; c < channels; c++) {
                float value = 0;
                for (int j = 0; j < axes[x].count; j++)
                    value += axes[x].share[j] * sum[(axes[x].first + j) * channels + c];
                pixels[((long)y * side + x) * channels + c] = (uint8_t)lrintf(fminf(value, 255));
            }
    }
    free(row);
    free(axes);
    return 0;
}

static int decode(const uint8_t *bytes, size_t length, struct decoded *decoded)
{
    static const uint8_t png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    if (length >= sizeof png && memcmp(bytes, png, sizeof png) == 0)
        return image_decode_png(bytes, length, decoded);
    if (length >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff)
        return image_decode_jpeg(bytes, length, decoded);
    return length ? error_set(ERROR_INPUT, "neither a PNG nor a JPEG") : error_set(ERROR_INPUT, "the file is empty");
}

int image_load(const char *path, int side, int channels, uint8_t *pixels)
{
    char *bytes;
    size_t length;
    struct decoded decoded;
    int result = file_read(path, IMAGE_FILE_BYTES_MAX, &bytes, &length);
    if (result)
        return result;
    result = decode((const uint8_t *)bytes, length, &decoded);
    free(bytes);
    if (result)
        return error_prefix(result, "%s: ", path);
    int square = decoded.width < decoded.height ? decoded.width : decoded.height;
    result = image_resize(decoded.pixels, decoded.width, (decoded.width - square) / 2, (decoded.height - square) / 2,
                          square, decoded.channels, side, channels, pixels);
    free(decoded.pixels);
    return result;
}

/* A catalogue from elsewhere must not reach what lies above its folder. */
static int has_parent_step(const char *path)
{
    for (const char *at = path; *at; at += strcspn(at, "/"), at += *at == '/')
        if (strcspn(at, "/") == 2 && at[0] == '.' && at[1] == '.')
            return 1;
    return 0;
}

/* Whether `path` lies in `folder`, of `length` characters, whatever '/' either of them has too many. */
static int lies_in(const char *path, const char *folder, size_t length)
{
    while (length && folder[length - 1] == '/')
        length--;
    return strncmp(path, folder, length) == 0 && path[length] == '/';
}

static int is_allowed(const char *path, const char *catalogue_folder, const char *folders)
{
    int allowed = lies_in(path, catalogue_folder, strlen(catalogue_folder));
    for (const char *at = folders; *at && !allowed; at += strcspn(at, ","), at += *at == ',') {
        at += strspn(at, " ");
        allowed = *at == '/' && lies_in(path, at, strcspn(at, ","));
    }
    return allowed;
}

int image_resolve(const char *catalogue_folder, const char *folders, const char *file_loc, char *path, size_t size)
{
    if (!*file_loc)
        return error_set(ERROR_INPUT, "the file location is empty");
    for (const char *at = file_loc; *at; at++)
        if ((unsigned char)*at < 32)
            return error_set(ERROR_INPUT, "the file location holds a control character");
    if (has_parent_step(file_loc))
        return error_set(ERROR_INPUT, "the file location %.200s goes up with '..': name the folder itself", file_loc);
    if (file_loc[0] == '/' && !is_allowed(file_loc, catalogue_folder, folders))
        return error_set(
            ERROR_INPUT,
            "the file location %.200s is outside the catalogue's folder, %.200s: allow its folder with images.folders",
            file_loc, catalogue_folder);
    return file_loc[0] == '/' ? file_path(path, size, "%s", file_loc)
                              : file_path(path, size, "%s/%s", catalogue_folder, file_loc);
}
