/*
 * MessagePack: writing into a bounded text, and strict reading of bodies that come from outside. The one
 * module that knows msgpack-c. Not for streams: a body is complete and already in memory.
 *
 * Reading is strict before anything is allocated: one value, no bytes behind it, at most MSGPACK_DEPTH_MAX
 * containers inside each other, at most the number of values the caller allows, every length covered by bytes
 * that are there. (Five bytes can announce four thousand million elements; msgpack-c would try to allocate
 * them.)
 */
#ifndef TRIAGE_BASE_MSGPACK_H
#define TRIAGE_BASE_MSGPACK_H

#include "base/text.h"

#include <stddef.h>
#include <stdint.h>

#define MSGPACK_DEPTH_MAX 8

/*
 * --- writing ---
 * Each function appends one value; the error is the text's, sticky, and checked once at the end
 * (text_error()). msgpack_map() and msgpack_array() announce how many pairs or values follow. A key is
 * written as a string.
 */
void msgpack_map(struct text *out, size_t pairs);
void msgpack_array(struct text *out, size_t values);
void msgpack_string(struct text *out, const char *value);
void msgpack_binary(struct text *out, const void *bytes, size_t length);
void msgpack_uint(struct text *out, uint64_t value);
void msgpack_int(struct text *out, int64_t value);
void msgpack_double(struct text *out, double value);
void msgpack_float(struct text *out, float value);
void msgpack_bool(struct text *out, int value);

/* A key and its value in one line. */
void msgpack_put_string(struct text *out, const char *key, const char *value);
void msgpack_put_uint(struct text *out, const char *key, uint64_t value);
void msgpack_put_int(struct text *out, const char *key, int64_t value);
void msgpack_put_double(struct text *out, const char *key, double value);
void msgpack_put_float(struct text *out, const char *key, float value);
void msgpack_put_array(struct text *out, const char *key, size_t values);

/* --- reading --- */

struct msgpack_body;  /* owns everything read from one body */
struct msgpack_value; /* one value inside a body */

/*
 * Reads one body of at most `values_max` values (a container counts as one more than its contents). Strings
 * stay where they are: `bytes` must live as long as the body. ERROR_INPUT for anything malformed, ERROR_LIMIT
 * for too deep or too many values, ERROR_SYSTEM without memory.
 */
int msgpack_read(const void *bytes, size_t length, size_t values_max, struct msgpack_body **ret_body);
void msgpack_free(struct msgpack_body *body);

/* The outermost value. */
const struct msgpack_value *msgpack_root(const struct msgpack_body *body);

/* 1 if `map` is a map that holds `key`. Of a key given twice the first counts. */
int msgpack_has(const struct msgpack_value *map, const char *key);

/*
 * The value of a key: 0, or ERROR_INPUT naming the key when `map` is no map, the key is missing, or its value
 * has the wrong type or range. Outputs are untouched on error.
 *   uint    integers 0 .. 2^64-1
 *   int     integers of 64 bits with sign
 *   double  finite numbers, integers too
 *   string  copied with a terminator; no zero bytes, length < size
 */
int msgpack_get_uint(const struct msgpack_value *map, const char *key, uint64_t *ret_value);
int msgpack_get_int(const struct msgpack_value *map, const char *key, int64_t *ret_value);
int msgpack_get_double(const struct msgpack_value *map, const char *key, double *ret_value);
int msgpack_get_bool(const struct msgpack_value *map, const char *key, int *ret_value);
int msgpack_get_string(const struct msgpack_value *map, const char *key, char *value, size_t size);
int msgpack_get_array(const struct msgpack_value *map, const char *key, const struct msgpack_value **ret_array,
                      size_t *ret_count);

/* Element `index` of an array, which must be below its count. */
const struct msgpack_value *msgpack_item(const struct msgpack_value *array, size_t index);

/* The bytes of a binary value, inside the body. ERROR_INPUT if it is something else. */
int msgpack_bytes(const struct msgpack_value *value, const void **ret_bytes, size_t *ret_length);

#endif
