/* See backend.h. */
#include "daemon/backend.h"
#include "base/error.h"
#include "cpu/backend_cpu.h"
#include "daemon/exits.h"
#include "daemon/log.h"
#include "daemon/setup.h"

#include <dlfcn.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY "triage-cuda.so"

/* Beside the program (a build), then in the installation's folder of libraries. Never through LD_LIBRARY_PATH or the current folder. */
static void *open_library(char *reason, size_t size)
{
    char program[PATH_MAX], path[PATH_MAX + sizeof LIBRARY];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    char *slash = length > 0 ? memrchr(program, '/', (size_t)length) : NULL;
    const char *folders[] = {program, TRIAGE_LIBRARY_FOLDER};
    if (slash)
        *slash = '\0';
    snprintf(reason, size, "there is no " LIBRARY " beside the program or in " TRIAGE_LIBRARY_FOLDER);
    for (int i = slash ? 0 : 1; i < 2; i++) {
        snprintf(path, sizeof path, "%s/" LIBRARY, folders[i]);
        if (access(path, R_OK))
            continue;
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library;
        snprintf(reason, size, "%s", dlerror());
    }
    return NULL;
}

int backend_load_cuda(const struct backend **ret_backend)
{
    char reason[ERROR_MESSAGE_BYTES / 2];
    void *library = open_library(reason, sizeof reason);
    const struct backend *backend = library ? dlsym(library, "backend_cuda") : NULL;
    if (!backend)
        return error_set(ERROR_UNAVAILABLE,
                         "the cuda backend cannot be loaded: %s: install it and the CUDA libraries (README, \"On a GPU "
                         "server\"), or set worker.backend = cpu",
                         library ? "it has no backend_cuda" : reason);
    *ret_backend = backend;
    return 0;
}

static int open_cuda(const struct config *config, struct chosen_backend *chosen)
{
    int result = backend_load_cuda(&chosen->backend);
    return result ? result : chosen->backend->open((int)config->threads, (int)config->devices, &chosen->context);
}

int backend_choose(const struct config *config, struct chosen_backend *ret_chosen)
{
    *ret_chosen = (struct chosen_backend){.backend = &backend_cpu};
    if (strcmp(config->backend, "cuda") == 0) {
        int result = open_cuda(config, ret_chosen);
        if (!result || strcmp(config->fallback, "cpu") != 0)
            return result;
        snprintf(ret_chosen->fallback, sizeof ret_chosen->fallback, "%s", error_message());
        log_warning(EVENT_FALLBACK, "COMPUTING ON THE CPU, many times slower, because worker.fallback = cpu: %s",
                    ret_chosen->fallback);
        ret_chosen->backend = &backend_cpu;
    }
    return ret_chosen->backend->open((int)config->threads, (int)config->devices, &ret_chosen->context);
}

/* --- triaged gpu -------------------------------------------------------------------------------------------------- */

static int is_usable(const struct backend_device *device)
{
    return !device->error[0] && device->plan_images > 0;
}

static json_t *report_json(const struct backend_report *report)
{
    json_t *devices = json_array();
    for (int i = 0; i < report->devices; i++) {
        const struct backend_device *device = &report->device[i];
        json_array_append_new(devices,
                              json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:b}", "name", device->name, "capability",
                                        device->capability, "error", device->error, "memory_bytes",
                                        (json_int_t)device->memory_bytes, "free_bytes", (json_int_t)device->free_bytes,
                                        "plan_bytes", (json_int_t)device->plan_bytes, "plan_images",
                                        (json_int_t)device->plan_images, "usable", is_usable(device)));
    }
    return json_pack("{s:o,s:s}", "devices", devices, "versions", report->versions);
}

static void print_device(const struct config *config, int number, const struct backend_device *device)
{
    printf("device %d  %s, compute capability %s", number, *device->name ? device->name : "(not known)",
           *device->capability ? device->capability : "(not known)");
    if (device->error[0]) {
        printf("\n          cannot be used: %s\n", device->error);
        return;
    }
    printf(", %zu of %zu MiB free\n", device->free_bytes >> 20, device->memory_bytes >> 20);
    if (device->plan_images)
        printf("          %s at %lld pixels, %s: %zu images at a time in %zu MiB\n", config->trunk_network,
               (long long)config->trunk_side, config->trunk_precision, device->plan_images, device->plan_bytes >> 20);
    else
        printf("          too little free memory for one image of %s\n", config->trunk_network);
}

static void print_report(const struct config *config, const struct backend_report *report)
{
    printf("%s\n", report->versions);
    for (int i = 0; i < report->devices; i++)
        print_device(config, i, &report->device[i]);
    printf("the worker takes the first %lld (worker.devices); CUDA_VISIBLE_DEVICES in the unit says which those are\n",
           (long long)config->devices);
}

int run_gpu(const struct config *config, int json)
{
    static struct backend_report report;
    const struct backend *backend;
    struct net net;
    int result = setup_net(config, &net);
    if (!result)
        result = backend_load_cuda(&backend);
    if (!result)
        result = backend->report(&net, config_precision(config), BACKEND_DEVICES_MAX, &report);
    if (json) {
        json_t *answer = result ? json_pack("{s:s}", "error", error_message()) : report_json(&report);
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(answer);
    } else if (result)
        fprintf(stderr, "triaged: %s\n", error_message());
    else
        print_report(config, &report);
    int usable = 0;
    for (int i = 0; i < report.devices; i++)
        usable += is_usable(&report.device[i]);
    return result ? exit_code(result) : usable ? EXIT_DONE : EXIT_UNAVAILABLE;
}
