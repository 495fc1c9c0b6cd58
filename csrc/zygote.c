/*
 * zygote.c - what a template process is asked, and what it answers.
 *
 *   start -> HELLO -> ready: ask, FORKED, ask, FORKED ... -> dies, is killed, or is retired
 *
 * Each spawner has one process of each template, and talks to it alone: nothing is shared, and as
 * many forks go on at once as there are spawners.
 *
 * A job that was asked for waits for FORKED; only then has it a child.  If the process dies first,
 * the page tells whether the fork was made: it is then a child like any other, and if not the job
 * goes back to the queue, to start by exec.
 */
#include "zygote.h"

#ifdef __linux__
#include <sys/socket.h>
#include <sys/uio.h>

#define HURRY_NS 100000000u /* for an answer to a job that is to be killed */

/* ---- jobs that wait for it, or run on its page ---- */

static int take_slot(struct fsp_zygote *z) {
    if (z->nfree) return z->free[--z->nfree];
    return z->fresh < FSP_SNAP_SLOTS ? (int)z->fresh++ : -1;
}

bool fsp_zygote_enter(struct fsp_zygote *z, struct fsp_job *job) {
    int slot = take_slot(z);
    if (slot < 0) return false;
    job->zygote = z;
    job->zygote_slot = (uint32_t)slot;
    z->of[slot] = job;
    z->jobs++;
    return true;
}

void fsp_zygote_leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped) {
    struct fsp_zygote *z = job->zygote;
    if (z == NULL) return;
    struct fsp_snap_slot *slot = &z->page->slot[job->zygote_slot];
    if (job->may_checkpoint && slot->pid) fsp_place_of(z->template, s)->misses++;
    job->zygote = NULL;
    z->of[job->zygote_slot] = NULL;
    if (slot->pid && slot->error.err)
        job->outcome.error =
            (struct fsp_error){slot->error.err, slot->error.stage, slot->error.index};
    if (reaped) { /* else the child may still write there */
        *slot = (struct fsp_snap_slot){0};
        z->free[z->nfree++] = (uint16_t)job->zygote_slot;
    }
    if (--z->jobs == 0 && z->state == FSP_ZYGOTE_DEAD) fsp_zygote_free(z);
}

/* The job shall end: a process that does not answer will not be waited for much longer. */
void fsp_zygote_hurry(struct fsp_spawner *s, struct fsp_zygote *z) {
    uint64_t soon = sys_now() + HURRY_NS;
    if (z->due > soon) fsp_zygote_set_due(s, z, soon);
}

struct fsp_job *fsp_zygote_next_asked(struct fsp_zygote *z) {
    struct fsp_job *job = z->asked;
    if (job) z->asked = job->next;
    return job;
}

int fsp_zygote_pid_of(const struct fsp_zygote *z, const struct fsp_job *job) {
    return z->page->slot[job->zygote_slot].pid;
}

void fsp_zygote_await(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job) {
    job->next = NULL;
    if (z->asked)
        z->last->next = job;
    else
        z->asked = job;
    z->last = job;
    if (z->due == 0) fsp_zygote_set_due(s, z, sys_now() + FSP_ANSWER_NS);
}

/* ---- requests ---- */

void fsp_zygote_add_fds(struct msghdr *msg, char *control, const int *fd, size_t n) {
    msg->msg_control = control;
    msg->msg_controllen = CMSG_SPACE(n * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    *c = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n * sizeof(int))};
    memcpy(CMSG_DATA(c), fd, n * sizeof(int));
}

/* Which of the three the fork has already, and which go along. */
static int choose_fds(const struct fsp_spawner *s, const struct fsp_stdio *io, int32_t from[3],
                      int send[3]) {
    int n = 0;
    for (int i = 0; i < 3; i++) {
        int fd = io->fd[i] < 0 ? i : io->fd[i];
        if (i < 2 ? fd == s->devnull : fd == 2)
            from[i] = FSP_SNAP_OWN; /* as it was started: see spawn() */
        else if (fd == s->devnull)
            from[i] = FSP_SNAP_NULL;
        else {
            int k = 0;
            while (k < n && send[k] != fd) k++;
            if (k == n) send[n++] = fd;
            from[i] = k;
        }
    }
    return n;
}

