/*
 * A checking stand-in for the CUDA runtime, cuBLASLt, cuDNN and NCCL: test code, so that the whole of gpu/ runs where there is no
 * device. What it promises:
 *   - device memory is out of reach of the host except while a kernel, copy or library call executes;
 *   - nothing executes at the call: work waits until something has to be known, and then runs in the most adverse order that
 *     streams and events allow (STANDIN_SEED=0: in the order of the calls; else, as late as possible, a seeded order of streams, blocks and
 *     threads of a phase);
 *   - two operations that touch the same memory without an order between them are found by vector clocks, whatever order they ran in;
 *   - every handle, descriptor, alignment, leading dimension, workspace and pointer is held to the documents (rules.h).
 * What it is not: a device. It says nothing on speed, on the rounding of a device, nor on what the documents leave out.
 *
 * A broken rule returns the documented status where there is one, is printed, and is counted. A process that ends with findings nobody
 * forgave ends with status 86, and so does one that does more at a time than the stand-in can watch.
 *
 * Environment: STANDIN_DEVICES (default 1, at most 8; 0 = no driver), STANDIN_CAPABILITY (times ten, default 80), STANDIN_BARRED (a device in
 * exclusive mode, which is taken), STANDIN_MEMORY_MB per device (default 4096), STANDIN_SEED (default 1),
 * STANDIN_FAIL_AFTER (the n-th operation and everything after it on its device fails: lost), STANDIN_FAIL_ONCE (a file: only in the process that
 * makes it), STANDIN_LOST_HANGS (1: destroying a stream of a lost device never returns).
 */
#ifndef TRIAGE_TESTS_STANDIN_H
#define TRIAGE_TESTS_STANDIN_H

#include "tests/gpu/standin/rules.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Rules broken since the start or the last standin_forgive(); how often one was. */
unsigned standin_findings(void);
unsigned standin_found(enum standin_rule rule);
void standin_forgive(void);

const char *standin_rule_name(enum standin_rule rule);
const char *standin_rule_text(enum standin_rule rule);
const char *standin_rule_document(enum standin_rule rule);

/* As the environment variables; only while nothing is allocated. */
void standin_set_devices(int devices);
void standin_set_memory(size_t bytes);
void standin_set_seed(uint64_t seed);
void standin_set_capability(int times_ten);

/* cudaSetDevice() of this device returns `status`, as where opening a context fails; -1 = of none. */
void standin_bar_device(int device, int status);

/* Memory of a device that other processes hold. */
void standin_hold(int device, size_t bytes);

/* ncclGetUniqueId() returns this status, as where no socket can be had; 0 = as ever. */
void standin_refuse_connection(int status);

/* Devices on which a context was opened since the last call: bit i = device i. */
unsigned standin_opened(void);

/* How long a rank waits for the others (60 s). */
void standin_set_patience(int seconds);

/* 1: every further allocation is an error (RULE_ALLOCATION_CLOSED). */
void standin_close_allocation(int closed);

/* The n-th operation from now, and every call after it while its device is the current one, returns cudaErrorIllegalAddress, until
 * standin_restore_device(). Of one device: the n-th of its own. With another status, which the header declares the process lost by. */
void standin_lose_device_after(uint64_t operations);
void standin_lose_one_device_after(int device, uint64_t operations);
void standin_lose_with(int status);
void standin_restore_device(void);

/* A device is lost while the next ranks connect: when the identity of their connection is made, when its rank asks to be connected, or
 * while it waits for that. */
enum standin_moment { MOMENT_IDENTITY, MOMENT_CALL, MOMENT_WAIT, MOMENTS };
void standin_lose_at_connection(int device, enum standin_moment moment);

/* The n-th operation of a device from now is refused (cudaErrorLaunchOutOfResources), and nothing else; the n-th handle or descriptor that
 * a library is asked for is (out of memory). */
void standin_refuse_after(int device, uint64_t operations);
void standin_refuse_handle_after(uint64_t handles);

/* Work of other devices than this one waits until memory that was taken for this one is freed: what its rank does first is then known. */
void standin_hold_others(int device);

/* What is allocated now: device memory of all devices, pinned memory; streams, events, graphs and handles. */
size_t standin_device_bytes(void);
size_t standin_pinned_bytes(void);
unsigned standin_handles(void);

/* Sums over ranks that ncclCommAbort() ended, so far. */
unsigned standin_aborted_sums(void);

/* Operations executed so far, and the most device memory that was allocated at a time. */
uint64_t standin_operations(void);
size_t standin_peak_bytes(void);

#ifdef __cplusplus
}
#endif

#endif
