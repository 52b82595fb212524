/* Cells of the database's rows as numbers; see database.h. */
#include "connectors/database.h"

#include <stdlib.h>

const char *database_text(const struct database_result *result, int row, int column)
{
    const char *text = database_value(result, row, column);
    return text ? text : "";
}

int64_t database_integer(const struct database_result *result, int row, int column)
{
    return strtoll(database_text(result, row, column), NULL, 10);
}

double database_real(const struct database_result *result, int row, int column)
{
    return strtod(database_text(result, row, column), NULL);
}

int database_integers(const char *text, int64_t *values, int limit)
{
    int count = 0;
    if (!text || *text != '{')
        return 0;
    for (text++; *text && *text != '}' && count < limit; text += *text == ',') {
        char *end;
        values[count++] = strtoll(text, &end, 10);
        if (end == text)
            return count - 1;
        text = end;
    }
    return count;
}
