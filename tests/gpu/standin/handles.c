/* Handles and descriptors that the libraries give out, so that a wrong or destroyed one is found instead of followed. */
#include "tests/gpu/standin/engine.h"

#include <stdlib.h>

struct handle {
    enum handle_kind kind;
    struct handle *next;
    max_align_t content[];
};

static struct handle *list;

void *handle_new(enum handle_kind kind, size_t bytes)
{
    if (settings.refuse_handle_after && --settings.refuse_handle_after == 0)
        return NULL;
    struct handle *handle = calloc(1, sizeof *handle + bytes);
    handle->kind = kind;
    handle->next = list;
    list = handle;
    live_handles++;
    return handle->content;
}

static struct handle **find(const void *content, enum handle_kind kind)
{
    for (struct handle **at = &list; *at; at = &(*at)->next)
        if ((const void *)(*at)->content == content && (*at)->kind == kind)
            return at;
    return NULL;
}

int handle_is(const void *handle, enum handle_kind kind)
{
    return handle && find(handle, kind);
}

int handle_free(void *handle, enum handle_kind kind)
{
    struct handle **at = handle ? find(handle, kind) : NULL;
    if (!at)
        return -1;
    struct handle *gone = *at;
    *at = gone->next;
    live_handles--;
    free(gone);
    return 0;
}
