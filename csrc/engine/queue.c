/*
 * queue.c - the pending jobs of an engine, for whichever spawner is free next.  Under the lock.
 */
#include "engine.h"

void fsp_queue_last(struct fsp_engine *e, struct fsp_job *job) {
    job->next = NULL;
    job->prev = e->pending_last;
    *(e->pending_last ? &e->pending_last->next : &e->pending) = job;
    e->pending_last = job;
    e->stats.pending++;
}

void fsp_queue_first(struct fsp_engine *e, struct fsp_job *job) {
    job->prev = NULL;
    job->next = e->pending;
    *(e->pending ? &e->pending->prev : &e->pending_last) = job;
    e->pending = job;
    e->stats.pending++;
}

void fsp_unqueue(struct fsp_engine *e, struct fsp_job *job) {
    *(job->prev ? &job->prev->next : &e->pending) = job->next;
    *(job->next ? &job->next->prev : &e->pending_last) = job->prev;
    e->stats.pending--;
}
