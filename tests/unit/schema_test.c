/* Decision trees: what a file means, what changes its hash, and that every bad file is refused by line and message. */
#include "base/error.h"
#include "base/philox.h"
#include "model/schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SEED 77u

static char folder[] = "/tmp/schema_test.XXXXXX";
static char path[64];

/* Answers: 0 shape_round 1 shape_flat 2 shape_odd, 3 edge_yes 4 edge_no, 5 arms_1 6 arms_2, 7 end_a 8 end_b. */
static const char good[] = "[schema]\n"
                           "name = small\n"
                           "description = for this test\n"
                           "[question shape]\n"
                           "answers = round, flat, odd\n"
                           "[question edge]\n"
                           "answers = yes, no\n"
                           "depends_on = shape_flat\n"
                           "[question arms]\n"
                           "answers = 1, 2\n"
                           "depends_on = edge_no\n"
                           "asked_after = end_a, edge_no\n"
                           "[question end]\n"
                           "answers = a, b\n"
                           "asked_after =\n";

static void store(const char *text, size_t length)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static void load(const char *text, struct schema *schema)
{
    store(text, strlen(text));
    if (schema_load(path, schema))
        fail_msg("%s", error_message());
}

/* `good` with the first `from` replaced. */
static const char *with(const char *from, const char *to)
{
    static char text[2048];
    const char *at = strstr(good, from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    return text;
}

static void what_a_file_means(void **state)
{
    (void)state;
    static struct schema schema;
    load(good, &schema);
    assert_string_equal(schema.name, "small");
    assert_string_equal(schema.description, "for this test");
    assert_int_equal(schema.questions, 4);
    assert_int_equal(schema.answers, 9);
    static const int first[] = {0, 3, 5, 7}, count[] = {3, 2, 2, 2}, parent[] = {-1, 1, 4, -1}, after[] = {0, 1, 2, 0};
    for (int q = 0; q < 4; q++) {
        assert_int_equal(schema.question[q].first, first[q]);
        assert_int_equal(schema.question[q].count, count[q]);
        assert_int_equal(schema.question[q].parent, parent[q]);
        assert_int_equal(schema.question[q].asked_after_count, after[q]);
        for (int a = first[q]; a < first[q] + count[q]; a++)
            assert_int_equal(schema.answer[a].question, q);
    }
    assert_int_equal(schema.question[1].asked_after[0], 1); /* as depends_on, for want of another word */
    assert_int_equal(schema.question[2].asked_after[0], 7); /* an answer of a later question */
    assert_int_equal(schema.question[2].asked_after[1], 4);
    assert_string_equal(schema.answer[2].name, "odd");
    assert_string_equal(schema.answer[2].column, "shape_odd");
    assert_int_equal(schema_find_answer(&schema, "arms", "2"), 6);
    assert_int_equal(schema_find_answer(&schema, "edge", "2"), -1);
    assert_int_equal(schema_find_answer(&schema, "none", "yes"), -1);
    assert_int_equal(schema_find_column(&schema, "end_b"), 8);
    assert_int_equal(schema_find_column(&schema, "end_"), -1);
}

static void how_likely_a_question_is_asked(void **state)
{
    (void)state;
    static struct schema schema;
    const float fraction[9] = {0.25f, 0.5f, 0.25f, 0.75f, 0.25f, 0.5f, 0.5f, 1, 0};
    const float wanted[4] = {1, 0.5f, 0.125f, 1}; /* flat; flat and not edge-on */
    float reached[4];
    load(good, &schema);
    schema_reached(&schema, fraction, reached);
    assert_memory_equal(reached, wanted, sizeof wanted);
}

static void the_hash_is_of_the_meaning(void **state)
{
    (void)state;
    static struct schema schema, other;
    static const char *const same[][2] = {
        {"[schema]",                   "# a comment\n\n  [schema]"                          },
        {"answers = round, flat, odd", "answers=round,flat ,  odd ; why"                    },
        {"depends_on = edge_no\n",     "\n\tdepends_on  =  edge_no   \r\n"                  },
        {"for this test",              "for another"                                        },
        {"depends_on = shape_flat\n",  "depends_on = shape_flat\nasked_after = shape_flat\n"},
    };
    static const char *const differs[][2] = {
        {"round, flat, odd",             "flat, round, odd"                                 },
        {"round, flat, odd",             "round, flat"                                      },
        {"round, flat, odd",             "round, flat, odd, none"                           },
        {"round, flat, odd",             "round, flat, Odd"                                 },
        {"[question end]",               "[question ending]\nanswers = c, d\n[question end]"},
        {"depends_on = edge_no",         "depends_on = edge_yes"                            },
        {"depends_on = edge_no\n",       ""                                                 },
        {"asked_after = end_a, edge_no", "asked_after = end_b, edge_no"                     },
        {"asked_after = end_a, edge_no", "asked_after = edge_no"                            },
        {"asked_after =\n",              "asked_after = shape_round\n"                      },
        {"asked_after =\n",              "depends_on = shape_round\n"                       },
        {"1, 2\ndepends_on = edge_no\n", "2, 1\ndepends_on = edge_no\n"                     },
    };
    load(good, &schema);
    assert_int_equal(strlen(schema.hash), HASH_TEXT_BYTES - 1);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        load(with(same[i][0], same[i][1]), &other);
        assert_string_equal(other.hash, schema.hash);
    }
    char seen[1 + sizeof differs / sizeof *differs][HASH_TEXT_BYTES];
    memcpy(seen[0], schema.hash, HASH_TEXT_BYTES);
    for (size_t i = 0; i < sizeof differs / sizeof *differs; i++) {
        load(with(differs[i][0], differs[i][1]), &other);
        memcpy(seen[i + 1], other.hash, HASH_TEXT_BYTES);
        for (size_t j = 0; j <= i; j++)
            assert_string_not_equal(seen[i + 1], seen[j]);
    }
}