/* May this fork ask to become a template process?  Not with other rights than it would need. */
static bool may_checkpoint(struct fsp_spawner *s, const struct fsp_zygote *z,
                           const struct fsp_job *job) {
    return z->may_checkpoint && fsp_place_of(z->template, s)->misses < FSP_MISSES &&
           !fsp_plan_credentials(job->plan);
}

static int request(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job,
                   const struct fsp_stdio *io) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {0};
    struct fsp_snap_request request = {.slot = job->zygote_slot, .mask = s->engine->mask};
    struct iovec parts[2] = {
        {&request,                               sizeof request                      },
        {(char *)job->plan + FSP_SNAP_PLAN_FROM, job->plan->size - FSP_SNAP_PLAN_FROM}
    };
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 1};
    int send[3], nsend = choose_fds(s, io, request.fd, send);
    if (!(job->plan->flags & (FSP_FLAG_SETSID | FSP_FLAG_SETPGROUP))) request.group = getpgrp();
    if (job->plan->death_signal) request.parent = getpid();
    if (z->told != job->plan) {
        request.plan_size = (uint32_t)job->plan->size;
        request.plan_at = (uint64_t)(uintptr_t)job->plan;
        msg.msg_iovlen = 2;
    }
    job->may_checkpoint = may_checkpoint(s, z, job);
    if (job->may_checkpoint) request.flags |= FSP_SNAP_MAY_CHECKPOINT;
    if (nsend) fsp_zygote_add_fds(&msg, control, send, (size_t)nsend);
    return (int)FSP_CALL("sendmsg", sendmsg(z->socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void remember(struct fsp_zygote *z, struct fsp_plan *plan) {
    if (z->told == plan) return;
    fsp_plan_unref(z->told);
    z->told = fsp_plan_ref(plan);
}

static bool ask(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job) {
    struct fsp_stdio io;
    if (!fsp_zygote_enter(z, job)) return false;
    int r = fsp_stdio_open(s, job, &io);
    if (r == 0) r = request(s, z, job, &io);
    fsp_stdio_close(s, &io);
    if (r >= 0) {
        remember(z, job->plan);
        fsp_zygote_await(s, z, job);
        return true;
    }
    fsp_zygote_leave(s, job, true);
    return false;
}

static bool is_usable(struct fsp_spawner *s, struct fsp_zygote *z, const struct fsp_job *job,
                      uint64_t now) {
    if (z == NULL || z->state != FSP_ZYGOTE_READY || job->plan->nkeep) return false;
    if (z->at_effect && job->plan != z->template->plan) return false;
    const char *changed = fsp_files_changed(z, now);
    if (changed == NULL) return true;
    fsp_template_set_stale(z->template, changed);
    fsp_zygote_retire(s, z);
    return false;
}

/* False: by exec, with whatever stdio was opened still to be closed. */
bool fsp_zygote_ask(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    struct fsp_template *t = job->options.snapshot;
    if (t == NULL || job->by_exec) return false;
    struct fsp_place *place = fsp_place_of(t, s);
    struct fsp_zygote *z = place->zygote;
    bool asked = is_usable(s, z, job, now) && ask(s, z, job);
    fsp_template_asked(t, place, asked);
    return asked;
}

/* ---- answers ---- */

static bool may_ever_checkpoint(const struct fsp_template *t, bool by_itself) {
    if (t->flags & FSP_TEMPLATE_NO_CHECKPOINT) return false;
    return by_itself || t->flags & FSP_TEMPLATE_CHECKPOINT;
}

static void refused(struct fsp_spawner *s, struct fsp_zygote *z, enum fsp_refusal why) {
    z->due = 0;
    fsp_zygote_retire(s, z);
    fsp_template_set_short(s, z, why, 0);
}

static void greeted(struct fsp_spawner *s, struct fsp_zygote *z, const struct fsp_snap_reply *reply,
                    const char *inputs, size_t size) {
    if (z->state != FSP_ZYGOTE_STARTING) return;
    if (reply->kind == FSP_SNAP_REFUSED) {
        refused(s, z, (enum fsp_refusal)reply->value);
        return;
    }
    if (reply->kind != FSP_SNAP_HELLO || reply->version != FSP_SNAP_VERSION ||
        fsp_files_keep(z, inputs, size) < 0) {
        refused(s, z, FSP_REFUSED_BUILD);
        return;
    }
    z->at_effect = reply->slot != 0;
    z->stopped_by = z->at_effect ? reply->value : 0;
    z->may_checkpoint = may_ever_checkpoint(z->template, !z->at_effect && reply->value);
    z->state = FSP_ZYGOTE_READY;
    fsp_spawner_calm(s);
    z->due = 0;
    z->looked = z->born; /* it has read them since */
    fsp_place_of(z->template, s)->failures = fsp_place_of(z->template, s)->misses = 0;
    fsp_template_set_ready(z, 1);
}

/* False: it is no template process any more. */
static bool forked(struct fsp_spawner *s, struct fsp_zygote *z) {
    if (z->own && !fsp_zygote_pid_of(z, z->own)) { /* it could not fork, and goes on as it was */
        fsp_zygote_give_back(s, z);
        fsp_zygote_bury(s, z, 0);
        return false;
    }
    struct fsp_job *job = fsp_zygote_next_asked(z);
    if (job == NULL) return true;
    z->own = NULL;
    z->due = z->asked ? sys_now() + FSP_ANSWER_NS : 0;
    fsp_job_forked(s, job, fsp_zygote_pid_of(z, job));
    if (z->state == FSP_ZYGOTE_RETIRED && z->asked == NULL) fsp_zygote_let_go(s, z);
    return true;
}

/* ---- all that it says ---- */

static long receive(struct fsp_zygote *z, struct fsp_snap_reply *reply, char *more, size_t room,
                    int *fd) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec parts[2] = {
        {reply, sizeof *reply},
        {more,  room         }
    };
    struct msghdr msg = {.msg_iov = parts,
                         .msg_iovlen = 2,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    long n;
    *fd = -1;
    do n = FSP_CALL("recvmsg", recvmsg(z->socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
    while (n == -EINTR);
    struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS) memcpy(fd, CMSG_DATA(c), sizeof *fd);
    return n;
}

bool fsp_zygote_hear(struct fsp_spawner *s, struct fsp_zygote *z, bool all) {
    struct fsp_snap_reply reply;
    int fd;
    while (z->socket >= 0) {
        long n = receive(z, &reply, s->scratch, FSP_SCRATCH, &fd);
        if (n == -EAGAIN || n == -ENOMEM) break;
        if (n < (long)sizeof reply) { /* it has gone, or is about to */
            fsp_poller_forget(&s->poller, z->socket, FSP_POLL_IN);
            break;
        }
        if (reply.kind == FSP_SNAP_FORKED) {
            if (!forked(s, z)) return false;
            if (!all && z->asked == NULL) break; /* what else there may be the poller tells again */
        } else if (reply.kind == FSP_SNAP_CHECKPOINT)
            fsp_zygote_checkpoint(s, z, &reply, s->scratch, (size_t)n - sizeof reply, fd);
        else
            greeted(s, z, &reply, s->scratch, (size_t)n - sizeof reply);
    }
    return true;
}

void fsp_zygote_ready(struct fsp_spawner *s, uint64_t event) {
    struct fsp_zygote *z = s->zygotes;
    while (z && z->id != (uint32_t)(event >> 1)) z = z->next;
    if (z == NULL) return;
    if (event & 1)
        fsp_zygote_died(s, z);
    else
        (void)fsp_zygote_hear(s, z, false);
}

#else

bool fsp_zygote_ask(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    (void)s, (void)job, (void)now;
    return false;
}

void fsp_zygote_leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped) {
    (void)s, (void)job, (void)reaped;
}

void fsp_zygote_ready(struct fsp_spawner *s, uint64_t event) {
    (void)s, (void)event;
}

void fsp_zygote_hurry(struct fsp_spawner *s, struct fsp_zygote *z) {
    (void)s, (void)z;
}

#endif
