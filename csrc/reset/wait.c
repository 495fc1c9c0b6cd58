/*
 * wait.c - jobs that wait until a resident is free.
 *
 * One that serves is sooner done with its job than a fork is made, most of the time: where they
 * are all busy, but one was done just now, the next job waits for it, and takes no processor from
 * them.  Else more than residents at a time would be forked, which costs several times as much, by
 * which there would be still more at a time.  Whoever waits for long, or for residents that do not
 * get done, is forked after all.
 *
 * Jobs wait only while a resident is busy here, and so is one of the spawner's helpers.
 */
#include "reset.h"

#ifdef __linux__

bool fsp_reset_is_brisk(struct fsp_spawner *s, struct fsp_reset *reset, uint64_t now) {
    const struct fsp_nest *nest = fsp_nest_of(reset, s);
    return nest->busy && now - nest->done_at < reset->brisk;
}

void fsp_reset_tend_again(struct fsp_spawner *s, struct fsp_reset *reset) {
    struct fsp_nest *nest = fsp_nest_of(reset, s);
    uint64_t over = fsp_after(nest->waiting->started_at, reset->patience);
    uint64_t still = fsp_after(nest->done_at, reset->brisk);
    fsp_nest_tend_by(s, nest, over < still ? over : still);
}

void fsp_reset_await(struct fsp_spawner *s, struct fsp_reset *reset, struct fsp_job *job) {
    struct fsp_nest *nest = fsp_nest_of(reset, s);
    job->next = NULL;
    *(nest->waiting ? &nest->waiting_last->next : &nest->waiting) = job;
    nest->waiting_last = job;
    fsp_reset_tend_again(s, reset);
}

struct fsp_job *fsp_nest_next_waiting(struct fsp_nest *nest) {
    struct fsp_job *job = nest->waiting;
    if (job) nest->waiting = job->next;
    return job;
}

void fsp_nest_turn_away(struct fsp_spawner *s, struct fsp_nest *nest) {
    struct fsp_job *job;
    while ((job = fsp_nest_next_waiting(nest))) fsp_job_has_none(s, job);
}

#endif
