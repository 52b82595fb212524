/*
 * Every parser of outside bytes as one function, so that it can be run on anything: by fuzz_test (the corpus and seeded
 * mutations of it, in ./check) and by libFuzzer (./bench fuzz). Inputs begin as valid ones, made by our own writers or lying
 * in corpus/NAME. What a target asserts beyond "no sanitizer complains" it says beside itself.
 */
#ifndef TRIAGE_TESTS_FUZZ_H
#define TRIAGE_TESTS_FUZZ_H

#include "base/text.h"

#include <stddef.h>
#include <stdint.h>

#define FUZZ_BYTES_MAX 65536 /* of one input */
#define FUZZ_SEEDS_MAX 16

struct fuzz_target {
    const char *name, *what;
    void (*open)(void);                        /* (optional) once, before everything else */
    int (*seed)(int number, struct text *out); /* (optional) 1 with a valid input, 0 behind the last one */
    void (*run)(const uint8_t *bytes, size_t length);
};

extern const struct fuzz_target fuzz_targets[];
extern const size_t fuzz_target_count;

const struct fuzz_target *fuzz_find(const char *name); /* NULL for an unknown name */

/* Makes the input a file and returns its path, the same each time. */
const char *fuzz_file(const uint8_t *bytes, size_t length);

/* Appends a whole file; ends the program where it cannot. */
void fuzz_read(struct text *out, const char *path);

/* Ends the program with a report, as a sanitizer would. */
void fuzz_require(int condition, const char *what);

/* The targets, by file. */
void fuzz_config(const uint8_t *bytes, size_t length);
int fuzz_config_seed(int number, struct text *out);
void fuzz_schema(const uint8_t *bytes, size_t length);
int fuzz_schema_seed(int number, struct text *out);
void fuzz_votes_open(void);
void fuzz_votes(const uint8_t *bytes, size_t length);
int fuzz_votes_seed(int number, struct text *out);
void fuzz_workflow(const uint8_t *bytes, size_t length);
int fuzz_workflow_seed(int number, struct text *out);
void fuzz_catalogue_open(void);
void fuzz_catalogue(const uint8_t *bytes, size_t length);
int fuzz_catalogue_seed(int number, struct text *out);
void fuzz_control_open(void);
void fuzz_control(const uint8_t *bytes, size_t length);
int fuzz_control_seed(int number, struct text *out);

void fuzz_http(const uint8_t *bytes, size_t length);
int fuzz_http_seed(int number, struct text *out);

void fuzz_feed(const uint8_t *bytes, size_t length);
void fuzz_client(const uint8_t *bytes, size_t length);
int fuzz_feed_seed(int number, struct text *out);
void fuzz_request(const uint8_t *bytes, size_t length);
int fuzz_request_seed(int number, struct text *out);

void fuzz_image(const uint8_t *bytes, size_t length);
int fuzz_png_seed(int number, struct text *out);
void fuzz_weights_open(void);
void fuzz_weights(const uint8_t *bytes, size_t length);
int fuzz_weights_seed(int number, struct text *out);
void fuzz_model_open(void);
void fuzz_model(const uint8_t *bytes, size_t length);
int fuzz_model_seed(int number, struct text *out);
void fuzz_checkpoint_open(void);
void fuzz_checkpoint(const uint8_t *bytes, size_t length);
int fuzz_checkpoint_seed(int number, struct text *out);

/* Cells for every answer of the database from now on, and how many rows they are; and the statements that wait get theirs. */
int fuzz_answer_with(const uint8_t *bytes, size_t length);
void fuzz_give_answers(void);

struct daemon;
struct daemon *fuzz_the_daemon(void); /* with an empty pool; made at the first call */
void fuzz_daemon_open(void);
void fuzz_daemon(const uint8_t *bytes, size_t length);
int fuzz_daemon_seed(int number, struct text *out);

void fuzz_keys_open(void);
void fuzz_keys(const uint8_t *bytes, size_t length);
int fuzz_keys_seed(int number, struct text *out);

void fuzz_rows(const uint8_t *bytes, size_t length);
int fuzz_rows_seed(int number, struct text *out);

#endif
