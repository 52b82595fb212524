/* See small_schema.h. */
#include "tests/support/small_schema.h"

#include <stdio.h>

void small_schema(struct schema *schema, int questions, const int *answers, const int *parent)
{
    *schema = (struct schema){.name = "small", .questions = questions};
    for (int q = 0; q < questions; q++) {
        struct question *question = &schema->question[q];
        *question = (struct question){.first = schema->answers, .count = answers[q], .parent = parent[q]};
        snprintf(question->name, sizeof question->name, "q%d", q);
        for (int a = 0; a < answers[q]; a++) {
            struct answer *answer = &schema->answer[schema->answers++];
            answer->question = q;
            snprintf(answer->name, sizeof answer->name, "a%d", a);
            snprintf(answer->column, sizeof answer->column, "q%d_a%d", q, a);
        }
    }
    hash_text(schema->answer, sizeof schema->answer[0] * (size_t)schema->answers, schema->hash);
}
