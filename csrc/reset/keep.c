/*
 * keep.c - a resident begins, and ends.
 */
#include "reset.h"

#ifdef __linux__
#include <sys/socket.h>

#define START_NS 5000000000u /* for READY: an image may have to be copied */

#define RETRY_NS 100000000u /* it doubles up to 128 times */

/* ---- it begins ---- */

void fsp_nest_failed(struct fsp_nest *nest) {
    unsigned doublings = nest->failures < 7 ? nest->failures : 7;
    nest->failures++;
    nest->not_before = sys_now() + ((uint64_t)RETRY_NS << doublings);
}

static void born(struct fsp_spawner *s, struct fsp_fork *fork, pid_t pid) {
    struct fsp_resident *r =
        (struct fsp_resident *)((char *)fork - offsetof(struct fsp_resident, fork));
    int error;
    r->child = fsp_zygote_child(pid, &error);
    if (r->child.pid > 0) {
        if (fsp_is_refused(error)) fsp_reset_give_up(s, r->reset, error);
        uint64_t token = fsp_helper_token(&r->helper, true);
        r->unwatched = fsp_poller_watch_child(&s->poller, &r->child, token) < 0;
    }
    if (r->unwatched) fsp_kill(&r->child, 0, SIGKILL);
    if (r->child.pid < 0 || r->unwatched) {
        if (r->state != FSP_RESIDENT_RETIRED) fsp_nest_failed(fsp_nest_of(r->reset, s));
        fsp_resident_retire(s, r);
    } else if (r->state == FSP_RESIDENT_RETIRED)
        r->due = sys_now() + FSP_GO_NS; /* when its time was over there was nobody to kill */
    else
        fsp_resident_rest(s, r);
    fsp_helpers_look_at(s, 0); /* one that is not there is removed then */
}

