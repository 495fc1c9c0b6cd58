/*
 * kill.c - a job is made to end: TERM to the group, grace, KILL; and signals that others send.
 *
 * A child that is not there yet cannot be signalled: its origin is told to hurry, and it gets what
 * it missed when it comes.
 */
#include "engine.h"

static void send(struct fsp_job *job, int group, int sig) {
    job->signalled = true;
    if (job->lent) job->held_signals[group] |= (uint64_t)1 << (sig - 1);
    fsp_job_kill(job, group, sig);
}

void fsp_job_send(struct fsp_job *job, const uint64_t signals[2]) {
    for (int group = 0; group < 2; group++)
        for (int sig = 1; signals[group] >> (sig - 1); sig++) {
            if (signals[group] >> (sig - 1) & 1 && !job->exited) send(job, group, sig);
            if (sig == 64) break;
        }
}

static void kill_now(struct fsp_spawner *s, struct fsp_job *job) {
    if (fsp_job_waits(job)) job->from.ops->hurry(s, job);
    send(job, 1, SIGKILL);
    job->terminating = job->killed = true;
    fsp_job_set_due(s, job, FSP_DUE_KILL, sys_now() + FSP_ABANDON_NS);
}

/* TERM reaches a stopped child only when it continues. */
void fsp_job_terminate(struct fsp_spawner *s, struct fsp_job *job) {
    if (job->terminating) return;
    job->terminating = true;
    fsp_job_set_due(s, job, FSP_DUE_DEADLINE, 0);
    if (job->options.limits.kill_grace == 0) {
        kill_now(s, job);
        return;
    }
    if (fsp_job_has_terminal(job)) send(job, 1, SIGHUP); /* shells ignore TERM */
    send(job, 1, SIGTERM);
    send(job, 1, SIGCONT);
    fsp_job_set_due(s, job, FSP_DUE_KILL, fsp_after(sys_now(), job->options.limits.kill_grace));
}

void fsp_job_abort(struct fsp_spawner *s, struct fsp_job *job) {
    if (job->aborted) return;
    job->aborted = true;
    job->outcome.cancelled = 1;
    job->options.limits.drain = 0;
    kill_now(s, job);
    if (job->exited) fsp_job_finish(s, job);
}

void fsp_job_grace_over(struct fsp_spawner *s, struct fsp_job *job) {
    if (job->killed && !fsp_job_waits(job)) { /* not even KILL ended it: uninterruptible, or lost */
        job->abandoned = !job->exited;
        job->session_over = true;
        fsp_job_finish(s, job);
        return;
    }
    kill_now(s, job);
    if (job->exited) fsp_job_finish(s, job);
}

void fsp_job_catch_up(struct fsp_job *job) {
    fsp_job_send(job, job->held_signals);
    if (!job->terminating) return;
    send(job, 1, job->killed ? SIGKILL : SIGTERM);
    send(job, 1, SIGCONT);
}
