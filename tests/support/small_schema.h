/* A decision tree for tests, made from the numbers of answers; names are q0_a0, q0_a1, ... */
#ifndef TRIAGE_TESTS_SMALL_SCHEMA_H
#define TRIAGE_TESTS_SMALL_SCHEMA_H

#include "model/schema.h"

/* parent [questions] answer index or -1 */
void small_schema(struct schema *schema, int questions, const int *answers, const int *parent);

#endif
