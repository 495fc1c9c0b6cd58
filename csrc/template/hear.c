/*
 * hear.c - what a template process says, and that it has ended.
 */
#include "zygote.h"

#ifdef __linux__
#include <sys/socket.h>
#include <sys/uio.h>

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
                    const struct fsp_said *said) {
    if (z->state != FSP_ZYGOTE_STARTING) return;
    if (reply->kind == FSP_SNAP_REFUSED) {
        fsp_template_set_makers(z->template, said->data, said->size);
        refused(s, z, fsp_zygote_refusal(reply->value));
        return;
    }
    if (reply->kind != FSP_SNAP_HELLO || reply->version != FSP_SNAP_VERSION) {
        refused(s, z, FSP_REFUSED_BUILD);
        return;
    }
    if (fsp_files_keep(z, said) < 0) {
        refused(s, z, FSP_REFUSED_INPUTS);
        return;
    }
    z->at_effect = reply->slot != 0;
    z->stopped_by = z->at_effect ? reply->value : 0;
    z->may_checkpoint = may_ever_checkpoint(z->template, !z->at_effect && reply->value);
    z->state = FSP_ZYGOTE_READY;
    fsp_spawner_calm(s);
    z->due = 0;
    z->looked = z->born; /* it has read them since */
    fsp_helpers_look_at(s, fsp_files_idle(z, z->born));
    fsp_place_of(z->template, s)->failures = fsp_place_of(z->template, s)->misses = 0;
    fsp_zygote_tell_follower(s, z);
    fsp_template_set_ready(z, 1);
}

static void answered(struct fsp_spawner *s, struct fsp_zygote *z) {
    z->due = fsp_zygote_is_asked(z) ? sys_now() + FSP_ANSWER_NS : 0;
    if (z->state == FSP_ZYGOTE_RETIRED && !fsp_zygote_is_asked(z)) fsp_zygote_let_go(s, z);
}

/* False: it is no template process any more. */
static bool forked(struct fsp_spawner *s, struct fsp_zygote *z, uint32_t slot) {
    struct fsp_fork *fork = fsp_fork_answered(z, slot);
    if (fork) {
        fork->born(s, fork, z->page->slot[slot].pid);
        answered(s, z);
        return true;
    }
    if (z->own && !fsp_zygote_pid_of(z, z->own)) { /* it could not fork, and goes on as it was */
        fsp_zygote_give_back(s, z);
        fsp_zygote_bury(s, z, 0);
        return false;
    }
    struct fsp_job *job = fsp_zygote_next_asked(z);
    if (job == NULL) return true;
    z->own = NULL;
    fsp_zygote_answer(s, z, job);
    answered(s, z);
    return true;
}

/* ---- all that it says ---- */

/* Two descriptors at most; whatever comes along besides is not even received (unix(7)). */
static long receive(struct fsp_zygote *z, struct fsp_snap_reply *reply, char *more, size_t room,
                    int fd[2]) {
    _Alignas(struct cmsghdr) char control[CMSG_LEN(2 * sizeof(int))];
    struct iovec parts[2] = {
        {reply, sizeof *reply},
        {more,  room         }
    };
    struct msghdr msg = {.msg_iov = parts,
                         .msg_iovlen = 2,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    long n;
    fd[0] = fd[1] = -1;
    do n = FSP_CALL("recvmsg", recvmsg(z->socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
    while (n == -EINTR);
    struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS) memcpy(fd, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    return n;
}

/* A template process, or a fork that asks to be one with a socket of its own: what it came from. */
static void introduced(struct fsp_spawner *s, struct fsp_zygote *z,
                       const struct fsp_snap_reply *reply, size_t size, const int fd[2]) {
    bool asks = reply->kind == FSP_SNAP_CHECKPOINT;
    struct fsp_said said = {s->scratch, size, fd[asks]};
    if (asks)
        fsp_zygote_checkpoint(s, z, reply, &said, fd[0]);
    else
        greeted(s, z, reply, &said);
    sys_close(fd[1]);
    if (!asks) sys_close(fd[0]);
}

static void close_both(const int fd[2]) { /* nobody asked for them */
    sys_close(fd[0]);
    sys_close(fd[1]);
}

/* Until nobody waits for it, or all.  False: it is no template process any more. */
static bool hear(struct fsp_spawner *s, struct fsp_zygote *z, bool all) {
    struct fsp_snap_reply reply;
    int fd[2];
    while (z->socket >= 0) {
        long n = receive(z, &reply, s->scratch, FSP_SCRATCH, fd);
        if (n == -EAGAIN || n == -ENOMEM) break;
        if (n < (long)sizeof reply) { /* it has gone, or is about to */
            close_both(fd);
            fsp_poller_forget(&s->poller, z->socket, FSP_POLL_IN);
            break;
        }
        if (reply.kind == FSP_SNAP_FORKED) {
            close_both(fd);
            if (!forked(s, z, reply.slot)) return false;
            if (!all && !fsp_zygote_is_asked(z))
                break; /* what else there may be the poller tells again */
        } else
            introduced(s, z, &reply, (size_t)n - sizeof reply, fd);
    }
    return true;
}

/* ---- what the poller says ---- */

bool fsp_zygote_died(struct fsp_spawner *s, struct fsp_zygote *z) {
    struct fsp_status status = {0};
    int r = 1;
    if (!hear(s, z, true)) return true;
    if (z->own && !fsp_zygote_pid_of(z, z->own))
        fsp_zygote_give_back(s, z);
    else
        r = fsp_wait(&z->child, 0, &status);
    if (r == 0) { /* not waitable yet: traced */
        z->unwatched = true;
        fsp_helpers_look_at(s, sys_now() + FSP_WATCH_NS);
        return false;
    }
    if (r < 0) sys_close(z->child.pidfd);
    fsp_zygote_bury(s, z, status.code);
    return true;
}

void fsp_zygote_ready(struct fsp_spawner *s, struct fsp_helper *helper, bool ended) {
    struct fsp_zygote *z = (struct fsp_zygote *)helper;
    if (ended)
        (void)fsp_zygote_died(s, z);
    else
        (void)hear(s, z, false);
}

#endif
