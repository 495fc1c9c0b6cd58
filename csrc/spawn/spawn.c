/*
 * spawn.c - start a plan on the calling thread.
 *
 * Here a spawn is prepared (where descriptors go, which table the child has, which backend), and
 * its outcome understood.  Signals are blocked meanwhile, so that no handler of ours runs in a
 * child that shares our memory; the child lifts the mask last.
 *
 * Backends are tried in order of preference, by behaviour and not by name of the system: one
 * whose clone is refused (ENOSYS, EPERM from seccomp; EINVAL for flags it does not know, or in a
 * time namespace) is not tried again, nor is one that loses what its child reports.
 */
#include "internal.h"

static const struct fsp_backend *const backends[] = {
#ifdef __linux__
#if defined(__x86_64__) && !defined(__ILP32__) || defined(__aarch64__)
    &fsp_backend_clone3,      &fsp_backend_clone,
#endif
    &fsp_backend_vfork,
#endif
    &fsp_backend_posix_spawn,
#ifdef __linux__
    &fsp_backend_fork,
#endif
};
#define NBACKENDS (sizeof backends / sizeof *backends)

static unsigned preferred; /* index of the first backend not known to be refused */
static bool pinned;        /* by the user: no other is tried */
static uint32_t ignored;   /* signals that children ignore */

/* Learnt from the kernel, never unlearnt. */
static bool no_unshare; /* close_range(CLOSE_RANGE_UNSHARE) is refused */
static bool no_fetch;   /* pidfd_getfd on our parent is refused (yama, seccomp, not dumpable) */

#define LOAD(x)     __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define STORE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)

/* Above this a source descriptor is fetched instead of copying the whole table below it. */
#define FETCH_ABOVE 64

/* How old a remembered PATH answer may be on the engine's path (ns). */
#define PATH_MAX_AGE 100000000

int fsp_backend_select(const char *name) {
    if (name == NULL || *name == '\0') {
        STORE(pinned, false);
        STORE(preferred, 0);
        return 0;
    }
    for (unsigned i = 0; i < NBACKENDS; i++)
        if (strcmp(backends[i]->name, name) == 0) {
            STORE(preferred, i);
            STORE(pinned, true);
            return 0;
        }
    static const char *const known[] = {"clone3", "clone", "vfork", "posix_spawn", "fork"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i], name) == 0) return -ENOTSUP;
    return -EINVAL;
}

void fsp_ignore_signals(uint32_t set) {
    STORE(ignored, set);
}

const char *fsp_backend_name(void) {
    return backends[LOAD(preferred)]->name;
}

const char *fsp_backend_list(size_t i) {
    return i < NBACKENDS ? backends[i]->name : NULL;
}

/* The last one takes what the chosen one cannot do, pinned or not: never an error, never a
 * silent difference. */
static const struct fsp_backend *backend_for(const struct fsp_plan *plan, bool terminal,
                                             unsigned i) {
    const struct fsp_backend *b = backends[i];
    if (b->shares_memory && fsp_plan_credentials(plan)) b = backends[NBACKENDS - 1];
    if (b->by_libc && (LOAD(ignored) || terminal || !fsp_posix_spawn_can(plan)))
        b = backends[NBACKENDS - 1];
    return b;
}

static bool is_refusal(int r) {
    return r == -ENOSYS || r == -EPERM || r == -EINVAL;
}

/* stdio first, then the kept ones; a kept number below 3 that stdio replaces is no move. */
static void list_moves(struct fsp_launch *l, const struct fsp_plan *plan,
                       const struct fsp_stdio *io) {
    l->nmoves = 0;
    for (int i = 0; i < 3; i++)
        if (io->fd[i] >= 0) l->moves[l->nmoves++] = (struct fsp_move){io->fd[i], i};
    for (size_t i = 0; i < plan->nkeep; i++) {
        int fd = plan->keep[i];
        if (fd < 3 && io->fd[fd] >= 0) continue;
        l->moves[l->nmoves++] = (struct fsp_move){fd, fd};
    }
}

