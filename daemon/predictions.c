/* See predictions.h. */
#include "daemon/predictions.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "connectors/csv.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES_MAX ((size_t)4 << 30)
#define ROWS_AT_ONCE   4096

static int append_part(struct text *text, const struct trunk_fit *fit, const struct training_set *set, int views,
                       const char *part, const uint64_t *row, size_t count)
{
    size_t outputs = (size_t)set->target.outputs;
    float *prediction = malloc(ROWS_AT_ONCE * outputs * sizeof *prediction);
    int result = prediction ? 0 : error_set(ERROR_SYSTEM, "out of memory for predictions");
    for (size_t first = 0; first < count && !result; first += ROWS_AT_ONCE) {
        size_t here = count - first < ROWS_AT_ONCE ? count - first : ROWS_AT_ONCE;
        result = trunk_fit_predict(fit, trunk_fit_best(fit), row + first, here, views, prediction);
        for (size_t i = 0; i < here && !result; i++) {
            csv_append_field(text, set->id_str[row[first + i]]);
            text_append(text, ",%s", part);
            for (size_t k = 0; k < outputs; k++)
                text_append(text, ",%.6g", (double)prediction[i * outputs + k]);
            text_append(text, "\n");
        }
    }
    free(prediction);
    return result ? result : text_error(text);
}

int predictions_write(const struct trunk_fit *fit, const struct training_set *set, int views, const char *folder)
{
    const struct {
        const char *name;
        const uint64_t *row;
        size_t count;
    } parts[] = {
        {"validation", set->validation_row, set->validation_count},
        {"test",       set->test_row,       set->test_count      },
        {"unlabelled", set->open_row,       set->open_count      },
    };
    char path[FILE_PATH_BYTES];
    struct text text = text_new(TEXT_BYTES_MAX);
    int result = file_path(path, sizeof path, "%s/predictions.csv", folder);
    text_append(&text, "id_str,part");
    for (int i = 0; i < set->target.outputs; i++) {
        text_append(&text, ",");
        csv_append_field(&text, set->output[i]);
    }
    text_append(&text, "\n");
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !result; i++)
        result = append_part(&text, fit, set, views, parts[i].name, parts[i].row, parts[i].count);
    struct file_part part = {text.bytes, text.length};
    if (!result)
        result = file_write(path, &part, 1, 0644);
    text_free(&text);
    return result;
}
