/*
 * Every decision tree of etc/schemas against the published ones. The numbers are those of galaxy-datasets
 * (github.com/mwalmsley/galaxy-datasets, commit 3cd2149, label_metadata.py), written down as answers per question and as
 * the number of the answer each question depends on; two small trees are zoobot's. What volunteers really saw is the
 * interface's tree (github.com/zooniverse/Galaxy-Zoo, commit 355aa59).
 */
#include "base/error.h"
#include "model/schema.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DECALS  "- 1 4 4 4 0 3 5 5 -"
#define GZ2     "- 1 1 1 1 - 0 3 5 5"
#define CANDELS "- 0 1 7 8 9 9 9 9 9"

static const struct tree {
    const char *name;
    int questions, answers;
    const char *counts;  /* answers of each question */
    const char *parents; /* answer each question depends on, '-' for none */
    const char *suffix;  /* of every question */
} trees[] = {
    {"cosmic_dawn",       13, 45, "3223533364236", DECALS " 4 2 37",        ""        },
    {"cosmic_dawn_ortho", 13, 45, "3223533364236", DECALS " 4 2 37",        "-cd"     },
    {"decals",            10, 34, "3223533364",    DECALS,                  ""        },
    {"decals_dr12",       10, 30, "3222333354",    DECALS,                  "-dr12"   },
    {"decals_dr5",        10, 34, "3223533364",    DECALS,                  "-dr5"    },
    {"decals_dr8",        10, 34, "3223533364",    DECALS,                  "-dr8"    },
    {"desi",              10, 34, "3223533364",    DECALS,                  ""        },
    {"euclid",            13, 46, "3223533364237", DECALS " 4 2 37",        ""        },
    {"euclid_ortho",      13, 46, "3223533364237", DECALS " 4 2 37",        "-euclid" },
    {"gz2",               10, 30, "3222423336",    GZ2,                     "-gz2"    },
    {"gz2_no_suffix",     10, 30, "3222423336",    GZ2,                     ""        },
    {"gz2_partial",       1,  2,  "2",             "-",                     "-gz2"    },
    {"gz2_w21_tf",        10, 29, "2222423336",    "- 1 3 3 3 - 0 2 4 4",   ""        },
    {"gz_candels",        11, 32, "33222223634",   CANDELS " -",            "-candels"},
    {"gz_hubble",         12, 34, "332232236422",  CANDELS " 6 6",          "-hubble" },
    {"gz_hubble_v2",      9,  28, "332322364",     "- 0 1 6 7 7 7 7 7",     "-hubble" },
    {"jwst",              12, 39, "322353336243",  DECALS " - 2",           "-jwst"   },
    {"jwst_cosmos",       11, 36, "32235336243",   "- 1 4 4 4 3 5 5 - - 2", "-jwst"   },
    {"rings",             1,  2,  "2",             "-",                     ""        },
    {"ukidss",            10, 30, "3222423336",    GZ2,                     "-ukidss" },
};

#define PARTS_MAX 8
static const struct union_of_trees {
    const char *name;
    int questions, answers;
    const char *parts[PARTS_MAX];
} unions[] = {
    {"decals_all_campaigns", 30, 98,  {"decals_dr12", "decals_dr5", "decals_dr8"}                                     },
    {"gz_evo_v1",
     76,                         239,
     {"decals_dr12", "decals_dr5", "decals_dr8", "gz2", "gz_candels", "gz_hubble", "cosmic_dawn_ortho"}               },
    {"gz_evo_v1_public",     63, 194, {"decals_dr12", "decals_dr5", "decals_dr8", "gz2", "gz_candels", "gz_hubble"}   },
    {"gz_evo_v2",
     86,                         279,
     {"decals_dr12", "decals_dr5", "decals_dr8", "gz2", "gz_candels", "gz_hubble_v2", "cosmic_dawn_ortho",
      "euclid_ortho"}                                                                                                 },
    {"gz_evo_v2_public",     60, 188, {"decals_dr12", "decals_dr5", "decals_dr8", "gz2", "gz_candels", "gz_hubble_v2"}},
};

#define TREES  ((int)(sizeof trees / sizeof *trees))
#define UNIONS ((int)(sizeof unions / sizeof *unions))

