/*
 * terminal.c - a job on a terminal of its own, whose whole session ends with it.
 *
 * Both ends of the job's input and output are one descriptor's copies.  When the last is closed,
 * the kernel hangs the terminal up: the session's leader gets HUP, and a shell passes that on to
 * its jobs.  Whoever is left when the leader has gone gets HUP from here, and KILL after the grace;
 * until then the leader stays a zombie, so that the session is still that one (session.c).
 */
#include "engine.h"

#define LOOK_FIRST 1000000   /* when to see whether they have gone (ns), then twice that ... */
#define LOOK_LAST  100000000 /* ... up to this */

void fsp_job_hang_up(struct fsp_spawner *s, struct fsp_job *job) {
    fsp_in_close(s, job);
    fsp_out_close(s, job, 0);
}

void fsp_job_set_size(struct fsp_job *job, struct fsp_size size) {
    job->options.size = size;
    if (job->out[0].fd >= 0) fsp_terminal_resize(job->out[0].fd, size);
}

void fsp_job_kill(struct fsp_job *job, int group, int sig) {
    if (group && fsp_job_has_terminal(job))
        fsp_kill_session(&job->child, sig);
    else
        fsp_kill(&job->child, group, sig);
}

/* The leader has gone, and the others are told so. */
static void tell_all(struct fsp_spawner *s, struct fsp_job *job) {
    fsp_job_hang_up(s, job);
    job->look_again = LOOK_FIRST;
    uint64_t left = FSP_ABANDON_NS;
    if (!job->terminating) {
        fsp_kill_session(&job->child, SIGHUP);
        fsp_kill_session(&job->child, SIGCONT);
        left = job->options.limits.kill_grace;
    }
    fsp_job_set_due(s, job, FSP_DUE_KILL, fsp_after(sys_now(), left));
}

bool fsp_session_is_left(struct fsp_spawner *s, struct fsp_job *job) {
    if (!fsp_job_has_terminal(job) || job->abandoned || job->session_over) return false;
    if (fsp_kill_session(&job->child, job->killed ? SIGKILL : 0) == 0) return false;
    if (job->look_again == 0) tell_all(s, job);
    fsp_job_set_due(s, job, FSP_DUE_POLL, sys_now() + job->look_again);
    if (job->look_again < LOOK_LAST) job->look_again *= 2;
    return true;
}