/* Loading `text` fails with this code, line and words, and leaves the result alone. */
static void refused(const char *text, size_t length, int code, int line, const char *words)
{
    static struct schema schema, before;
    char where[96];
    memset(&before, 0xa5, sizeof before);
    memcpy(&schema, &before, sizeof before);
    store(text, length);
    int result = schema_load(path, &schema);
    if (line)
        snprintf(where, sizeof where, "%s:%d: ", path, line);
    else
        snprintf(where, sizeof where, "%s: ", path);
    if (result != code || strncmp(error_message(), where, strlen(where)) != 0 || !strstr(error_message(), words))
        fail_msg("%d %s\nwanted %d %s...%s\nof %s", result, error_message(), code, where, words, text);
    assert_memory_equal(&schema, &before, sizeof before);
}

/* Entries are judged on their own line, relations at the end, on the line where their question begins. */
static void bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        int line;
        const char *words;
    } cases[] = {
        {"= shape_flat",            "= shape_square",                                  6,
         "question 'edge' depends on 'shape_square', which is no answer of an earlier"                                                             },
        {"= shape_flat",            "= flat",                                          6,  "depends on 'flat'"                                     },
        {"= shape_flat",            "= edge_yes",                                      6,  "depends on 'edge_yes'"                                 },
        {"= shape_flat",            "= end_a",                                         6,  "depends on 'end_a', which is no answer of an earlier"  },
        {"= end_a, edge_no",        "= end_c",                                         9,  "asked_after names 'end_c', which is no answer"         },
        {"= end_a, edge_no",        "= arms_1",                                        9,  "question 'arms' is asked after its own answer 'arms_1'"},
        {"= end_a, edge_no",        "= edge_no, edge_no",                              9,  "asked_after names 'edge_no' twice"                     },
        {"= end_a, edge_no",        "= end_a,, edge_no",                               9,  "an empty or too long item"                             },
        {"= end_a, edge_no",        "= end_a, edge_no,",                               9,  "an empty or too long item"                             },
        {"answers = yes, no\n",     "",                                                6,  "question 'edge' has fewer than two answers"            },
        {"yes, no",                 "",                                                6,  "question 'edge' has fewer than two answers"            },
        {"yes, no",                 "yes",                                             6,  "question 'edge' has fewer than two answers"            },
        {"yes, no",                 "yes, no, yes",                                    7,  "answer 'edge_yes' appears twice"                       },
        {"yes, no",                 "yes,, no",                                        7,  "an empty or too long item"                             },
        {"yes, no",                 ", yes, no",                                       7,  "an empty or too long item"                             },
        {"yes, no",                 "yes, no,",                                        7,  "an empty or too long item"                             },
        {"yes, no",                 "yes, n o",                                        7,  "'n o': names consist of"                               },
        {"yes, no",                 "yes, n\xc3\xb6",                                  7,  "names consist of"                                      },
        {"yes, no",                 "yes, no\nanswers = 3, 4",                         8,  "'answers' given twice"                                 },
        {"[question edge]",         "[question shape]",                                6,  "question 'shape' appears twice"                        },
        {"[question edge]",         "[question ]",                                     6,  "a question has no name"                                },
        {"[question edge]",         "[question]",                                      6,  "unknown section [question]"                            },
        {"[question edge]",         "[answers edge]",                                  6,  "unknown section [answers edge]"                        },
        {"[question edge]",         "[question edge",                                  6,  "a section header reads [name]"                         },
        {"[question edge]",         "[question e=d]",                                  6,  "'e=d': names consist of"                               },
        {"[question edge]",         "edge",                                            6,  "expected 'key = value'"                                },
        {"depends_on = shape_flat", "parent = shape_flat",                             8,  "unknown key 'parent'"                                  },
        {"depends_on = shape_flat", "depends_on = shape_flat\ndepends_on = shape_odd", 9,  "'depends_on' given twice"                              },
        {"asked_after =\n",         "asked_after =\nasked_after =\n",                  16, "'asked_after' given twice"                             },
        {"name = small",            "name = small\nname = large",                      3,  "'name' given twice"                                    },
        {"name = small",            "name =",                                          2,  "the schema has no name"                                },
        {"name = small",            "name = ../small",                                 2,  "'../small': names consist of"                          },
        {"name = small",            "title = small",                                   2,  "unknown key 'title' in [schema]"                       },
        {"[schema]\n",              "",                                                1,  "unknown section []"                                    },
        {"name = small\n",          "",                                                0,  "a schema needs a name and at least one question"       },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text = with(cases[i].from, cases[i].to);
        refused(text, strlen(text), ERROR_INPUT, cases[i].line, cases[i].words);
    }
    refused("", 0, ERROR_INPUT, 0, "a schema needs a name");
    refused("[schema]\nname = none\n", 21, ERROR_INPUT, 0, "at least one question");
    /* two names, one column: "a_b" + "c" and "a" + "b_c" */
    static const char clash[] = "[schema]\nname = x\n[question a_b]\nanswers = c, d\n[question a]\nanswers = b_c, e\n";
    refused(clash, sizeof clash - 1, ERROR_INPUT, 6, "answer 'a_b_c' appears twice");
    refused(good, sizeof good, ERROR_INPUT, 0, "holds a zero byte"); /* with the zero at its end */
}