/*
 * Who pays for the descriptor table?  A plain clone copies all of it, and exec closes it again:
 * 0.1 us for each open file.  Sharing it, and letting the child keep only the part that it
 * needs, costs nothing that grows; with sources high up there is no such part, and they are
 * fetched one by one.
 */
static void choose_table(struct fsp_launch *l, const struct fsp_backend *b) {
    int top = 2;
    for (size_t i = 0; i < l->nmoves; i++)
        if (l->moves[i].source > top) top = l->moves[i].source;
    l->table = FSP_TABLE_COPIED;
    l->table_end = (unsigned)top + 1;
    if (l->detached || !b->shares_table || !(l->plan->flags & FSP_FLAG_CLOSE_FDS)) return;
    if (l->avoid_unshare || LOAD(no_unshare)) return;
    bool fetch = top >= FETCH_ABOVE && !l->avoid_fetch && !LOAD(no_fetch);
    l->table = fetch ? FSP_TABLE_FETCH : FSP_TABLE_UNSHARE;
    if (fetch) l->parent = getpid();
}

/* The child gave up before it touched a descriptor of ours: take the next slower way, and if the
 * kernel refused (and it was not a descriptor that is not open), never try this one again. */
static bool learn(struct fsp_launch *l, const struct fsp_error *e) {
    if (e->stage != FSP_STAGE_TABLE) return false;
    bool forever = is_refusal(-e->err) || e->err == EACCES;
    bool fetch = l->table == FSP_TABLE_FETCH;
    if (fetch)
        l->avoid_fetch = true;
    else
        l->avoid_unshare = true;
    if (forever) STORE(*(fetch ? &no_fetch : &no_unshare), true);
    return true;
}

/* A child that never became the program: it is leaving. */
static void bury(struct fsp_child *child) {
    struct fsp_status status;
    if (child->pid > 0) fsp_wait(child, 1, &status);
}

static int attempt(struct fsp_launch *l, const struct fsp_backend *b, const struct fsp_stdio *io,
                   struct fsp_error *error) {
    volatile struct fsp_error *told = l->error = &l->pad->error;
    for (;;) {
        list_moves(l, l->plan, io);
        choose_table(l, b);
        told->err = 0;
        l->child = (struct fsp_child){-1, -1};
        int r = b->launch(l);
        if (r < 0) {
            *error = (struct fsp_error){-r, FSP_STAGE_CLONE, -1};
            return r;
        }
        if (l->detached || told->err == 0) return 0;
        bury(&l->child);
        *error = (struct fsp_error){told->err, told->stage, told->index};
        if (!learn(l, error)) return -error->err;
    }
}

/*
 * QEMU's user mode makes a plain fork of a vfork: the child's memory is its own, and a failure
 * that it reports there would look like a program that ran.  A backend that such an emulator may
 * offer has to report one failure first: nobody can execute a directory.
 */
static bool is_trusted(struct fsp_launch *l, const struct fsp_backend *b) {
    static char *const argv[] = {"/", NULL};
    static const struct fsp_plan directory = {
        .file = "/",
        .argv = argv,
        .envp = argv + 1,
        .umask = -1,
        .uid = FSP_ID_NONE,
        .gid = FSP_ID_NONE,
    };
    static bool trusted[NBACKENDS];
    struct fsp_launch trial = {.plan = &directory, .pad = l->pad, .mask = l->mask};
    volatile struct fsp_error *told = trial.error = &l->pad->error;
    unsigned i = 0;
    if (!b->on_trial) return true;
    while (backends[i] != b) i++;
    if (LOAD(trusted[i])) return true;
    told->err = 0;
    if (b->launch(&trial) < 0) return true; /* not now, or not at all: the spawn itself will tell */
    bury(&trial.child);
    if (told->err == 0) return false;
    STORE(trusted[i], true);
    return true;
}

