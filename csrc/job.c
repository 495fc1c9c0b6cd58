/*
 * job.c - the life of a job on its spawner.
 *
 *   start -> runs -> leader exits -> pipes at their end (or drain deadline) -> reaped, ended
 *              \-> terminate: TERM to the group, grace, KILL -> leader exits ...
 *
 * The leader stays a zombie while its pipes drain, so that its pid, and with it the group's, stays
 * ours to signal.  Nothing here blocks: a child may close its pipes and live on, or leave them to
 * others when it goes.
 *
 * Every started job is in the slots and in the heap until finish() takes it out.
 */
#include "engine.h"

static uint64_t after(uint64_t now, uint64_t delay) {
    return delay > UINT64_MAX - now ? UINT64_MAX : now + delay;
}

void fsp_job_set_due(struct fsp_spawner *s, struct fsp_job *job, enum fsp_due kind, uint64_t at) {
    job->due[kind] = at;
    uint64_t next = UINT64_MAX;
    for (int i = 0; i < FSP_NDUE; i++)
        if (job->due[i] && job->due[i] < next) next = job->due[i];
    if (next == job->next_due) return;
    job->next_due = next;
    fsp_heap_moved(&s->heap, job);
}

/* ---- the end ---- */

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
    int r = job->abandoned ? -ETIMEDOUT : fsp_wait(&job->child, 0, status);
    if (r < 0) {
        *status = (struct fsp_status){.lost = 1};
        sys_close(job->child.pidfd);
    }
    return r != 0;
}

/* Asked of a template process, which has not answered: there is no child to look at yet. */
static bool is_waiting(const struct fsp_job *job) {
    return job->zygote && job->child.pid == 0;
}

/* The child has ended: did it ever become the program? */
static void take_pad(struct fsp_job *job) {
    struct fsp_pad *pad = job->pad;
    if (pad == NULL) return;
    job->pad = NULL;
    if (fsp_pad_busy(pad)) { /* given up on its way: what it reads must stay */
        fsp_plan_ref(job->plan);
        return;
    }
    if (pad->error.err) {
        job->outcome.error = (struct fsp_error){pad->error.err, pad->error.stage, pad->error.index};
    }
    fsp_pad_put(pad);
}

static void finish(struct fsp_spawner *s, struct fsp_job *job) {
    if (job->terminating && !job->killed) {
        /* The leader has gone; whoever of its group is left goes too. */
        fsp_kill(&job->child, 1, SIGKILL);
        job->killed = true;
    }
    if (!reap(job)) {
        /* Known to have ended, but not waitable yet (traced, or reported by kqueue). */
        fsp_job_set_due(s, job, FSP_DUE_POLL, sys_now() + FSP_WATCH_NS);
        return;
    }
    take_pad(job);
    fsp_zygote_leave(s, job, !job->abandoned);
    if (job->outcome.error.stage) job->outcome.pid = 0;
    job->outcome.wall = sys_now() - job->started_at;
    close_all(s, job);
    fsp_heap_remove(&s->heap, job);
    fsp_slots_remove(&s->slots, job);
    s->hold_until = 0; /* what it held is free: spawns that were put off may try again */
    fsp_job_end(job);
}

static bool outputs_closed(const struct fsp_job *job) {
    return job->out[0].fd < 0 && job->out[1].fd < 0;
}

/* Memory ran out: the answer cannot be complete, so the child need not go on. */
static void out_of_memory(struct fsp_spawner *s, struct fsp_job *job) {
    job->outcome.error = (struct fsp_error){ENOMEM, FSP_STAGE_NONE, -1};
    fsp_out_close(s, job, 0);
    fsp_out_close(s, job, 1);
    fsp_job_terminate(s, job);
}

/* Returns true when the job has ended. */
static bool pump(struct fsp_spawner *s, struct fsp_job *job) {
    for (int i = 0; i < 2; i++)
        if (!fsp_out_pump(s, job, i)) out_of_memory(s, job);
    if (!job->exited || !outputs_closed(job)) return false;
    finish(s, job);
    return true;
}

static void watch_outputs(struct fsp_spawner *s, struct fsp_job *job) {
    for (int i = 0; i < 2; i++)
        if (job->out[i].fd >= 0 && fsp_job_has_room(job, i)) fsp_out_watch(s, job, i);
}

