/*
 * hear.c - what a resident says, and that it has ended.
 *
 * What counts is its record: DONE may not have come when it died.
 */
#include "reset.h"

#ifdef __linux__
#include <sys/socket.h>

/* ---- of its job ---- */

static struct timeval time_of(int64_t us) {
    us = fsp_resident_us(us);
    return (struct timeval){us / 1000000, us % 1000000};
}

/* It has the outcome; where its pipes are still read, it lets go later (lend.c). */
static void over(struct fsp_spawner *s, struct fsp_resident *r) {
    const struct fsp_resident_record *record = fsp_resident_record(r);
    const struct fsp_resident_usage *u = &record->usage;
    struct fsp_status status = {
        .code =
            WIFSIGNALED(record->status) ? -WTERMSIG(record->status) : WEXITSTATUS(record->status),
        .usage = {.ru_utime = time_of(u->user),
                  .ru_stime = time_of(u->system),
                  .ru_maxrss = u->max_rss,
                  .ru_minflt = u->minor_faults,
                  .ru_majflt = u->major_faults,
                  .ru_inblock = u->blocks_in,
                  .ru_oublock = u->blocks_out,
                  .ru_nvcsw = u->waits,
                  .ru_nivcsw = u->preemptions},
    };
    r->state = FSP_RESIDENT_OVER;
    r->served++;
    fsp_nest_of(r->reset, s)->done_at = sys_now();
    r->used += (uint64_t)(fsp_resident_us(u->user) + fsp_resident_us(u->system)) * 1000;
    fsp_reset_done(s, r->reset, r->served);
    fsp_job_over(s, r->job, &status);
}

/* From here on it is the job's own child, alive or dead. */
static void hand_over(struct fsp_spawner *s, struct fsp_resident *r) {
    struct fsp_job *job = r->job;
    struct fsp_child child = r->child;
    fsp_resident_let_go(s, r);
    r->child = (struct fsp_child){-1, -1};
    fsp_job_has_child(s, job, child);
}

/* It is needed no more, and the job goes to another. */
static void not_begun(struct fsp_spawner *s, struct fsp_resident *r) {
    struct fsp_job *job = r->job;
    job->from.at = NULL;
    r->job = NULL;
    fsp_resident_retire(s, r);
    fsp_job_has_none(s, job);
}

static void left(struct fsp_spawner *s, struct fsp_resident *r, int by) {
    fsp_reset_left(s, r->reset, r->served, by);
    hand_over(s, r);
}

/* It says nothing more, whether it lives or not. */
static void fell_silent(struct fsp_spawner *s, struct fsp_resident *r) {
    const struct fsp_resident_record *record = fsp_resident_record(r);
    if (record->done == r->number)
        over(s, r);
    else if (record->begun == r->number)
        hand_over(s, r);
    else
        not_begun(s, r);
}

/* ---- its words ---- */

/* 0, or why it is none: -errno, whatever it says. */
static int refusal(const struct fsp_resident_reply *reply) {
    if (reply->kind == FSP_RESIDENT_READY && reply->version == FSP_SNAP_VERSION) return 0;
    bool told = reply->kind == FSP_RESIDENT_REFUSED && reply->value < 0 && reply->value > -4096;
    return told ? reply->value : -EPROTO;
}

static void greeted(struct fsp_spawner *s, struct fsp_resident *r,
                    const struct fsp_resident_reply *reply) {
    int error = refusal(reply);
    if (r->state != FSP_RESIDENT_STARTING) return;
    if (error < 0) {
        fsp_reset_give_up(s, r->reset, error);
        fsp_resident_retire(s, r);
        return;
    }
    r->greeted = true;
    fsp_resident_rest(s, r);
}

static void done(struct fsp_spawner *s, struct fsp_resident *r,
                 const struct fsp_resident_reply *reply) {
    struct fsp_nest *nest = fsp_nest_of(r->reset, s);
    fsp_nest_add(&nest->calls, reply->calls);
    fsp_nest_add(&nest->pages, reply->pages);
    fsp_nest_add(&nest->restore_ns, reply->restore_ns);
    over(s, r);
}

/* False: it may be no more. */
static bool handle(struct fsp_spawner *s, struct fsp_resident *r,
                   const struct fsp_resident_reply *reply) {
    bool of_job = r->state == FSP_RESIDENT_LENT && reply->number == r->number;
    switch (reply->kind) {
    case FSP_RESIDENT_DONE:
        if (of_job) done(s, r, reply);
        return !of_job; /* whatever else there is the poller tells again */
    case FSP_RESIDENT_LEFT:
        if (of_job) left(s, r, reply->value);
        return !of_job;
    default:
        greeted(s, r, reply);
        return true;
    }
}

static bool hear(struct fsp_spawner *s, struct fsp_resident *r) {
    struct fsp_resident_reply reply;
    while (r->socket >= 0) {
        long n = FSP_CALL("recv", recv(r->socket, &reply, sizeof reply, MSG_DONTWAIT));
        if (n == -EINTR) continue;
        if (n == -EAGAIN || n == -ENOMEM) return true;
        if (n < (long)sizeof reply) {
            fsp_resident_close(s, r);
            if (r->state == FSP_RESIDENT_LENT) {
                fell_silent(s, r);
                return false;
            }
            if (r->state == FSP_RESIDENT_STARTING) fsp_nest_failed(fsp_nest_of(r->reset, s));
            if (r->state != FSP_RESIDENT_OVER) fsp_resident_retire(s, r);
            return true;
        }
        if (!handle(s, r, &reply)) return false;
    }
    return true;
}

/* ---- what the poller says ---- */

void fsp_resident_ready(struct fsp_spawner *s, struct fsp_helper *helper, bool ended) {
    struct fsp_resident *r = (struct fsp_resident *)helper;
    if (!ended) {
        (void)hear(s, r);
        return;
    }
    r->ended = true;
    fsp_helpers_look_at(s, 0); /* it is buried then, unless a job still may signal it */
    /* Its last words; whoever forked it may not have closed its socket yet. */
    if (hear(s, r) && r->state == FSP_RESIDENT_LENT) fell_silent(s, r);
}

#endif