static int with_backends(struct fsp_launch *l, const struct fsp_stdio *io, bool detached,
                         struct fsp_error *error) {
    for (;;) {
        unsigned i = LOAD(preferred);
        const struct fsp_backend *b = backend_for(l->plan, l->terminal, i);
        l->detached = detached && b->detaches;
        int r = -ENOSYS;
        if (is_trusted(l, b))
            r = attempt(l, b, io, error);
        else
            *error = (struct fsp_error){ENOSYS, FSP_STAGE_CLONE, -1};
        bool refused = r < 0 && error->stage == FSP_STAGE_CLONE && is_refusal(r);
        if (!refused || LOAD(pinned) || i + 1 >= NBACKENDS || b != backends[i]) return r;
        /* Another thread may have moved on already. */
        __atomic_compare_exchange_n(&preferred, &i, i + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
}

/*
 * On the caller's path an answer has to be true now, and to make sure of that takes a look at every
 * directory: as long as the child's own search, during which the caller sleeps.  But posix_spawn
 * makes a process for every try.
 */
static bool spawns_to_search(void) {
    return backends[LOAD(preferred)]->by_libc;
}

bool fsp_detaches(const struct fsp_plan *plan) {
    return backend_for(plan, false, LOAD(preferred))->detaches &&
           3 + plan->nkeep <= FSP_INLINE_MOVES;
}

int fsp_spawn_on(struct fsp_pad *pad, const struct fsp_plan *plan, const struct fsp_stdio *io,
                 unsigned flags, const uint64_t *mask, struct fsp_child *child,
                 struct fsp_error *error) {
    const uint64_t all = ~(uint64_t)0;
    uint64_t before = 0;
    bool private = flags & FSP_SPAWN_PRIVATE;
    struct fsp_launch *l = &pad->launch;
    size_t most = 3 + plan->nkeep;
    void *big = NULL;

    *error = (struct fsp_error){0};
#ifndef __linux__
    if (flags & FSP_SPAWN_TERMINAL) {
        *error = (struct fsp_error){ENOTSUP, FSP_STAGE_PREPARE, -1};
        return -ENOTSUP;
    }
#endif
    *l = (struct fsp_launch){
        .plan = plan,
        .moves = pad->moves,
        .ops = pad->ops,
        .pad = pad,
        .tell = pad->tell,
        .avoid_fetch = private, /* it would fetch from the process's table, not the thread's */
        .ignored = LOAD(ignored),
        .batch = flags & FSP_SPAWN_BATCH,
        .terminal = flags & FSP_SPAWN_TERMINAL,
        .sweep = (plan->flags & FSP_FLAG_CLOSE_FDS) && !private,
    };
    if (plan->death_signal) l->parent = getpid();
    if (most > FSP_INLINE_MOVES) {
        big = sys_malloc(most * sizeof *l->moves + FSP_FDMAP_OPS(most) * sizeof *l->ops);
        if (big == NULL) {
            *error = (struct fsp_error){ENOMEM, FSP_STAGE_PREPARE, -1};
            return -ENOMEM;
        }
        l->moves = big;
        l->ops = (void *)(l->moves + most);
    }
    if (plan->search && (private || spawns_to_search()) &&
        fsp_path_lookup(plan->search, plan->file, private ? PATH_MAX_AGE : 0, pad->path,
                        sizeof pad->path) > 0)
        l->path = pad->path;

    if (!private) sys_sigmask(&all, &before);
    l->mask = mask ? *mask : before;
    int r = with_backends(l, io, (flags & FSP_SPAWN_DETACHED) && !big, error);
    if (!private) sys_sigmask(&before, NULL);

    free(big);
    if (r == 0) *child = l->child;
    return r;
}

int fsp_spawn(const struct fsp_plan *plan, const struct fsp_stdio *io, unsigned flags,
              const uint64_t *mask, struct fsp_child *child, struct fsp_error *error) {
    struct fsp_pad *pad = fsp_pad_get();
    if (pad == NULL) {
        *error = (struct fsp_error){ENOMEM, FSP_STAGE_PREPARE, -1};
        return -ENOMEM;
    }
    int r = fsp_spawn_on(pad, plan, io, flags & ~FSP_SPAWN_DETACHED, mask, child, error);
    fsp_pad_put(pad);
    return r;
}