static void set_drain(struct fsp_spawner *s, struct fsp_job *job) {
    uint64_t drain = after(sys_now(), job->options.limits.drain);
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
    job->streaming |= job->options.flags & FSP_JOB_STREAM;
    watch_outputs(s, job);
    set_drain(s, job);
}

/* ---- killing ---- */

static void kill_now(struct fsp_spawner *s, struct fsp_job *job) {
    if (is_waiting(job)) fsp_zygote_hurry(s, job->zygote);
    fsp_kill(&job->child, 1, SIGKILL);
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
    fsp_kill(&job->child, 1, SIGTERM);
    fsp_kill(&job->child, 1, SIGCONT);
    fsp_job_set_due(s, job, FSP_DUE_KILL, after(sys_now(), job->options.limits.kill_grace));
}

void fsp_job_abort(struct fsp_spawner *s, struct fsp_job *job) {
    if (job->aborted) return;
    job->aborted = true;
    job->outcome.cancelled = 1;
    job->options.limits.drain = 0;
    kill_now(s, job);
    if (job->exited) finish(s, job);
}

static void grace_over(struct fsp_spawner *s, struct fsp_job *job) {
    if (job->killed && !is_waiting(job)) { /* not even KILL ended it: uninterruptible, or lost */
        job->abandoned = !job->exited;
        finish(s, job);
        return;
    }
    kill_now(s, job);
    if (job->exited) finish(s, job);
}

/* ---- what the spawner's loop brings ---- */

/* The reader's slowness is no one else's pipe: what the child wrote waits for it, and the drain
 * begins anew when it has taken some. */
static bool is_stalled(struct fsp_job *job) {
    for (int i = 0; i < 2; i++)
        if (job->out[i].fd >= 0 && !fsp_job_has_room(job, i)) return true;
    return false;
}

static void drain_over(struct fsp_spawner *s, struct fsp_job *job) {
    /* Of a job that is being ended nobody waits for the rest.  Else the reader may have taken some
     * just now, its mail not being read yet: what waited for it is still in the pipe. */
    if (!job->terminating && (pump(s, job) || is_stalled(job))) return;
    finish(s, job);
}

static void look_again(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    if (job->exited && outputs_closed(job)) {
        finish(s, job);
        return;
    }
    fsp_in_pump(s, job);
    if (pump(s, job)) return;
    if (!job->due[FSP_DUE_WATCH]) watch_outputs(s, job);
    if (!job->exited && job->child.pidfd < 0) {
        fsp_job_set_due(s, job, FSP_DUE_POLL, now + FSP_WATCH_NS);
        if (fsp_has_exited(&job->child)) leader_exited(s, job);
    }
}

static void outlived(struct fsp_spawner *s, struct fsp_job *job) {
    if ((job->options.flags & (FSP_JOB_STREAM | FSP_JOB_SPARE)) == FSP_JOB_STREAM)
        fsp_job_set_due(s, job, FSP_DUE_STREAM, job->started_at + FSP_STREAM_NS);
    watch_outputs(s, job);
}

static void set_deadline(struct fsp_spawner *s, struct fsp_job *job) {
    uint64_t timeout = job->options.limits.timeout;
    if (timeout && !(job->options.flags & FSP_JOB_SPARE))
        fsp_job_set_due(s, job, FSP_DUE_DEADLINE, after(job->started_at, timeout));
}

/* One that has ended meanwhile, noticed or not, stays a spare. */
static void adopt(struct fsp_spawner *s, struct fsp_job *job, bool tell) {
    if (!(job->options.flags & FSP_JOB_SPARE) || job->exited || job->terminating) return;
    if (!is_waiting(job) && fsp_has_exited(&job->child)) return;
    job->options.flags &= ~FSP_JOB_SPARE;
    job->started_at = sys_now();
    set_deadline(s, job);
    if (tell) fsp_job_tell_started(job);
    if (!job->due[FSP_DUE_WATCH] && !is_waiting(job)) outlived(s, job);
}