/* The cycle is named, not the question that only hangs on it. */
static void a_cycle_behind_others(void **state)
{
    (void)state;
    static const char text[] = "[schema]\nname = x\n"
                               "[question start]\nanswers = a, b\n"
                               "[question one]\nanswers = a, b\nasked_after = three_a\n"
                               "[question two]\nanswers = a, b\nasked_after = one_a, start_a\n"
                               "[question three]\nanswers = a, b\nasked_after = two_b\n"
                               "[question last]\nanswers = a, b\nasked_after = three_b\n";
    static struct schema schema;
    int line = 0;
    store(text, sizeof text - 1);
    assert_int_equal(schema_load(path, &schema), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "is asked only after itself"));
    line = (int)strtol(error_message() + strlen(path) + 1, NULL, 10);
    assert_true(line == 5 || line == 8 || line == 11);
}

struct text {
    char bytes[1 << 17];
    size_t length;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    text->length += (size_t)vsnprintf(text->bytes + text->length, sizeof text->bytes - text->length, format, arguments);
    va_end(arguments);
    assert_true(text->length < sizeof text->bytes);
}

/* A tree of so many roots with so many answers each; the last question has `last` answers. */
static struct text *wide(int questions, int answers, int last)
{
    static struct text text;
    text.length = 0;
    add(&text, "[schema]\nname = wide\n");
    for (int q = 0; q < questions; q++) {
        add(&text, "[question q%d]\nanswers = 0", q);
        for (int a = 1; a < (q + 1 < questions ? answers : last); a++)
            add(&text, ", %d", a);
        add(&text, "\n");
    }
    return &text;
}

