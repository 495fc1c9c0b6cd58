/*
 * job.c - the life of a job on its spawner.
 *
 *   begin.c -> runs -> leader exits -> pipes at their end (or drain deadline) -> end.c
 *                 \-> kill.c: TERM to the group, grace, KILL -> leader exits ...
 *
 * Nothing here blocks: a child may close its pipes and live on, or leave them to others when it
 * goes.  What is read, written and due in this way is done below (collect.c, feed.c, due.c); what
 * follows from it is decided here.
 *
 * Every job that has begun is in the slots and in the heap until fsp_job_finish takes it out.
 */
#include "engine.h"

/* ---- its pipes ---- */

/* The poller does not tell: look again. */
static void look_again_soon(struct fsp_spawner *s, struct fsp_job *job) {
    fsp_job_set_due(s, job, FSP_DUE_POLL, sys_now() + FSP_HOLD_NS);
}

void fsp_job_feed(struct fsp_spawner *s, struct fsp_job *job) {
    if (fsp_in_pump(s, job) < 0) look_again_soon(s, job);
}

/* Memory ran out: the answer cannot be complete, so the child need not go on. */
static void out_of_memory(struct fsp_spawner *s, struct fsp_job *job) {
    job->outcome.error = (struct fsp_error){ENOMEM, FSP_STAGE_NONE, -1};
    fsp_out_close(s, job, 0);
    fsp_out_close(s, job, 1);
    fsp_job_terminate(s, job);
}

/* The first byte beyond the limit ends it. */
static void too_much(struct fsp_spawner *s, struct fsp_job *job) {
    job->outcome.truncated = 1;
    fsp_job_terminate(s, job);
}

/* Returns true when the job has ended. */
static bool pump(struct fsp_spawner *s, struct fsp_job *job) {
    for (int i = 0; i < 2; i++) {
        int r = fsp_out_pump(s, job, i);
        if (r > 0) too_much(s, job);
        if (r < 0) out_of_memory(s, job);
    }
    if (fsp_job_has_terminal(job) && fsp_out_closed(job)) fsp_job_hang_up(s, job);
    if (!job->exited || !fsp_out_closed(job)) return false;
    fsp_job_finish(s, job);
    return true;
}

static void watch_outputs(struct fsp_spawner *s, struct fsp_job *job) {
    for (int i = 0; i < 2; i++)
        if (job->out[i].fd >= 0 && fsp_job_has_room(job, i) && fsp_out_watch(s, job, i) < 0)
            look_again_soon(s, job);
}

/* ---- the leader's exit ---- */

static void set_drain(struct fsp_spawner *s, struct fsp_job *job) {
    uint64_t drain = fsp_after(sys_now(), job->options.limits.drain);
    fsp_job_set_due(s, job, FSP_DUE_DRAIN, drain ? drain : 1);
}

static void leader_exited(struct fsp_spawner *s, struct fsp_job *job) {
    if (job->exited) return;
    job->exited = true;
    fsp_job_set_due(s, job, FSP_DUE_WATCH, 0);
    fsp_job_set_due(s, job, FSP_DUE_STREAM, 0);
    fsp_job_set_due(s, job, FSP_DUE_DEADLINE, 0);
    fsp_in_close(s, job);
    if (pump(s, job)) return;
    /* Someone else holds its pipes, or the reader is slow. */
    job->streaming |= (job->options.flags & (FSP_JOB_STREAM | FSP_JOB_SPARE)) == FSP_JOB_STREAM;
    watch_outputs(s, job);
    set_drain(s, job);
}

void fsp_job_over(struct fsp_spawner *s, struct fsp_job *job, const struct fsp_status *status) {
    job->outcome.status = *status;
    leader_exited(s, job);
}

/* ---- what is due ---- */

/* More came since the exit than the child can have left: the rest is that of others, who may go on
 * without end. */
static bool is_of_others(const struct fsp_out *out) {
    return out->since_exit > FSP_LEFT;
}

/* The reader's slowness is no one else's pipe: what the child wrote waits for it, and the drain
 * begins anew when it has taken some. */
static bool is_stalled(struct fsp_job *job) {
    for (int i = 0; i < 2; i++) {
        const struct fsp_out *out = &job->out[i];
        if (out->fd >= 0 && !is_of_others(out) && !fsp_job_has_room(job, i)) return true;
    }
    return false;
}

