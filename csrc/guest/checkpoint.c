/*
 * checkpoint.c - a fork that becomes a template process itself, where it asks to.
 *
 * What the package's own module and programs of any language call; in programs that are no
 * templates these symbols do not exist: declare them weak.
 */
#include "internal.h"

#ifdef __linux__
#include <stdalign.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

EXPORT int fastspawn_checkpoint(const char *const *files);
EXPORT char *const *fastspawn_arguments(void);
/* ... of the package's own module alone. */
EXPORT int fastspawn_freeze(const char *const *files, int known, hook *before, hook *after);
EXPORT int fastspawn_serve(void);

extern void __fpurge(FILE *) __attribute__((weak));

/* Ask on the template's socket, which is given up, and go on with one of our own. */
static bool apply(enum fsp_refusal why, const struct inputs_packed *inputs) {
    struct fsp_snap_reply reply = {FSP_SNAP_CHECKPOINT, FSP_SNAP_VERSION, self.slot, why};
    int ends[2];
    long r = raw(socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
    if (r == 0) {
        r = word_say(&reply, inputs, ends[1]);
        raw(close, ends[1]);
        raw(close, self.socket);
        self.socket = ends[0];
    }
    if (inputs->fd >= 0) raw(close, inputs->fd);
    return r >= 0;
}

/* The spawner's answer: a page, and its stderr; or neither. */
static bool is_accepted(int *errors) {
    struct fsp_snap_reply reply;
    struct iovec part = {&reply, sizeof reply};
    int fd[3], n = word_receive(&part, 1, fd);
    if (n < 0 || reply.kind != FSP_SNAP_GO || !reply.value) return false;
    if (n != 2) leave(127); /* no room for them: we are a template process already */
    long page = word_map_page(fd[0]);
    raw(close, fd[0]);
    *errors = fd[1];
    if (failed(page)) leave(127);
    word_drop_page(); /* that of the template before */
    self.page = (struct fsp_snap_page *)page;
    return true;
}

/* Let go of the request, which is the fork's: who cannot would keep it from its end. */
static void drop_stdio(int errors) {
    if (!copies_keep()) leave(127);
    long null = raw(openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0);
    if (null < 0) leave(127);
    bool placed = guest_place(null, 0, 0) >= 0 && guest_place(null, 1, 0) >= 0 &&
                  guest_place(errors, 2, 0) >= 0 && copies_drop() >= 0;
    if (!placed) leave(127);
    raw(close, null);
    raw(close, errors);
}

/* Nor be ended with it: what its group is told is not for us. */
static void leave_group(void) {
    const struct fsp_plan *plan = self_plan();
    if (!(plan->flags & (FSP_FLAG_SETSID | FSP_FLAG_SETPGROUP)) || plan->pgroup) raw(setpgid, 0, 0);
}

static void join_group(void) {
    const struct fsp_plan *plan = self_plan();
    if (plan->flags & FSP_FLAG_SETSID) raw(setsid, 0);
    if (plan->flags & FSP_FLAG_SETPGROUP) raw(setpgid, 0, plan->pgroup);
}

/* A fork goes on with our own request: 0 there; its pid in us, who shall serve; or -errno, and we
 * go on with it ourselves. */
static long hand_over(int errors) {
    struct parcel own = {0};
    long r = fork_for(&own);
    if (r != 0) {
        word_tell(FSP_SNAP_FORKED, 0, r < 0 ? (int)r : 0);
        fork_end();
    }
    if (r > 0) {
        drop_stdio(errors);
        leave_group();
        return r;
    }
    raw(close, self.socket);
    raw(close, errors);
    word_drop_page();
    if (r == 0) {
        const struct fsp_plan *plan = self_plan();
        join_group();
        /* No fork has it of the one that it was forked from. */
        if (plan->death_signal && fsp_child_follow(plan->death_signal, self.parent) < 0) leave(127);
        atfork_child();
    }
    return r;
}

/* The first one's plan stays as the program has it: its arguments and its environment are there. */
static void take_new_plan(void) {
    self.cwd = self_plan()->cwd;
    long plan = word_map_plan();
    if (failed(plan)) leave(127);
    self.plan = (char *)plan;
}

/* What no fork of a later request shall have of the first one's. */
static void forget_first(void) {
    take_new_plan();
    if (__fpurge) __fpurge(stdin);
    clearerr(stdin);
    if (!env_freeze()) leave(127);
}

static enum fsp_refusal refusal_here(const char *const *files, enum fsp_refusal why) {
    int *tid = self.tid;
    if (!why) why = fork_refusal();
    self.tid = tid;
    if (!why && loops_exist()) why = FSP_REFUSED_LOOP;
    if (!why && !copies_find()) why = FSP_REFUSED_MEMORY;
    if (!why) why = inputs_add_mapped(true);
    if (!why && !inputs_add_place()) why = FSP_REFUSED_INPUTS;
    for (; !why && files && *files; files++)
        if (!inputs_add(*files, FSP_SNAP_FOLLOW)) why = FSP_REFUSED_INPUTS;
    return why;
}

/*
 * As fastspawn_checkpoint(), but 1 in the process that is the template now: it shall call
 * fastspawn_serve().  `known`: why it cannot be (enum fsp_refusal), or 0.  A refusal that is for
 * the user is -FSP_SNAP_WHY(enum fsp_refusal).
 *
 * `before` and `after` (or NULL) run around each fork, in the process that forks: `before`,
 * libc's handlers, the fork, libc's handlers, `after`.
 */
EXPORT int fastspawn_freeze(const char *const *files, int known, hook *before, hook *after) {
    int errors;
    if (self.pid == 0 || self.pid != (int)raw(getpid, 0)) return -ENOTSUP;
    self.pid = 0;
    self.before = before;
    self.after = after;
    fork_prepare();
    struct inputs_packed inputs;
    enum fsp_refusal why = refusal_here(files, (enum fsp_refusal)known);
    fflush(NULL);
    copies_fill();
    if (!why && !inputs_pack(&inputs)) why = FSP_REFUSED_INPUTS;
    if (why) inputs = makers_pack(why);
    if (!apply(why, &inputs) || why || !is_accepted(&errors)) {
        copies_clear();
        raw(close, self.socket);
        word_drop_page();
        fork_end();
        return why ? -FSP_SNAP_WHY(why) : -EAGAIN;
    }
    long r = hand_over(errors);
    if (r <= 0) {
        copies_clear();
        return r < 0 ? -EAGAIN : 0;
    }
    self.running = true;
    forget_first();
    return 1;
}

/* Nothing of the program has happened for this request. */
static _Noreturn void cannot(int slot, long error) {
    if (resident_is()) resident_cannot();
    word_fail((uint32_t)slot, error, 0);
}

/* Returns 1 in the fork of a request, 2 if its environment is not the template's, and 0 in the
 * template when nobody wants it any more. */
EXPORT int fastspawn_serve(void) {
    int slot = serve_forks();
    if (slot < 0) return 0;
    long error = copies_follow();
    if (error < 0) cannot(slot, error);
    word_drop_page();
    const struct fsp_plan *plan = self_plan();
    if (self.own_name) env_name_program(plan->argv[0]);
    bool own = env_enter(plan->envp);
    fresh_renew_random();
    atfork_child();
    return own ? 2 : 1;
}

static int error_of(enum fsp_refusal why) {
    if (why == FSP_REFUSED_THREADS || why == FSP_REFUSED_LOOP) return EBUSY;
    return why == FSP_REFUSED_INPUTS ? E2BIG : ENOTSUP;
}

/*
 * Become a template process here: what ran so far runs once, what follows once per request, each
 * in a fork of its own.  `files` (NULL-terminated, or NULL): what the process came from; when one
 * of them changes it is replaced.  Returns 0 in the fork that goes on with the request of the
 * caller, 1 in one of a later request (whose arguments fastspawn_arguments() gives), and -errno
 * in the caller, which then goes on as if nothing had been asked: -ENOTSUP (this is no fork of a
 * template, or it may not, or cannot here), -EBUSY (it has several threads, or an event loop),
 * -E2BIG (it came from more files than can be watched), -EAGAIN (another one came first).
 */
EXPORT int fastspawn_checkpoint(const char *const *files) {
    int r = fastspawn_freeze(files, FSP_REFUSED_NOT, NULL, NULL);
    if (r <= -FSP_SNAP_WHY(0)) return -error_of((enum fsp_refusal)(-r - FSP_SNAP_WHY(0)));
    if (r != 1) return r;
    if (fastspawn_serve() == 0) leave(0);
    return 1;
}

/* The argv of the request that this process serves, as it was given to the spawner; NULL where
 * there is none. */
EXPORT char *const *fastspawn_arguments(void) {
    return self.plan ? self_plan()->argv : NULL;
}

#endif