/* One thing at a time: each may end the job. */
void fsp_job_due(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    enum fsp_due kind = 0;
    for (int i = 1; i < FSP_NDUE; i++)
        if (job->due[i] && (!job->due[kind] || job->due[i] < job->due[kind])) kind = i;
    fsp_job_set_due(s, job, kind, 0);
    switch (kind) {
    case FSP_DUE_WATCH:
        outlived(s, job);
        break;
    case FSP_DUE_STREAM:
        if (!fsp_out_stream(job)) out_of_memory(s, job);
        break;
    case FSP_DUE_DEADLINE:
        job->outcome.timed_out = 1;
        fsp_job_terminate(s, job);
        break;
    case FSP_DUE_KILL:
        grace_over(s, job);
        break;
    case FSP_DUE_DRAIN:
        drain_over(s, job);
        break;
    default:
        look_again(s, job, now);
    }
}

void fsp_job_ready(struct fsp_spawner *s, struct fsp_job *job, enum fsp_source source) {
    switch (source) {
    case FSP_SOURCE_CHILD:
        leader_exited(s, job);
        break;
    case FSP_SOURCE_STDIN:
        fsp_in_pump(s, job);
        break;
    default:
        pump(s, job);
    }
}

static void send_signals(struct fsp_job *job, const uint64_t signals[2]) {
    for (int group = 0; group < 2; group++)
        for (int sig = 1; signals[group] >> (sig - 1); sig++) {
            if (signals[group] >> (sig - 1) & 1 && !job->exited) fsp_kill(&job->child, group, sig);
            if (sig == 64) break;
        }
}

void fsp_job_read_mail(struct fsp_spawner *s, struct fsp_job *job) {
    struct fsp_mail mail = fsp_job_take_mail(job);
    if (mail.adopt) adopt(s, job, mail.tell_adopted);
    fsp_in_append(job, mail.feed);
    job->in.eof |= mail.eof;
    if (is_waiting(job)) {
        for (int i = 0; i < 2; i++) job->held_signals[i] |= mail.signals[i];
    } else {
        fsp_in_pump(s, job);
        send_signals(job, mail.signals);
    }
    if (mail.cancel) {
        job->outcome.cancelled = 1;
        fsp_job_terminate(s, job);
        if (job->exited && job->killed) {
            finish(s, job);
            return;
        }
    }
    if (!mail.stalled || !job->streaming || pump(s, job)) return;
    watch_outputs(s, job);
    if (job->exited) set_drain(s, job);
}

/* ---- the start ---- */

static bool lacks_resources(int err) {
    return err == EAGAIN || err == EMFILE || err == ENFILE || err == ENOMEM || err == ENOBUFS;
}

/* Children that have not executed yet. */
static unsigned on_their_way(const struct fsp_spawner *s) {
    unsigned n = 0;
    for (size_t i = 0; i < s->heap.n; i++)
        n += s->heap.jobs[i]->pad && fsp_pad_busy(s->heap.jobs[i]->pad);
    return n;
}

/*
 * Not waiting for the exec saves a spawner two context switches, and it can start the next child
 * meanwhile.  It waits when it is asked to tell that the program runs, when its table is too large
 * to be copied, and when enough children are on their way: more would only take the processors
 * from the event loop.
 */
static bool may_detach(const struct fsp_spawner *s, const struct fsp_job *job) {
    return s->private && !(job->options.flags & FSP_JOB_STARTED) && s->heap.n < FSP_DETACHED &&
           on_their_way(s) < FSP_ON_THEIR_WAY;
}

static int spawn_with(struct fsp_spawner *s, struct fsp_job *job, const struct fsp_stdio *io,
                      struct fsp_error *error) {
    unsigned flags = fsp_spawner_flags(s);
    if (may_detach(s, job)) flags |= FSP_SPAWN_DETACHED;
    int r = fsp_spawn_on(job->pad, job->plan, io, flags, &s->engine->mask, &job->child, error);
    if (r == 0 && job->pad->launch.detached) return 0;
    fsp_pad_put(job->pad);
    job->pad = NULL;
    return r;
}

static int reserve(struct fsp_spawner *s) {
    int r = fsp_slots_reserve(&s->slots);
    return r < 0 ? r : fsp_heap_reserve(&s->heap);
}

static int spawn(struct fsp_spawner *s, struct fsp_job *job, struct fsp_error *error) {
    struct fsp_stdio io;
    int r = (job->pad = fsp_pad_get()) ? 0 : -ENOMEM;
    *error = (struct fsp_error){-r, FSP_STAGE_PREPARE, -1};
    if (r < 0) return r;
    r = fsp_stdio_open(s, job, &io);
    if (r == 0) {
        r = spawn_with(s, job, &io, error);
    } else {
        *error = (struct fsp_error){-r, FSP_STAGE_PREPARE, -1};
        fsp_pad_put(job->pad);
        job->pad = NULL;
    }
    fsp_stdio_close(s, &io);
    return r;
}