static void drain_over(struct fsp_spawner *s, struct fsp_job *job) {
    /* Of a job that is being ended nobody waits for the rest.  Else the reader may have taken some
     * just now, its mail not being read yet: what waited for it is still in the pipe. */
    if (!job->terminating && (pump(s, job) || is_stalled(job))) return;
    fsp_job_finish(s, job);
}

static void look_again(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    if (job->exited && (job->over || fsp_out_closed(job))) {
        fsp_job_finish(s, job);
        return;
    }
    fsp_job_feed(s, job);
    if (pump(s, job)) return;
    if (!job->due[FSP_DUE_WATCH]) watch_outputs(s, job);
    if (!job->exited && !job->lent && job->child.pidfd < 0) {
        fsp_job_set_due(s, job, FSP_DUE_POLL, now + FSP_WATCH_NS);
        if (fsp_has_exited(&job->child)) leader_exited(s, job);
    }
}

static void outlived(struct fsp_spawner *s, struct fsp_job *job) {
    if ((job->options.flags & (FSP_JOB_STREAM | FSP_JOB_SPARE)) == FSP_JOB_STREAM)
        fsp_job_set_due(s, job, FSP_DUE_STREAM, job->started_at + FSP_STREAM_NS);
    watch_outputs(s, job);
}

/* One thing at a time: each may end the job. */
void fsp_job_due(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    switch (fsp_job_take_due(s, job)) {
    case FSP_DUE_WATCH:
        outlived(s, job);
        break;
    case FSP_DUE_STREAM:
        if (fsp_out_stream(job) < 0) out_of_memory(s, job);
        break;
    case FSP_DUE_DEADLINE:
        job->outcome.timed_out = 1;
        fsp_job_terminate(s, job);
        break;
    case FSP_DUE_KILL:
        fsp_job_grace_over(s, job);
        break;
    case FSP_DUE_DRAIN:
        drain_over(s, job);
        break;
    default:
        look_again(s, job, now);
    }
}

/* ---- what the poller says ---- */

void fsp_job_ready(struct fsp_spawner *s, struct fsp_job *job, enum fsp_source source) {
    switch (source) {
    case FSP_SOURCE_CHILD:
        leader_exited(s, job);
        break;
    case FSP_SOURCE_STDIN:
        fsp_job_feed(s, job);
        break;
    default:
        pump(s, job);
    }
}

/* ---- what the caller says ---- */

/* One that has ended meanwhile, noticed or not, stays a spare. */
static void adopt(struct fsp_spawner *s, struct fsp_job *job, bool tell) {
    if (!(job->options.flags & FSP_JOB_SPARE) || job->exited || job->terminating) return;
    if (!fsp_job_waits(job) && fsp_has_exited(&job->child)) return;
    job->options.flags &= ~FSP_JOB_SPARE;
    job->started_at = sys_now();
    fsp_job_set_deadline(s, job);
    if (tell) fsp_job_tell_started(job);
    if (!job->due[FSP_DUE_WATCH] && !fsp_job_waits(job)) outlived(s, job);
}

void fsp_job_read_mail(struct fsp_spawner *s, struct fsp_job *job) {
    struct fsp_mail mail = fsp_job_take_mail(job);
    if (mail.adopt) adopt(s, job, mail.tell_adopted);
    if (mail.resized) fsp_job_set_size(job, mail.size);
    fsp_in_append(job, mail.feed);
    job->in.eof |= mail.eof;
    if (fsp_job_waits(job)) {
        for (int i = 0; i < 2; i++) job->held_signals[i] |= mail.signals[i];
    } else {
        fsp_job_feed(s, job);
        fsp_job_send(job, mail.signals);
    }
    if (mail.eof && fsp_job_has_terminal(job)) fsp_job_hang_up(s, job);
    if (mail.cancel) {
        job->outcome.cancelled = 1;
        fsp_job_terminate(s, job);
        if (job->exited && job->killed) {
            fsp_job_finish(s, job);
            return;
        }
    }
    if (!mail.stalled || !job->streaming || pump(s, job)) return;
    watch_outputs(s, job);
    bool others = is_of_others(&job->out[0]) || is_of_others(&job->out[1]);
    if (job->exited && (!others || !job->due[FSP_DUE_DRAIN])) set_drain(s, job);
}