static struct schema *load(const char *name)
{
    char path[512];
    struct schema *schema = malloc(sizeof *schema);
    assert_non_null(schema);
    snprintf(path, sizeof path, "%s/etc/schemas/%s.ini", TRIAGE_SOURCE_FOLDER, name);
    if (schema_load(path, schema))
        fail_msg("%s", error_message());
    assert_string_equal(schema->name, name);
    assert_true(schema->description[0]);
    return schema;
}

static void as_published(void **state)
{
    (void)state;
    for (int t = 0; t < TREES; t++) {
        struct schema *schema = load(trees[t].name);
        assert_int_equal(schema->questions, trees[t].questions);
        assert_int_equal(schema->answers, trees[t].answers);
        assert_int_equal((int)strlen(trees[t].counts), schema->questions);
        const char *parent = trees[t].parents;
        for (int q = 0; q < schema->questions; q++) {
            const struct question *question = &schema->question[q];
            assert_int_equal(question->count, trees[t].counts[q] - '0');
            char *end = (char *)parent + 1;
            int wanted = *parent == '-' ? -1 : (int)strtol(parent, &end, 10);
            if (question->parent != wanted)
                fail_msg("%s: %s depends on %d, not %d", trees[t].name, question->name, question->parent, wanted);
            parent = end + strspn(end, " ");
            size_t name = strlen(question->name), suffix = strlen(trees[t].suffix);
            assert_true(name > suffix);
            assert_string_equal(question->name + name - suffix, trees[t].suffix);
        }
        assert_int_equal(*parent, 0);
        free(schema);
    }
}

static void moved_equals(int whole, int part, int by)
{
    assert_int_equal(whole, part < 0 ? part : part + by);
}

/* Trees of several campaigns are theirs one after the other, answers and relations moved along. */
static void campaigns_side_by_side(void **state)
{
    (void)state;
    for (int u = 0; u < UNIONS; u++) {
        struct schema *whole = load(unions[u].name);
        assert_int_equal(whole->questions, unions[u].questions);
        assert_int_equal(whole->answers, unions[u].answers);
        int questions = 0, answers = 0;
        for (int p = 0; p < PARTS_MAX && unions[u].parts[p]; p++) {
            struct schema *part = load(unions[u].parts[p]);
            for (int q = 0; q < part->questions; q++) {
                const struct question *a = &whole->question[questions + q], *b = &part->question[q];
                assert_string_equal(a->name, b->name);
                moved_equals(a->parent, b->parent, answers);
                assert_int_equal(a->asked_after_count, b->asked_after_count);
                for (int i = 0; i < b->asked_after_count; i++)
                    moved_equals(a->asked_after[i], b->asked_after[i], answers);
            }
            for (int a = 0; a < part->answers; a++)
                assert_string_equal(whole->answer[answers + a].column, part->answer[a].column);
            questions += part->questions;
            answers += part->answers;
            free(part);
        }
        assert_int_equal(questions, whole->questions);
        assert_int_equal(answers, whole->answers);
        free(whole);
    }
}

/* The columns of the published catalogues, in the order of the networks' outputs. */
static const char *const decals_columns[34] = {
    "smooth-or-featured_smooth",
    "smooth-or-featured_featured-or-disk",
    "smooth-or-featured_artifact",
    "disk-edge-on_yes",
    "disk-edge-on_no",
    "has-spiral-arms_yes",
    "has-spiral-arms_no",
    "bar_strong",
    "bar_weak",
    "bar_no",
    "bulge-size_dominant",
    "bulge-size_large",
    "bulge-size_moderate",
    "bulge-size_small",
    "bulge-size_none",
    "how-rounded_round",
    "how-rounded_in-between",
    "how-rounded_cigar-shaped",
    "edge-on-bulge_boxy",
    "edge-on-bulge_none",
    "edge-on-bulge_rounded",
    "spiral-winding_tight",
    "spiral-winding_medium",
    "spiral-winding_loose",
    "spiral-arm-count_1",
    "spiral-arm-count_2",
    "spiral-arm-count_3",
    "spiral-arm-count_4",
    "spiral-arm-count_more-than-4",
    "spiral-arm-count_cant-tell",
    "merging_none",
    "merging_minor-disturbance",
    "merging_major-disturbance",
    "merging_merger",
};

