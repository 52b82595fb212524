/*
 * Which backend computes: the cpu's, which is linked, or cuda's, which is a library of its own, loaded at run time, so that one program
 * runs with and without a driver. The only place that loads a library.
 */
#ifndef TRIAGE_DAEMON_BACKEND_H
#define TRIAGE_DAEMON_BACKEND_H

#include "daemon/config.h"
#include "model/backend.h"

/* What was opened, and why not what was asked for. */
struct chosen_backend {
    const struct backend *backend;
    struct backend_context *context;
    char fallback[512]; /* why the cpu computes although cuda was asked for; "" = it is as configured */
};

/*
 * Opens the backend that worker.backend names. Where cuda cannot be had: ERROR_UNAVAILABLE with the reason, or, only with
 * worker.fallback = cpu, the cpu's backend and `fallback` says why. Close with backend->close(context).
 */
int backend_choose(const struct config *config, struct chosen_backend *ret_chosen);

/* The cuda backend's table, loaded but not opened. ERROR_UNAVAILABLE when the library, or what it needs, is not there. */
int backend_load_cuda(const struct backend **ret_backend);

/* `triaged gpu`: devices, memory, plan and versions, as text or JSON. Returns an exit code: EXIT_UNAVAILABLE without a usable device. */
int run_gpu(const struct config *config, int json);

#endif
