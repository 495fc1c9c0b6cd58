/*
 * begin.c - a job begins: it is given a child, at once or later, and runs.
 *
 * Its origin is asked first, then those that follow from it, then exec.  Where a child comes later
 * the job is in the slots and in the heap already, so that its time is counted and it can be ended,
 * but has no pid.
 */
#include "engine.h"

/* ---- it runs ---- */

static void enlist(struct fsp_spawner *s, struct fsp_job *job) {
    job->next_due = UINT64_MAX;
    fsp_slots_add(&s->slots, job);
    fsp_heap_add(&s->heap, job);
    fsp_job_set_deadline(s, job);
}

/* Its end is to be known. */
static void watch_child(struct fsp_spawner *s, struct fsp_job *job) {
    uint64_t token = fsp_slots_token(&s->slots, job, FSP_SOURCE_CHILD);
    if (fsp_poller_watch_child(&s->poller, &job->child, token) == 0) return;
    sys_close(job->child.pidfd);
    job->child.pidfd = -1;
    fsp_job_set_due(s, job, FSP_DUE_POLL, job->started_at + FSP_WATCH_NS);
}

/* It has a child now. */
static void running(struct fsp_spawner *s, struct fsp_job *job) {
    job->outcome.pid = job->child.pid;
    pthread_mutex_lock(&s->engine->lock);
    s->engine->stats.started++;
    s->engine->stats.running++;
    s->engine->scarce_at = 0;
    pthread_mutex_unlock(&s->engine->lock);

    if (!fsp_out_closed(job))
        fsp_job_set_due(s, job, FSP_DUE_WATCH, job->started_at + FSP_WATCH_NS);
    if (!job->lent) watch_child(s, job);
    if (job->options.flags & FSP_JOB_STARTED) fsp_job_tell_started(job);
    job->options.flags &= ~FSP_JOB_STARTED;
    fsp_job_feed(s, job);
}

/* What serves it may not have begun with it. */
static void lent(struct fsp_spawner *s, struct fsp_job *job) {
    job->lent = true;
    fsp_in_keep(job);
    running(s, job);
}

static void drop_pipes(struct fsp_spawner *s, struct fsp_job *job) {
    for (int i = 0; i < 2; i++) fsp_out_close(s, job, i);
    sys_close(job->in.fd);
    job->in.fd = -1;
}

static void give_back(struct fsp_job *job) {
    struct fsp_engine *e = job->engine;
    pthread_mutex_lock(&e->lock);
    if (job->mail.listed) fsp_job_unlist(job);
    job->owner = NULL;
    fsp_queue_first(e, job);
    e->stats.retried++;
    pthread_mutex_unlock(&e->lock);
}

static void uncount(struct fsp_engine *e) {
    pthread_mutex_lock(&e->lock);
    e->stats.started--;
    e->stats.running--;
    pthread_mutex_unlock(&e->lock);
}

/* ---- what its origin says ---- */

void fsp_job_has_child(struct fsp_spawner *s, struct fsp_job *job, struct fsp_child child) {
    job->child = child;
    if (job->lent) {
        job->lent = false;
        fsp_in_release(job);
        watch_child(s, job);
        return;
    }
    running(s, job);
    fsp_job_catch_up(job);
}

void fsp_job_is_lent(struct fsp_spawner *s, struct fsp_job *job, struct fsp_child child) {
    job->child = child;
    lent(s, job);
    fsp_job_catch_up(job);
}

/* As if it had never run. */
static void unlend(struct fsp_spawner *s, struct fsp_job *job) {
    job->lent = job->signalled = job->streaming = false;
    job->child = (struct fsp_child){0, -1};
    job->outcome.pid = 0;
    uncount(s->engine);
    fsp_in_again(s, job);
}

void fsp_job_has_none(struct fsp_spawner *s, struct fsp_job *job) {
    if (job->lent) unlend(s, job);
    job->from.ops->leave(s, job, true);
    job->from = (struct fsp_from){0};
    job->turn = job->turn->next;
    drop_pipes(s, job);
    fsp_heap_remove(&s->heap, job);
    fsp_slots_remove(&s->slots, job);
    for (int i = 0; i < FSP_NDUE; i++) job->due[i] = 0;
    for (int i = 0; i < 2; i++) job->out[i].held.len = 0;
    if (!job->terminating) {
        give_back(job);
        return;
    }
    job->outcome.status.code = -SIGKILL; /* as if it had been a little faster */
    fsp_in_close(s, job);
    fsp_job_end(job);
}