static int open_socket(struct fsp_spawner *s, struct fsp_resident *r, int *other) {
    int ends[2] = {-1, -1}; /* as analysers see it, the call fills nothing */
    int r2 =
        (int)FSP_CALL("socketpair", socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    if (r2 < 0) return r2;
    r->socket = ends[0];
    *other = ends[1];
    r2 = sys_nonblock(r->socket);
    if (r2 == 0)
        r2 = fsp_poller_watch(&s->poller, r->socket, FSP_POLL_IN,
                              fsp_helper_token(&r->helper, false));
    return r2;
}

int fsp_resident_make(struct fsp_spawner *s, struct fsp_reset *reset, struct fsp_zygote *z) {
    struct fsp_nest *nest = fsp_nest_of(reset, s);
    struct fsp_resident *r = sys_calloc(1, sizeof *r);
    int other = -1;
    if (r == NULL) return -ENOMEM;
    fsp_origin_ref(&reset->origin);
    fsp_helper_init(s, &r->helper, &reset->origin);
    r->reset = reset;
    r->child.pidfd = r->socket = r->record = -1;
    r->fork.born = born;
    int error = open_socket(s, r, &other);
    if (error == 0) error = r->record = fsp_fork_resident(s, z, &r->fork, other);
    sys_close(other);
    if (error < 0) {
        fsp_resident_close(s, r);
        fsp_resident_free(r, true);
        return error;
    }
    r->told = fsp_plan_ref(z->told);
    r->due = sys_now() + START_NS;
    fsp_helper_add(s, &r->helper);
    fsp_helpers_look_at(s, r->due);
    nest->n++;
    nest->starting++;
    fsp_reset_count(&reset->state.made);
    __atomic_add_fetch(&reset->state.residents, 1, __ATOMIC_RELAXED);
    return 0;
}

/* ---- it rests ---- */

bool fsp_resident_is_fit(struct fsp_spawner *s, const struct fsp_resident *r) {
    struct fsp_reset *reset = r->reset;
    const struct fsp_nest *nest = fsp_nest_of(reset, s);
    return r->socket >= 0 && r->fork.of == fsp_nest_zygote(reset, s) && !nest->post.closed &&
           !fsp_reset_is_off(reset) && r->served < FSP_SERVES && r->used < FSP_SERVES_NS;
}

void fsp_resident_rest(struct fsp_spawner *s, struct fsp_resident *r) {
    struct fsp_nest *nest = fsp_nest_of(r->reset, s);
    if (r->state == FSP_RESIDENT_RETIRED) return;
    if (r->state == FSP_RESIDENT_STARTING) {
        if (!r->greeted || r->child.pid <= 0) return;
        if (!fsp_resident_is_fit(s, r)) {
            fsp_resident_retire(s, r);
            return;
        }
        nest->starting--;
        nest->failures = 0;
        fsp_post_set_due(s, &nest->post, 0);
    }
    r->state = FSP_RESIDENT_IDLE;
    r->due = sys_now() + FSP_IDLE_NS;
    r->next_idle = nest->idle;
    nest->idle = r;
    fsp_helpers_look_at(s, r->due);
    if (nest->waiting) fsp_post_set_due(s, &nest->post, 0);
}

/* ---- it ends ---- */

void fsp_resident_close(struct fsp_spawner *s, struct fsp_resident *r) {
    if (r->socket < 0) return;
    fsp_poller_forget(&s->poller, r->socket, FSP_POLL_IN);
    sys_close(r->socket);
    r->socket = -1;
}

static void remove_idle(struct fsp_nest *nest, struct fsp_resident *r) {
    struct fsp_resident **at = &nest->idle;
    while (*at != r) at = &(*at)->next_idle;
    *at = r->next_idle;
}

/* It counts no more: another may take its place. */
static void uncount(struct fsp_spawner *s, struct fsp_resident *r) {
    struct fsp_nest *nest = fsp_nest_of(r->reset, s);
    if (r->state == FSP_RESIDENT_RETIRED) return;
    if (r->state == FSP_RESIDENT_IDLE) remove_idle(nest, r);
    nest->starting -= r->state == FSP_RESIDENT_STARTING;
    nest->busy -= r->state == FSP_RESIDENT_LENT || r->state == FSP_RESIDENT_OVER;
    nest->n--;
    __atomic_sub_fetch(&r->reset->state.residents, 1, __ATOMIC_RELAXED);
    fsp_post_set_due(s, &nest->post, 0);
    if (nest->busy == 0 && nest->idle == NULL) fsp_nest_turn_away(s, nest);
}

void fsp_resident_retire(struct fsp_spawner *s, struct fsp_resident *r) {
    if (r->state == FSP_RESIDENT_RETIRED) return;
    if (r->state != FSP_RESIDENT_STARTING) fsp_reset_count(&r->reset->state.retired);
    uncount(s, r);
    r->state = FSP_RESIDENT_RETIRED;
    fsp_resident_close(s, r);
    r->due = sys_now() + FSP_GO_NS;
    fsp_helpers_look_at(s, r->due);
}

void fsp_resident_let_go(struct fsp_spawner *s, struct fsp_resident *r) {
    uncount(s, r);
    r->state = FSP_RESIDENT_OWN;
    fsp_resident_close(s, r);
    if (r->child.pidfd >= 0) fsp_poller_forget(&s->poller, r->child.pidfd, FSP_POLL_IN);
    fsp_helper_remove(s, &r->helper);
}

void fsp_resident_free(struct fsp_resident *r, bool reaped) {
    if (r->record >= 0) fsp_fork_leave(&r->fork, r->record, reaped);
    fsp_plan_unref(r->told);
    fsp_origin_unref(&r->reset->origin);
    free(r);
}

bool fsp_resident_bury(struct fsp_spawner *s, struct fsp_resident *r) {
    struct fsp_status status;
    int done = r->child.pid > 0 ? fsp_wait(&r->child, 0, &status) : 1;
    if (done == 0) { /* not waitable yet: traced */
        r->unwatched = true;
        fsp_helpers_look_at(s, sys_now() + FSP_WATCH_NS);
        return false;
    }
    if (done < 0) sys_close(r->child.pidfd);
    if (r->state == FSP_RESIDENT_STARTING) fsp_nest_failed(fsp_nest_of(r->reset, s));
    uncount(s, r);
    fsp_resident_close(s, r);
    fsp_helper_remove(s, &r->helper);
    fsp_resident_free(r, true);
    return true;
}

#endif