static void refuse_limit(const char *from, const char *to, int line, const char *words)
{
    const char *text = with(from, to);
    refused(text, strlen(text), ERROR_LIMIT, line, words);
}

/* The largest tree is taken, one more of anything is not. */
static void limits(void **state)
{
    (void)state;
    static struct schema schema;
    static char long_name[sizeof schema.description + 1], question[SCHEMA_NAME_BYTES + 2];
    struct text *text = wide(128, 4, 4);
    load(text->bytes, &schema);
    assert_int_equal(schema.questions, 128);
    assert_int_equal(schema.answers, 512);
    load(wide(32, 16, 16)->bytes, &schema);
    assert_int_equal(schema.answers, 512);
    text = wide(129, 2, 2);
    refused(text->bytes, text->length, ERROR_LIMIT, 3 + 2 * 128, "more than 128 questions");
    text = wide(2, 3, 17);
    refused(text->bytes, text->length, ERROR_LIMIT, 6, "or 16 to one question");
    text = wide(128, 4, 5);
    refused(text->bytes, text->length, ERROR_LIMIT, 4 + 2 * 127, "more than 512 answers");

    memset(long_name, 'n', SCHEMA_NAME_BYTES - 1);
    load(with("small", long_name), &schema);
    assert_string_equal(schema.name, long_name);
    long_name[SCHEMA_NAME_BYTES - 1] = 'n';
    snprintf(question, sizeof question, "%s]", long_name);
    refuse_limit("small", long_name, 2, "name of the schema longer than 63 characters");
    refuse_limit("yes", long_name, 7, "name of an answer longer than 63 characters");
    refuse_limit("end]", question, 13, "name of a question longer than 63 characters");
    memset(long_name, 'n', sizeof schema.description - 1);
    load(with("for this test", long_name), &schema);
    assert_string_equal(schema.description, long_name);
    long_name[sizeof schema.description - 1] = 'n';
    refuse_limit("for this test", long_name, 3, "'description' longer than 255 characters");
}

static void no_file(void **state)
{
    (void)state;
    struct schema *schema = calloc(1, sizeof *schema);
    assert_int_equal(schema_load("/tmp/no-such-folder/schema.ini", schema), ERROR_NOT_FOUND);
    assert_non_null(strstr(error_message(), "/tmp/no-such-folder/schema.ini"));
    free(schema);
}

/* Damaged files: refused with the file's name, or a tree whose numbers hold together. */
static void damaged_files(void **state)
{
    (void)state;
    static struct schema schema;
    int taken = 0, seen_errors = 0;
    printf("seed %u\n", SEED);
    for (uint32_t round = 0; round < 3000; round++) {
        char text[sizeof good];
        memcpy(text, good, sizeof good);
        for (uint32_t i = 0; i < 1 + round % 4; i++) {
            struct philox random = philox(SEED, round, i, 0, 0);
            static const char bytes[] = "\n\n,,=[]#; _aeno12\t\xff";
            text[random.word[0] % (sizeof good - 1)] = bytes[random.word[1] % (sizeof bytes - 1)];
        }
        store(text, sizeof good - 1);
        if (schema_load(path, &schema)) {
            seen_errors++;
            assert_int_equal(strncmp(error_message(), path, strlen(path)), 0);
            continue;
        }
        taken++;
        int next = 0;
        for (int q = 0; q < schema.questions; q++) {
            assert_int_equal(schema.question[q].first, next);
            assert_true(schema.question[q].parent < next);
            next += schema.question[q].count;
        }
        assert_int_equal(next, schema.answers);
    }
    assert_true(taken > 100 && seen_errors > 100);
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/tree.ini", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_file_means),
        cmocka_unit_test(how_likely_a_question_is_asked),
        cmocka_unit_test(the_hash_is_of_the_meaning),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(a_cycle_behind_others),
        cmocka_unit_test(limits),
        cmocka_unit_test(no_file),
        cmocka_unit_test(damaged_files),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
