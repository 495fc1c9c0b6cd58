/*
 * checkpoint.c - a fork of a template becomes a template process itself (fastspawn_checkpoint).
 *
 * Its process is then no job's child any more but takes the place of the process that it came
 * from, which retires, and the job waits for the fork in which its program goes on.  Whoever is
 * not let goes on as the fork that it is.
 */
#include "zygote.h"

#ifdef __linux__
#include <sys/socket.h>
#include <sys/uio.h>

/* `fd`: a page and stderr, or none. */
static int send_go(int socket, int32_t yes, const int *fd) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {0};
    struct fsp_snap_reply reply = {.kind = FSP_SNAP_GO, .value = yes};
    struct iovec part = {&reply, sizeof reply};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
    if (yes) fsp_zygote_add_fds(&msg, control, fd, 2);
    return (int)FSP_CALL("sendmsg", sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
}

/* Everything that can fail, before anything changes. */
static int adopt(struct fsp_spawner *s, struct fsp_zygote *z, const struct fsp_zygote *old,
                 const struct fsp_said *said) {
    int fd[2] = {fsp_zygote_open_page(z), 2};
    if (fd[0] < 0) return fd[0];
    z->file = old->file;
    z->since = old->since;
    int r = fsp_files_keep(z, said);
    if (r == 0) r = sys_nonblock(z->socket);
    if (r == 0)
        r = fsp_poller_watch(&s->poller, z->socket, FSP_POLL_IN,
                             fsp_helper_token(&z->helper, false));
    if (r == 0) r = send_go(z->socket, 1, fd);
    sys_close(fd[0]);
    return r < 0 ? r : 0;
}

/* The job's process is the template's from now on, and the job waits for the fork of it. */
static void exchange(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job) {
    struct fsp_place *place = fsp_place_of(z->template, s);
    z->child = fsp_job_part(s, job);
    fsp_zygote_leave(s, job, true);
    z->own = job;
    if (place->zygote) fsp_zygote_retire(s, place->zygote);
    place->misses = 0;
    z->state = FSP_ZYGOTE_READY;
    z->at_checkpoint = true;
    fsp_template_count(z->template, &z->template->state.checkpoints);
    z->looked = z->born;
    fsp_helpers_look_at(s, fsp_files_idle(z, z->born));
    fsp_zygote_take_place(s, z);
    fsp_zygote_tell_follower(s, z);
    fsp_template_set_ready(z, 1);
    (void)fsp_zygote_enter(z, job); /* the first */
    /* The plan counts as not told: what the program made of its strings is not what the next
     * request shall find. */
    fsp_zygote_await(s, z, job);
    z->unwatched =
        fsp_poller_watch_child(&s->poller, &z->child, fsp_helper_token(&z->helper, true)) < 0;
    if (z->unwatched) fsp_helpers_look_at(s, sys_now() + FSP_WATCH_NS);
}

static bool may_exchange(struct fsp_spawner *s, const struct fsp_zygote *z,
                         const struct fsp_job *job, const struct fsp_snap_reply *reply) {
    const struct fsp_place *place = fsp_place_of(z->template, s);
    if (reply->version != FSP_SNAP_VERSION || reply->value != FSP_REFUSED_NOT) return false;
    if (place->post.closed || job == NULL || job->child.pidfd < 0) return false;
    if (job->exited || job->terminating) return false;
    return place->zygote == NULL || !place->zygote->at_checkpoint;
}

static enum fsp_refusal why_not(const struct fsp_job *job, const struct fsp_snap_reply *reply) {
    if (reply->value) return fsp_zygote_refusal(reply->value);
    return job && fsp_lacks_pidfd(&job->child) ? FSP_REFUSED_PIDFD : FSP_REFUSED_NOT;
}

/* It is not what it could be: the caller may tell its user. */
static void refused_to_exchange(struct fsp_spawner *s, struct fsp_zygote *z, enum fsp_refusal why) {
    fsp_place_of(z->template, s)->misses = FSP_MISSES;
    pthread_mutex_lock(&s->engine->lock);
    z->template->state.no_checkpoint = why;
    pthread_mutex_unlock(&s->engine->lock);
    fsp_engine_tell(s->engine);
}

void fsp_zygote_checkpoint(struct fsp_spawner *s, struct fsp_zygote *old,
                           const struct fsp_snap_reply *reply, const struct fsp_said *said,
                           int socket) {
    struct fsp_job *job = reply->slot < FSP_SNAP_SLOTS ? old->of[reply->slot] : NULL;
    enum fsp_refusal why = why_not(job, reply);
    if (reply->value) fsp_template_set_makers(old->template, said->data, said->size);
    if (why) refused_to_exchange(s, old, why);
    if (job) job->from.flags = 0; /* it did ask: no miss */
    struct fsp_zygote *z =
        may_exchange(s, old, job, reply) ? fsp_zygote_new(s, old->template) : NULL;
    if (z == NULL) {
        if (!reply->value) (void)send_go(socket, 0, NULL);
        sys_close(socket);
        return;
    }
    z->socket = socket;
    int r = adopt(s, z, old, said);
    if (r == 0) {
        exchange(s, z, job);
        return;
    }
    if (r == -E2BIG) refused_to_exchange(s, old, FSP_REFUSED_INPUTS);
    (void)send_go(socket, 0, NULL);
    fsp_zygote_close(s, z);
    fsp_zygote_free(z);
}

#endif
