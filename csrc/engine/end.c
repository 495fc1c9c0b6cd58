/*
 * end.c - the end of a job.
 *
 * The leader stays a zombie while its pipes drain, so that its pid, and with it the group's, stays
 * ours to signal: the status is taken last.
 */
#include "engine.h"

void fsp_job_end(struct fsp_job *job) {
    job->outcome.spare = (job->options.flags & FSP_JOB_SPARE) != 0;
    for (int i = 0; i < 2; i++) {
        job->outcome.output[i] = job->out[i].held;
        job->out[i].held = (struct fsp_buf){0};
    }
    fsp_job_tell_ended(job);
}

static void close_all(struct fsp_spawner *s, struct fsp_job *job) {
    fsp_in_close(s, job);
    fsp_out_close(s, job, 0);
    fsp_out_close(s, job, 1);
}

/* Take the status: false if it cannot be had yet.  A child given up is left to its adopter. */
static bool reap(struct fsp_job *job) {
    struct fsp_status *status = &job->outcome.status;
    if (job->lent && !job->abandoned) return true; /* it was told */
    int r = job->abandoned ? -ETIMEDOUT : fsp_wait(&job->child, 0, status);
    if (r < 0) {
        *status = (struct fsp_status){.lost = 1};
        if (!job->lent) sys_close(job->child.pidfd);
    }
    return r != 0;
}

void fsp_job_finish(struct fsp_spawner *s, struct fsp_job *job) {
    if (job->terminating && !job->killed) {
        /* The leader has gone; whoever of its group is left goes too. */
        fsp_job_kill(job, 1, SIGKILL);
        job->killed = job->signalled = true;
    }
    if (fsp_session_is_left(s, job)) return;
    job->over = true;
    if (!reap(job)) {
        /* Known to have ended, but not waitable yet (traced, or reported by kqueue). */
        fsp_job_set_due(s, job, FSP_DUE_POLL, sys_now() + FSP_WATCH_NS);
        return;
    }
    job->from.ops->leave(s, job, !job->abandoned);
    if (job->outcome.error.stage) job->outcome.pid = 0;
    job->outcome.wall = sys_now() - job->started_at;
    close_all(s, job);
    fsp_heap_remove(&s->heap, job);
    fsp_slots_remove(&s->slots, job);
    s->hold_until = 0; /* what it held is free: spawns that were put off may try again */
    fsp_job_end(job);
}
