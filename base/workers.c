/* See workers.h. */
#include "base/workers.h"
#include "base/error.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define THREADS_MAX 512

struct workers {
    int count; /* the caller included */
    pthread_t thread[THREADS_MAX];
    pthread_mutex_t lock;
    pthread_cond_t begin, end;
    long generation; /* number of the job; threads wait for it to change */
    int busy, quit;
    workers_task *task;
    void *context;
    long items;
    atomic_long next;
};

struct start {
    struct workers *workers;
    int index;
};

static void take_items(struct workers *workers, int index)
{
    for (long item; (item = atomic_fetch_add(&workers->next, 1)) < workers->items;)
        workers->task(workers->context, item, index);
}

static void *work(void *argument)
{
    struct start start = *(struct start *)argument;
    struct workers *workers = start.workers;
    long seen = 0;
    free(argument);
    pthread_mutex_lock(&workers->lock);
    for (;;) {
        while (workers->generation == seen && !workers->quit)
            pthread_cond_wait(&workers->begin, &workers->lock);
        if (workers->quit)
            break;
        seen = workers->generation;
        pthread_mutex_unlock(&workers->lock);
        take_items(workers, start.index);
        pthread_mutex_lock(&workers->lock);
        if (--workers->busy == 0)
            pthread_cond_signal(&workers->end);
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

static int usable_cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

int workers_open(int threads, struct workers **ret_workers)
{
    int wanted = threads > 0 ? threads : usable_cores();
    struct workers *workers = calloc(1, sizeof *workers);
    if (!workers)
        return error_set(ERROR_SYSTEM, "out of memory for compute threads");
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->begin, NULL);
    pthread_cond_init(&workers->end, NULL);
    for (workers->count = 1; workers->count < wanted && workers->count < THREADS_MAX; workers->count++) {
        struct start *start = malloc(sizeof *start);
        if (start)
            *start = (struct start){workers, workers->count};
        if (!start || pthread_create(&workers->thread[workers->count], NULL, work, start)) {
            int failed = workers->count;
            free(start);
            workers_close(workers);
            return error_set(ERROR_SYSTEM, "cannot start compute thread %d of %d", failed, wanted);
        }
    }
    *ret_workers = workers;
    return 0;
}

void workers_close(struct workers *workers)
{
    if (!workers)
        return;
    pthread_mutex_lock(&workers->lock);
    workers->quit = 1;
    pthread_cond_broadcast(&workers->begin);
    pthread_mutex_unlock(&workers->lock);
    for (int i = 1; i < workers->count; i++)
        pthread_join(workers->thread[i], NULL);
    pthread_mutex_destroy(&workers->lock);
    pthread_cond_destroy(&workers->begin);
    pthread_cond_destroy(&workers->end);
    free(workers);
}

int workers_count(const struct workers *workers)
{
    return workers->count;
}

void workers_run(struct workers *workers, workers_task *task, void *context, long items)
{
    pthread_mutex_lock(&workers->lock);
    workers->task = task;
    workers->context = context;
    workers->items = items;
    atomic_store(&workers->next, 0);
    workers->busy = workers->count - 1;
    workers->generation++;
    pthread_cond_broadcast(&workers->begin);
    pthread_mutex_unlock(&workers->lock);
    take_items(workers, 0);
    pthread_mutex_lock(&workers->lock);
    while (workers->busy)
        pthread_cond_wait(&workers->end, &workers->lock);
    pthread_mutex_unlock(&workers->lock);
}
