/* The table of targets and what they share; see fuzz.h. */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const struct fuzz_target fuzz_targets[] = {
    {"config",     "the configuration file",                    NULL,                 fuzz_config_seed,     fuzz_config    },
    {"schema",     "a decision tree",                           NULL,                 fuzz_schema_seed,     fuzz_schema    },
    {"catalogue",  "a catalogue in CSV",                        fuzz_catalogue_open,  fuzz_catalogue_seed,  fuzz_catalogue },
    {"votes",      "a file of votes",                           fuzz_votes_open,      fuzz_votes_seed,      fuzz_votes     },
    {"workflow",   "a workflow of a platform",                  fuzz_votes_open,      fuzz_workflow_seed,   fuzz_workflow  },
    {"control",    "requests on the control socket",            fuzz_control_open,    fuzz_control_seed,    fuzz_control   },
    {"http",       "requests on the monitoring port",           NULL,                 fuzz_http_seed,       fuzz_http      },
    {"feed",       "messages of the feed, as a subscriber",     NULL,                 fuzz_feed_seed,       fuzz_feed      },
    {"client",     "the same, as libtriage-feed takes them",    NULL,                 fuzz_feed_seed,       fuzz_client    },
    {"request",    "requests of subscribers, as the publisher", NULL,                 fuzz_request_seed,    fuzz_request   },
    {"png",        "a PNG image",                               NULL,                 fuzz_png_seed,        fuzz_image     },
    {"jpeg",       "a JPEG image",                              NULL,                 NULL,                 fuzz_image     },
    {"weights",    "weights in safetensors",                    fuzz_weights_open,    fuzz_weights_seed,    fuzz_weights   },
    {"model",      "a stored model",                            fuzz_model_open,      fuzz_model_seed,      fuzz_model     },
    {"checkpoint", "the checkpoint of a training run",          fuzz_checkpoint_open, fuzz_checkpoint_seed, fuzz_checkpoint},
    {"rows",       "rows of the database",                      NULL,                 fuzz_rows_seed,       fuzz_rows      },
    {"daemon",     "the same and requests, as the daemon",      fuzz_daemon_open,     fuzz_daemon_seed,     fuzz_daemon    },
    {"keys",       "key files and the list of keys",            fuzz_keys_open,       fuzz_keys_seed,       fuzz_keys      },
};
const size_t fuzz_target_count = sizeof fuzz_targets / sizeof *fuzz_targets;

const struct fuzz_target *fuzz_find(const char *name)
{
    for (size_t i = 0; i < fuzz_target_count; i++)
        if (strcmp(fuzz_targets[i].name, name) == 0)
            return &fuzz_targets[i];
    return NULL;
}

void fuzz_require(int condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "a parser broke its promise: %s\n", what);
    abort();
}

/* In memory: a million executions must not wear a disk. */
const char *fuzz_file(const uint8_t *bytes, size_t length)
{
    static char path[64];
    static int descriptor = -1;
    if (descriptor < 0) {
        descriptor = memfd_create("triage-fuzz", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    }
    fuzz_require(descriptor >= 0 && ftruncate(descriptor, 0) == 0 &&
                     pwrite(descriptor, bytes, length, 0) == (ssize_t)length,
                 "the input cannot be made a file");
    return path;
}

void fuzz_read(struct text *out, const char *path)
{
    char block[4096];
    FILE *file = fopen(path, "rb");
    fuzz_require(file != NULL, path);
    for (size_t count; (count = fread(block, 1, sizeof block, file)) > 0;)
        text_append_bytes(out, block, count);
    fclose(file);
}
