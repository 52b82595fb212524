/*
 * A fixed set of threads that share the items of one job: the only parallelism of the backends on the host. One image
 * (or one block of rows) per thread at a time; no nesting. oneDNN runs single-threaded inside each worker.
 */
#ifndef TRIAGE_BASE_WORKERS_H
#define TRIAGE_BASE_WORKERS_H

struct workers;

/* `threads` 0 means one per core this process may use. The caller's thread is worker 0 and takes part. */
int workers_open(int threads, struct workers **ret_workers);
void workers_close(struct workers *workers); /* NULL is fine */
int workers_count(const struct workers *workers);

/*
 * Calls task(context, item, worker) for every item 0 .. items-1, each exactly once, and returns when all are
 * done. Items are handed out in order but finish in any order: a task writes only what belongs to its item or
 * worker.
 */
typedef void workers_task(void *context, long item, int worker);
void workers_run(struct workers *workers, workers_task *task, void *context, long items);

#endif
