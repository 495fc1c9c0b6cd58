/*
 * preload.c - the inside of a template process: a program stopped before its main.
 *
 * With settle.c, inputs.c and effect.c this is a shared object of its own, which the dynamic linker
 * loads first (LD_PRELOAD) so that the program's call of __libc_start_main comes here.  Linking,
 * libc's set-up and constructors run as ever; in main's place stands frozen_main, which serves
 * requests. For each it forks, and the fork settles as any child does (settle.c) and goes on to the
 * program's main, with the arguments, environment and descriptors of its request.
 *
 * A fork is made by the raw system call with CLONE_PARENT: the spawner's child, not ours, and
 * reaped, signalled and timed by it like any other.  Libc does not know, so what its own fork
 * would see to is done here: the thread id that it keeps (CLONE_CHILD_SETTID on the address that
 * the kernel knows), and the robust list.  There is one thread, so no lock can be held.
 *
 * A process can also stop later than before its main: at a checkpoint that it asks for, or before
 * its first effect (effect.c).  It is served from there in the same loop.
 *
 * Everything is the kernel's interface, but for dlsym and a few variables that glibc and musl
 * share: one object serves both.
 */
#include "preload.h"

#ifdef __linux__
#include "rawsys.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdalign.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

#define KEPT_ABOVE 60 /* where a program does not expect its next descriptor */

#define EXPORT __attribute__((visibility("default")))

typedef void hook(void);

/* In programs that are no templates these symbols do not exist: declare them weak. */
EXPORT int fastspawn_checkpoint(const char *const *files);
EXPORT char *const *fastspawn_arguments(void);
/* ... of the package's own module alone. */
EXPORT int fastspawn_freeze(const char *const *files, int known, hook *before, hook *after);
EXPORT int fastspawn_serve(void);

typedef int main_fn(int, char **, char **);
typedef int start_fn(main_fn *, int, char **, void (*)(void), void (*)(void), void (*)(void),
                     void *);

/* What another program does not have is NULL.  (dlsym would say so with a message from malloc,
 * which is the program's to begin with.) */
extern const char Py_BytesMain[] __attribute__((weak)); /* is it there? It is never called. */
extern char **environ;
extern char *program_invocation_name __attribute__((weak));
extern char *program_invocation_short_name __attribute__((weak));
extern void __fpurge(FILE *) __attribute__((weak));

static struct {
    main_fn *main;
    int socket, page_fd, library_fd, argc, effect;
    bool running; /* past main: what the program made of itself stays */
    struct fsp_snap_page *page;
    char *plan;           /* FSP_SNAP_PLAN_MAX bytes: the latest request's that had one */
    int *tid;             /* what the kernel clears at the end of the thread */
    int *libc_tid;        /* what libc takes for the thread's id; NULL: `tid` is that */
    int *said_tid;        /* where libc says that it has it; NULL: it does not */
    bool own_name;        /* the program goes by its argv[0], not by an interpreter's */
    hook *before, *after; /* what the caller of a checkpoint has to do around each fork, or NULL */
    long robust_list, robust_size;
    int pid;           /* of the one process that may checkpoint; 0: none */
    uint32_t slot;     /* ... its slot */
    int parent;        /* ... and the spawner's process, as its request told it */
    const char *place; /* the directory in which the plan has the template run, or NULL */
    const char *cwd;   /* the directory in which it did so; its forks are there already */
    void *auxv;        /* the auxiliary vector (getauxval(3)) */
} self;

/* ---- the spawner's word ---- */

static bool failed(long r) {
    return r < 0 && r > -4096;
}

static long send_message(const struct msghdr *msg) {
    long r;
    do r = raw(sendmsg, self.socket, msg, MSG_NOSIGNAL);
    while (r == -EINTR);
    return r;
}

static void leave(int status) {
    raw(exit_group, status);
}