static void enlist(struct fsp_spawner *s, struct fsp_job *job) {
    job->next_due = UINT64_MAX;
    fsp_slots_add(&s->slots, job);
    fsp_heap_add(&s->heap, job);
    set_deadline(s, job);
}

/* It has a child now. */
static void running(struct fsp_spawner *s, struct fsp_job *job) {
    job->outcome.pid = job->child.pid;
    pthread_mutex_lock(&s->engine->lock);
    s->engine->stats.started++;
    s->engine->stats.running++;
    s->engine->scarce_at = 0;
    pthread_mutex_unlock(&s->engine->lock);

    uint64_t token = fsp_slots_token(&s->slots, job, FSP_SOURCE_CHILD);
    uint64_t soon = job->started_at + FSP_WATCH_NS;
    if (!outputs_closed(job)) fsp_job_set_due(s, job, FSP_DUE_WATCH, soon);
    if (fsp_poller_watch_child(&s->poller, &job->child, token) < 0) {
        sys_close(job->child.pidfd);
        job->child.pidfd = -1;
        fsp_job_set_due(s, job, FSP_DUE_POLL, soon);
    }
    if (job->options.flags & FSP_JOB_STARTED) fsp_job_tell_started(job);
    job->options.flags &= ~FSP_JOB_STARTED;
    fsp_in_pump(s, job);
}

static void drop_pipes(struct fsp_spawner *s, struct fsp_job *job) {
    for (int i = 0; i < 2; i++) fsp_out_close(s, job, i);
    sys_close(job->in.fd);
    job->in.fd = -1;
}

/* No fork was made, so none of its request was read: start it by exec, unless it is to end. */
static void start_over(struct fsp_spawner *s, struct fsp_job *job) {
    fsp_zygote_leave(s, job, true);
    drop_pipes(s, job);
    fsp_heap_remove(&s->heap, job);
    fsp_slots_remove(&s->slots, job);
    for (int i = 0; i < FSP_NDUE; i++) job->due[i] = 0;
    job->by_exec = true;
    for (int i = 0; i < 2; i++) job->out[i].held.len = 0;
    if (!job->terminating) {
        fsp_job_give_back(job);
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
    job->may_checkpoint = false;
    fsp_zygote_leave(s, job, true);
    pthread_mutex_lock(&s->engine->lock);
    s->engine->stats.started--;
    s->engine->stats.running--;
    pthread_mutex_unlock(&s->engine->lock);
    return child;
}

void fsp_job_forked(struct fsp_spawner *s, struct fsp_job *job, int pid) {
    if (pid <= 0) {
        start_over(s, job);
        return;
    }
    int pidfd = sys_pidfd_open(pid);
    fsp_job_rejoin(s, job, (struct fsp_child){pid, pidfd < 0 ? -1 : pidfd});
}

void fsp_job_rejoin(struct fsp_spawner *s, struct fsp_job *job, struct fsp_child child) {
    job->child = child;
    running(s, job);
    send_signals(job, job->held_signals);
    if (!job->terminating) return;
    fsp_kill(&job->child, 1, job->killed ? SIGKILL : SIGTERM);
    fsp_kill(&job->child, 1, SIGCONT);
}

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

int fsp_job_start(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    struct fsp_error error;
    if (job->give_up_at == 0) job->give_up_at = now + FSP_RETRY_NS;
    int r = reserve(s);
    error = (struct fsp_error){-r, FSP_STAGE_PREPARE, -1};
    /* Before there is a child: a detached one may have ended by the time that clone returns. */
    job->started_at = sys_now();
    if (r == 0 && fsp_zygote_ask(s, job, now)) {
        enlist(s, job);
        return 0;
    }
    drop_pipes(s, job);
    if (r == 0 && spawn(s, job, &error) == 0) {
        enlist(s, job);
        running(s, job);
        return 0;
    }
    drop_pipes(s, job);
    if (lacks_resources(error.err) && !scarce_for_long(s->engine) && now < job->give_up_at)
        return 1;
    job->outcome.error = error;
    fsp_in_close(s, job);
    fsp_job_end(job);
    return 0;
}