static const char *const gz2_columns[30] = {
    "smooth-or-featured-gz2_smooth",
    "smooth-or-featured-gz2_featured-or-disk",
    "smooth-or-featured-gz2_artifact",
    "disk-edge-on-gz2_yes",
    "disk-edge-on-gz2_no",
    "has-spiral-arms-gz2_yes",
    "has-spiral-arms-gz2_no",
    "bar-gz2_yes",
    "bar-gz2_no",
    "bulge-size-gz2_dominant",
    "bulge-size-gz2_obvious",
    "bulge-size-gz2_just-noticeable",
    "bulge-size-gz2_no",
    "something-odd-gz2_yes",
    "something-odd-gz2_no",
    "how-rounded-gz2_round",
    "how-rounded-gz2_in-between",
    "how-rounded-gz2_cigar",
    "bulge-shape-gz2_round",
    "bulge-shape-gz2_boxy",
    "bulge-shape-gz2_no-bulge",
    "spiral-winding-gz2_tight",
    "spiral-winding-gz2_medium",
    "spiral-winding-gz2_loose",
    "spiral-arm-count-gz2_1",
    "spiral-arm-count-gz2_2",
    "spiral-arm-count-gz2_3",
    "spiral-arm-count-gz2_4",
    "spiral-arm-count-gz2_more-than-4",
    "spiral-arm-count-gz2_cant-tell",
};

static void columns(void **state)
{
    (void)state;
    struct schema *schema = load("decals");
    for (int a = 0; a < 34; a++)
        assert_string_equal(schema->answer[a].column, decals_columns[a]);
    free(schema);
    schema = load("gz2");
    for (int a = 0; a < 30; a++)
        assert_string_equal(schema->answer[a].column, gz2_columns[a]);
    free(schema);
}

/* What leads volunteers to a question, where it is not the answer the models' arithmetic uses. */
static void as_volunteers_saw_it(void **state)
{
    (void)state;
    static const struct {
        const char *name, *question, *after[2];
    } seen[] = {
        {"gz2",        "has-spiral-arms-gz2",     {"disk-edge-on-gz2_no"}                                                     },
        {"gz2",        "bar-gz2",                 {"disk-edge-on-gz2_no"}                                                     },
        {"gz2",        "bulge-size-gz2",          {"disk-edge-on-gz2_no"}                                                     },
        {"gz2",        "something-odd-gz2",       {"smooth-or-featured-gz2_smooth", "smooth-or-featured-gz2_featured-or-disk"}},
        {"decals",     "merging",                 {"smooth-or-featured_smooth", "smooth-or-featured_featured-or-disk"}        },
        {"gz_candels", "spiral-winding-candels",  {"has-spiral-arms-candels_yes"}                                             },
        {"gz_hubble",  "spiral-arm-count-hubble", {"has-spiral-arms-hubble_yes"}                                              },
    };
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) {
        struct schema *schema = load(seen[i].name);
        int q = 0, count = seen[i].after[1] ? 2 : 1;
        while (q < schema->questions && strcmp(schema->question[q].name, seen[i].question) != 0)
            q++;
        assert_true(q < schema->questions);
        assert_int_equal(schema->question[q].asked_after_count, count);
        for (int a = 0; a < count; a++)
            assert_string_equal(schema->answer[schema->question[q].asked_after[a]].column, seen[i].after[a]);
        free(schema);
    }
}

/* Only trees that mean the same have the same hash. */
static void hashes(void **state)
{
    (void)state;
    static char hash[TREES + UNIONS][HASH_TEXT_BYTES];
    for (int i = 0; i < TREES + UNIONS; i++) {
        struct schema *schema = load(i < TREES ? trees[i].name : unions[i - TREES].name);
        memcpy(hash[i], schema->hash, HASH_TEXT_BYTES);
        free(schema);
        for (int j = 0; j < i; j++) {
            int same =
                j < TREES && i < TREES && strcmp(trees[j].name, "decals") == 0 && strcmp(trees[i].name, "desi") == 0;
            assert_int_equal(strcmp(hash[i], hash[j]) == 0, same);
        }
    }
}

static void no_tree_is_left_out(void **state)
{
    (void)state;
    DIR *folder = opendir(TRIAGE_SOURCE_FOLDER "/etc/schemas");
    assert_non_null(folder);
    int files = 0;
    for (struct dirent *entry; (entry = readdir(folder));)
        files += entry->d_name[0] != '.';
    closedir(folder);
    assert_int_equal(files, TREES + UNIONS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_published), cmocka_unit_test(campaigns_side_by_side),
        cmocka_unit_test(columns),      cmocka_unit_test(as_volunteers_saw_it),
        cmocka_unit_test(hashes),       cmocka_unit_test(no_tree_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