struct fsp_child fsp_job_part(struct fsp_spawner *s, struct fsp_job *job) {
    struct fsp_child child = job->child;
    fsp_poller_forget(&s->poller, child.pidfd, FSP_POLL_IN);
    job->child = (struct fsp_child){0, -1};
    uncount(s->engine);
    return child;
}

/* ---- the start ---- */

/* Scarcity is waited out once: when it has lasted, the jobs that wait fail without waiting in
 * turn. */
static bool scarce_for_long(struct fsp_engine *e) {
    pthread_mutex_lock(&e->lock);
    uint64_t now = sys_now(); /* not the caller's: another spawner's may be later */
    if (e->scarce_at == 0 || now - e->scarce_at > FSP_RETRY_NS) e->scarce_since = now;
    e->scarce_at = now;
    bool long_ago = now - e->scarce_since >= FSP_RETRY_NS;
    pthread_mutex_unlock(&e->lock);
    return long_ago;
}

static bool lacks_resources(int err) {
    return err == EAGAIN || err == EMFILE || err == ENFILE || err == ENOMEM || err == ENOBUFS;
}

/* It ends with this error; but one that may be for a while only puts it off. */
static void fail(struct fsp_spawner *s, struct fsp_job *job, uint64_t now, struct fsp_error error) {
    drop_pipes(s, job);
    if (lacks_resources(error.err) && !scarce_for_long(s->engine) && now < job->give_up_at) {
        fsp_pipes_close(&s->pipes);
        give_back(job);
        s->hold_until = now + FSP_HOLD_NS; /* let children end first */
        return;
    }
    job->outcome.error = error;
    fsp_in_close(s, job);
    fsp_job_end(job);
}

static enum fsp_birth start_at(const struct fsp_origin_ops *ops, struct fsp_spawner *s,
                               struct fsp_job *job, uint64_t now, struct fsp_error *error) {
    enum fsp_birth how = ops->start(s, job, now, error);
    if (how >= FSP_BIRTH_OWN) job->from.ops = ops;
    return how;
}

static enum fsp_birth start(struct fsp_spawner *s, struct fsp_job *job, uint64_t now,
                            struct fsp_error *error) {
    struct fsp_origin *first = job->turn;
    for (; job->turn; job->turn = job->turn->next) {
        enum fsp_birth how = start_at(job->turn->ops, s, job, now, error);
        if (how == FSP_BIRTH_FAILED) job->turn = first;
        if (how != FSP_BIRTH_NONE) return how;
        drop_pipes(s, job);
    }
    enum fsp_birth how = start_at(&fsp_exec, s, job, now, error);
    if (how == FSP_BIRTH_FAILED) job->turn = first; /* they may have one when it tries again */
    return how;
}

/* So that nothing fails once there is a child. */
static int reserve(struct fsp_spawner *s) {
    int r = fsp_slots_reserve(&s->slots);
    return r < 0 ? r : fsp_heap_reserve(&s->heap);
}

/* What it was told while it was pending.  true: it is not to begin any more. */
static bool is_off(struct fsp_job *job) {
    struct fsp_mail mail = fsp_job_take_mail(job);
    if (mail.adopt) { /* before it began: it is a job like any other */
        job->options.flags &= ~FSP_JOB_SPARE;
        if (mail.tell_adopted) job->options.flags |= FSP_JOB_STARTED;
    }
    fsp_in_append(job, mail.feed);
    job->in.eof |= mail.eof;
    if (mail.resized) job->options.size = mail.size;
    for (int i = 0; i < 2; i++) job->held_signals[i] |= mail.signals[i];
    return mail.cancel || (mail.eof && fsp_job_has_terminal(job)); /* nobody is there any more */
}

void fsp_job_begin(struct fsp_spawner *s, struct fsp_job *job, uint64_t now, bool stopping) {
    if (is_off(job) || stopping) {
        job->outcome.cancelled = 1;
        fsp_in_close(s, job);
        fsp_job_end(job);
        return;
    }
    if (job->give_up_at == 0) job->give_up_at = now + FSP_RETRY_NS;
    int r = reserve(s);
    struct fsp_error error = {-r, FSP_STAGE_PREPARE, -1};
    /* Before there is a child: a detached one may have ended by the time that clone returns. */
    job->started_at = sys_now();
    enum fsp_birth how = r < 0 ? FSP_BIRTH_FAILED : start(s, job, now, &error);
    if (how == FSP_BIRTH_FAILED) {
        fail(s, job, now, error);
        return;
    }
    enlist(s, job);
    if (how == FSP_BIRTH_LATER) return;
    if (how == FSP_BIRTH_LENT)
        lent(s, job);
    else
        running(s, job);
    if (job->held_signals[0] | job->held_signals[1]) fsp_job_catch_up(job);
}
