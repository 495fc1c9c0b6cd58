/*
 * due.c - what is due of a job, and when.  The heap has the earliest of each.
 */
#include "engine.h"

void fsp_job_set_due(struct fsp_spawner *s, struct fsp_job *job, enum fsp_due kind, uint64_t at) {
    job->due[kind] = at;
    uint64_t next = UINT64_MAX;
    for (int i = 0; i < FSP_NDUE; i++)
        if (job->due[i] && job->due[i] < next) next = job->due[i];
    if (next == job->next_due) return;
    job->next_due = next;
    fsp_heap_moved(&s->heap, job);
}

enum fsp_due fsp_job_take_due(struct fsp_spawner *s, struct fsp_job *job) {
    enum fsp_due kind = 0;
    for (int i = 1; i < FSP_NDUE; i++)
        if (job->due[i] && (!job->due[kind] || job->due[i] < job->due[kind])) kind = i;
    fsp_job_set_due(s, job, kind, 0);
    return kind;
}

void fsp_job_set_deadline(struct fsp_spawner *s, struct fsp_job *job) {
    uint64_t timeout = job->options.limits.timeout;
    if (timeout && !(job->options.flags & FSP_JOB_SPARE))
        fsp_job_set_due(s, job, FSP_DUE_DEADLINE, fsp_after(job->started_at, timeout));
}