static void tell(enum fsp_snap_kind kind, uint32_t slot, int value) {
    struct fsp_snap_reply reply = {kind, FSP_SNAP_VERSION, slot, value};
    struct iovec part = {&reply, sizeof reply};
    if (send_message(&(struct msghdr){.msg_iov = &part, .msg_iovlen = 1}) < 0)
        leave(0); /* nobody is left to serve */
}

static void greet(int value, unsigned calls) {
    struct fsp_snap_reply reply = {FSP_SNAP_HELLO, FSP_SNAP_VERSION, self.running + calls, value};
    size_t size;
    const void *inputs = inputs_all(&size);
    struct iovec parts[2] = {
        {&reply,         sizeof reply},
        {(void *)inputs, size        }
    };
    if (send_message(&(struct msghdr){.msg_iov = parts, .msg_iovlen = 2}) < 0) leave(0);
}

struct parcel {
    struct fsp_snap_request request;
    int fd[3], nfds;
};

static int take_fds(struct msghdr *msg, int fd[3]) {
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    if (c == NULL || c->cmsg_type != SCM_RIGHTS) return 0;
    size_t size = c->cmsg_len - CMSG_LEN(0);
    memcpy(fd, CMSG_DATA(c), size);
    return (int)(size / sizeof(int));
}

/* Wait for a message of at least the first part's size; -1: there is nobody any more.
 * The number of descriptors that came along, at most 3. */
static int receive(struct iovec *parts, size_t n, int fd[3]) {
    alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))];
    struct msghdr msg = {.msg_iov = parts,
                         .msg_iovlen = n,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    long r;
    do r = raw(recvmsg, self.socket, &msg, MSG_CMSG_CLOEXEC);
    while (r == -EINTR);
    if (r < (long)parts[0].iov_len) return -1;
    return take_fds(&msg, fd);
}

/* What the program has set, or may have, since it was what the plan says. */
static void keep_as_is(struct fsp_plan *plan) {
    if (plan->cwd && self.cwd && strcmp(plan->cwd, self.cwd) == 0) plan->cwd = NULL;
    plan->umask = -1;
    plan->flags &= ~FSP_FLAG_RESTORE_SIGNALS;
}

/* False: nobody wants us any more. */
static bool receive_request(struct parcel *p) {
    struct iovec parts[2] = {
        {&p->request,                    sizeof p->request                     },
        {self.plan + FSP_SNAP_PLAN_FROM, FSP_SNAP_PLAN_MAX - FSP_SNAP_PLAN_FROM}
    };
    p->nfds = receive(parts, 2, p->fd);
    if (p->nfds < 0) return false;
    if (p->request.plan_size == 0) return true;
    struct fsp_plan *plan = (struct fsp_plan *)self.plan;
    fsp_plan_relocate(plan, p->request.plan_at);
    if (self.running) keep_as_is(plan);
    return true;
}

/* ---- the fork ---- */

static void close_parcel(const struct parcel *p) {
    for (int i = 0; i < p->nfds; i++) raw(close, p->fd[i]);
}

/* The fork's three descriptors, and then no trace of how they came. */
static size_t list_moves(const struct parcel *p, struct fsp_move *moves, int *null) {
    size_t n = 0;
    for (int i = 0; i < 3; i++) {
        int from = p->request.fd[i];
        if (from == FSP_SNAP_OWN) continue;
        if (from == FSP_SNAP_NULL) {
            if (*null < 0) *null = (int)raw(openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0);
            moves[n++] = (struct fsp_move){*null, i};
        } else
            moves[n++] = (struct fsp_move){p->fd[from], i};
    }
    return n;
}

/* The socket goes, unless the fork may need it. */
static void keep_socket(const struct parcel *p) {
    if (self.pid) self.pid = 0;
    if (p->request.flags & FSP_SNAP_MAY_CHECKPOINT) {
        self.pid = (int)raw(getpid, 0);
        self.slot = p->request.slot;
        self.parent = p->request.parent;
        const struct fsp_plan *plan = (struct fsp_plan *)self.plan;
        if (plan->cwd) inputs_set_place(plan->cwd);
    } else
        raw(close, self.socket);
}

static void settle(const struct parcel *p) {
    struct fsp_move moves[3];
    struct fsp_fdop ops[FSP_FDMAP_OPS(3)];
    int null = -1;
    struct fsp_plan *plan = (struct fsp_plan *)self.plan;
    struct fsp_launch launch = {
        .plan = plan,
        .moves = moves,
        .ops = ops,
        .nmoves = list_moves(p, moves, &null),
        .error = &self.page->slot[p->request.slot].error,
        .mask = p->request.mask,
        .parent = p->request.parent,
    };
    if (!(plan->flags & (FSP_FLAG_SETSID | FSP_FLAG_SETPGROUP))) raw(setpgid, 0, p->request.group);
    if (!fsp_child_settle(&launch)) leave(127);
    close_parcel(p);
    if (null >= 0) raw(close, null);
    /* As exec would: else its own /proc/self is closed to it, with /dev/stdin and all. */
    if (fsp_plan_credentials(plan)) raw(prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
    keep_socket(p);
    if (!self.running) raw(rt_sigprocmask, SIG_SETMASK, &launch.mask, NULL, sizeof launch.mask);
}

/* As libc's fork has it; what runs around that is the caller's. */
static void prepare_fork(void) {
    if (self.before) self.before();
    atfork_prepare();
}

static void end_fork(void) {
    atfork_parent();
    if (self.after) self.after();
}

/* 0 in the fork. */
static long fork_for(const struct parcel *p) {
    unsigned long flags = CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
    if (self.libc_tid == NULL) flags |= CLONE_CHILD_SETTID;
    int *pid = &self.page->slot[p->request.slot].pid;
    long r = raw(clone, flags, 0, pid, FSP_CLONE_TID((long)self.tid, 0));
    if (r == 0 && self.libc_tid) *self.libc_tid = (int)raw(getpid, 0);
    if (r == 0 && self.robust_list) raw(set_robust_list, self.robust_list, self.robust_size);
    return r;
}

/* Returns in a fork: its slot; or -1, at the end.  Neither side writes to `self`, which would then
 * be copied. */
static int serve(void) {
    struct parcel p;
    for (;;) {
        if (!receive_request(&p)) return -1;
        prepare_fork();
        long r = fork_for(&p);
        if (r == 0) break;
        tell(FSP_SNAP_FORKED, p.request.slot, r < 0 ? (int)r : 0);
        close_parcel(&p);
        end_fork();
    }
    settle(&p);
    return (int)p.request.slot;
}

/* ---- the program ---- */

static void name_program(char *name) {
    char *slash = strrchr(name, '/');
    if (&program_invocation_name) program_invocation_name = name;
    if (&program_invocation_short_name) program_invocation_short_name = slash ? slash + 1 : name;
}

/*
 * Of a script, the kernel made "interpreter [argument] script" of the first argument: what stands
 * before the request's own arguments stays as the kernel put it.
 */
static char **arguments(char **mine, int before, char **list, char *const *asked) {
    char **at = list;
    if (before == 0)
        *at++ = *asked;
    else
        for (int i = 0; i <= before; i++) *at++ = mine[i];
    while (*++asked) *at++ = *asked;
    *at = NULL;
    return at;
}

static int enter_main(int argc, char **argv) {
    const struct fsp_plan *plan = (struct fsp_plan *)self.plan;
    int before = argc - self.argc, n = 0;
    void *room = __builtin_alloca(fresh_renew());
    __asm__ volatile("" : : "r"(room) : "memory");
    while (plan->argv[n]) n++;
    char *list[before + n + 1];
    char **end = arguments(argv, before, list, plan->argv);
    size_t nenv = 0;
    while (self.pid && plan->envp[nenv]) nenv++;
    char *given[nenv + 1]; /* libc takes variables out of the list that it has */
    memcpy(given, plan->envp, nenv * sizeof *given);
    given[nenv] = NULL;
    env_give(given);
    environ = (char **)plan->envp;
    name_program(list[0]);
    self.own_name = before == 0;
    atfork_child();
    return self.main((int)(end - list), list, environ);
}

/* ---- the way in ---- */

/*
 * glibc has the kernel keep the thread's id where it looks for it, up to 2.42.  Later ones have it
 * clear the state for pthread_join there, and tell debuggers where the id is (nptl_db: a field's
 * bits, elements and offset).  dlsym takes locks: not where the program may hold them.
 */
static void ask_for_tid(void) {
    const uint32_t *field = dlsym(RTLD_DEFAULT, "_thread_db_pthread_tid");
    if (field) self.said_tid = (int *)((char *)pthread_self() + field[2]);
}

/* musl (1.2) has the kernel clear a lock, and its own copy of the id stands near the start of
 * struct pthread. */
static int *find_tid(int pid) {
    int *field = (int *)pthread_self();
    if (self.said_tid) return *self.said_tid == pid ? self.said_tid : NULL;
    for (size_t i = 0; i < 24; i++)
        if (field[i] == pid) return &field[i];
    return NULL;
}

/* One thread once a fork is prepared, and an address for its id: else it would be no whole
 * process. */
static enum fsp_refusal refusal(void) {
    if (!atfork_knows_all()) return FSP_REFUSED_ATFORK;
    enum fsp_refusal why = tasks_refusal();
    if (why) return why;
    if (raw(prctl, PR_GET_TID_ADDRESS, &self.tid, 0, 0, 0) < 0) return FSP_REFUSED_KERNEL;
    self.libc_tid = NULL;
    int pid = (int)raw(getpid, 0);
    if (*self.tid == pid) return FSP_REFUSED_NOT;
    self.libc_tid = find_tid(pid);
    return self.libc_tid ? FSP_REFUSED_NOT : FSP_REFUSED_TID;
}

static long map_page(int fd) {
    return raw(mmap, NULL, sizeof *self.page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static long map_plan(void) {
    return raw(mmap, NULL, FSP_SNAP_PLAN_MAX, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static bool map_memory(void) {
    long page = map_page(self.page_fd);
    long plan = map_plan();
    self.page = (struct fsp_snap_page *)page;
    self.plan = (char *)plan;
    return !failed(page) && !failed(plan);
}

/* Python programs need not be asked for: checkpoint() is part of the package. */
static bool is_python(void) {
    return Py_BytesMain != NULL;
}

void preload_refuse(enum fsp_refusal why) {
    tell(FSP_SNAP_REFUSED, 0, why);
    for (;;) leave(0);
}

void preload_fail(uint32_t slot, long error, int index) {
    volatile struct fsp_error *e = &self.page->slot[slot].error;
    e->index = index;
    e->stage = FSP_STAGE_FDS;
    e->err = (int)-error;
    for (;;) leave(127);
}

uint32_t preload_serve(int value, unsigned calls) {
    prepare_fork();
    enum fsp_refusal why = refusal();
    end_fork();
    if (why) preload_refuse(why);
    raw(get_robust_list, 0, &self.robust_list, &self.robust_size);
    greet(value, calls);
    int slot = serve();
    if (slot < 0) leave(0);
    return (uint32_t)slot;
}

/* The spawner's descriptors are not the program's: out of its way, and never to a new program. */
static bool take_channel(void) {
    raw(close, self.library_fd);
    bool mapped = map_memory();
    raw(close, self.page_fd);
    long high = -EINVAL;
    for (int floor = KEPT_ABOVE; high == -EINVAL && floor > 3; floor /= 2) /* RLIMIT_NOFILE */
        high = raw(fcntl, self.socket, F_DUPFD_CLOEXEC, floor);
    if (high >= 0) {
        raw(close, self.socket);
        self.socket = (int)high;
    }
    return mapped && high >= 0;
}

/*
 * With all of its surroundings fixed the program runs on, and the process is a template later.
 * malloc takes random bytes when it is first used, which would be an effect: let it.  What
 * libraries have drawn before is the forks' no more than at main: their handlers see to it.
 */
static int run_to_effect(int argc, char **argv, char **envp) {
    self.running = true;
    void *volatile first = malloc(1);
    free(first);
    if (!fresh_hide(self.auxv)) preload_refuse(FSP_REFUSED_MEMORY);
    enum fsp_refusal why = effect_watch();
    if (why) preload_refuse(why);
    atfork_be_child();
    self.page->in_main = 1;
    return self.main(argc, argv, envp);
}

static int frozen_main(int argc, char **argv, char **envp) {
    if (!take_channel()) leave(127);
    ask_for_tid();
    inputs_set_place(self.place);
    enum fsp_refusal why = inputs_add_mapped(false);
    if (!why && !inputs_add_place()) why = FSP_REFUSED_INPUTS;
    if (why) preload_refuse(why);
    bind_all();
    env_start(envp);
    fresh_find();
    bool asked = self.effect == 1, possible = self.effect && !is_python();
    if (possible && !asked && fresh_is_seeded_by_address()) preload_refuse(FSP_REFUSED_SEED);
    if (asked || possible) return run_to_effect(argc, argv, envp);
    preload_serve(is_python(), 0);
    return enter_main(argc, argv);
}

/* ---- a checkpoint ---- */

/* Ask on the template's socket, which is given up, and go on with one of our own. */
static bool apply(enum fsp_refusal why) {
    alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    struct fsp_snap_reply reply = {FSP_SNAP_CHECKPOINT, FSP_SNAP_VERSION, self.slot, why};
    size_t size;
    const void *inputs = inputs_all(&size);
    int ends[2];
    struct iovec parts[2] = {
        {&reply,         sizeof reply},
        {(void *)inputs, size        }
    };
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 2};
    long r = raw(socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
    if (r == 0) {
        msg.msg_control = control;
        msg.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(c), &ends[1], sizeof(int));
        r = send_message(&msg);
        raw(close, ends[1]);
        raw(close, self.socket);
        self.socket = ends[0];
    }
    return r >= 0;
}

/* The spawner's answer: a page, and its stderr; or neither. */
static bool is_accepted(int *errors) {
    struct fsp_snap_reply reply;
    struct iovec part = {&reply, sizeof reply};
    int fd[3], n = receive(&part, 1, fd);
    if (n < 0 || reply.kind != FSP_SNAP_GO || !reply.value) return false;
    if (n != 2) leave(127); /* no room for them: we are a template process already */
    long page = map_page(fd[0]);
    raw(close, fd[0]);
    *errors = fd[1];
    if (failed(page)) leave(127);
    self.page = (struct fsp_snap_page *)page;
    return true;
}

/* Let go of the request: it is the fork's. */
static void drop_stdio(int errors) {
    long null = raw(openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0);
    for (int i = 0; i < 2; i++) raw(dup3, null, i, 0);
    raw(dup3, errors, 2, 0);
    raw(close, null);
    raw(close, errors);
    copies_follow();
}

/* Nor be ended with it: what its group is told is not for us. */
static void leave_group(void) {
    const struct fsp_plan *plan = (struct fsp_plan *)self.plan;
    if (!(plan->flags & (FSP_FLAG_SETSID | FSP_FLAG_SETPGROUP)) || plan->pgroup) raw(setpgid, 0, 0);
}

static void join_group(void) {
    const struct fsp_plan *plan = (struct fsp_plan *)self.plan;
    if (plan->flags & FSP_FLAG_SETSID) raw(setsid, 0);
    if (plan->flags & FSP_FLAG_SETPGROUP) raw(setpgid, 0, plan->pgroup);
}

/* A fork goes on with our own request: 0 there; its pid in us, who shall serve; or -errno, and we
 * go on with it ourselves. */
static long hand_over(int errors) {
    struct parcel own = {0};
    long r = fork_for(&own);
    if (r != 0) {
        tell(FSP_SNAP_FORKED, 0, r < 0 ? (int)r : 0);
        end_fork();
    }
    if (r > 0) {
        drop_stdio(errors);
        leave_group();
        return r;
    }
    raw(close, self.socket);
    raw(close, errors);
    if (r == 0) {
        const struct fsp_plan *plan = (struct fsp_plan *)self.plan;
        join_group();
        /* No fork has it of the one that it was forked from. */
        if (plan->death_signal && fsp_child_follow(plan->death_signal, self.parent) < 0) leave(127);
        atfork_child();
    }
    return r;
}

/* The first one's plan stays as the program has it: its arguments and its environment are there. */
static void take_new_plan(void) {
    self.cwd = ((struct fsp_plan *)self.plan)->cwd;
    long plan = map_plan();
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
    if (!why) why = refusal();
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
    prepare_fork();
    enum fsp_refusal why = refusal_here(files, (enum fsp_refusal)known);
    fflush(NULL);
    if (!apply(why) || why || !is_accepted(&errors)) {
        raw(close, self.socket);
        end_fork();
        return why ? -FSP_SNAP_WHY(why) : -EAGAIN;
    }
    long r = hand_over(errors);
    if (r <= 0) return r < 0 ? -EAGAIN : 0;
    self.running = true;
    forget_first();
    return 1;
}

/* Returns 1 in the fork of a request, 2 if its environment is not the template's, and 0 in the
 * template when nobody wants it any more. */
EXPORT int fastspawn_serve(void) {
    if (serve() < 0) return 0;
    copies_follow();
    const struct fsp_plan *plan = (struct fsp_plan *)self.plan;
    if (self.own_name) name_program(plan->argv[0]);
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
    return self.plan ? ((struct fsp_plan *)self.plan)->argv : NULL;
}

/* ---- the environment at the start ---- */

static bool read_number(const char **at, int *value) {
    const char *c = *at;
    int n = 0;
    while (*c >= '0' && *c <= '9') n = n * 10 + (*c++ - '0');
    if (c == *at) return false;
    *value = n;
    *at = *c == ',' ? c + 1 : c;
    return true;
}

static bool is_variable(const char *entry, const char *name) {
    size_t n = strlen(name);
    return strncmp(entry, name, n) == 0 && entry[n] == '=';
}

/* LD_PRELOAD as it was before our object came first on it; false: then there was none. */
static bool restore_preload(char *entry) {
    static const char ours[] = "LD_PRELOAD=/proc/self/fd/";
    const char *at = entry + sizeof ours - 1;
    int fd;
    if (strncmp(entry, ours, sizeof ours - 1) != 0) return true;
    if (!read_number(&at, &fd) || fd != self.library_fd) return true;
    if (*at != ':') return false;
    memmove(strchr(entry, '=') + 1, at + 1, strlen(at + 1) + 1);
    return true;
}

/* Take our variables out of the environment: is this a template process? */
static bool take_variables(char **envp) {
    const char *word = NULL;
    char **kept = envp;
    for (char **at = envp; *at; at++)
        if (is_variable(*at, FSP_SNAP_VARIABLE)) word = *at + sizeof FSP_SNAP_VARIABLE;
    if (word == NULL) return false;
    if (!read_number(&word, &self.socket) || !read_number(&word, &self.page_fd) ||
        !read_number(&word, &self.library_fd) || !read_number(&word, &self.argc) ||
        !read_number(&word, &self.effect))
        return false;
    if (*word) self.place = word;
    for (char **at = envp; *at; at++)
        if (!is_variable(*at, FSP_SNAP_VARIABLE) && restore_preload(*at)) *kept++ = *at;
    *kept = NULL;
    return true;
}

EXPORT int __libc_start_main(main_fn *main, int argc, char **argv, void (*init)(void),
                             void (*fini)(void), void (*rtld_fini)(void), void *stack_end) {
    start_fn *start = (start_fn *)dlsym(RTLD_NEXT, "__libc_start_main");
    self.main = main;
    char **end = argv + argc + 1;
    while (*end) end++;
    self.auxv = end + 1;
    if (take_variables(argv + argc + 1)) main = frozen_main;
    return start(main, argc, argv, init, fini, rtld_fini, stack_end);
}

#endif
