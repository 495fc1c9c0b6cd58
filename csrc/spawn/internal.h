/*
 * internal.h - what the files of the core know of one another.
 */
#ifndef FSP_INTERNAL_H
#define FSP_INTERNAL_H

#include "os/sys.h" /* first: it sets the feature macros */

#include "fastspawn.h"

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

/* ---- plan.c ---- */

struct fsp_plan {
    unsigned refs; /* atomic; everything else is written once */
    size_t size;   /* of the whole allocation */
    const char *file;
    const char *search; /* NULL: `file` has a slash or needs no search */
    char *const *argv;
    char *const *envp;
    const char *cwd;
    const char *cgroup;
    const int *keep; /* ascending, without duplicates */
    size_t nkeep;
    const struct fsp_rlimit *rlimits;
    size_t nrlimits;
    const uint32_t *groups; /* meaningful with set_groups only: an empty list is a request too */
    size_t ngroups;
    uint32_t uid, gid;
    int umask;
    pid_t pgroup;
    int death_signal;
    unsigned flags;
    bool set_groups;
};

/* uid, gid, groups: libc and the kernel both make these unsafe on shared memory. */
static inline bool fsp_plan_credentials(const struct fsp_plan *plan) {
    return plan->uid != FSP_ID_NONE || plan->gid != FSP_ID_NONE || plan->set_groups;
}

/* The pointers of a plan that was copied as plain bytes from `from`: make them its own. */
void fsp_plan_relocate(struct fsp_plan *plan, uint64_t from);

/* ---- path.c ---- */

/* The length of the first executable `file` on `search`, written to buf, or -errno. */
int fsp_path_lookup(const char *search, const char *file, uint64_t max_age, char *buf, size_t size);

/* Take the next directory of a search list: joins it with file into buf.  Returns the length, 0
 * past the last one, -ENAMETOOLONG for one that does not fit.  Async-signal-safe. */
int fsp_path_next(const char **search, const char *file, char *buf, size_t size);

/* ---- fdmap.c ---- */

struct fsp_move {
    int source, target;
};

struct fsp_fdop {
    enum { FSP_FD_DUP, FSP_FD_KEEP, FSP_FD_SAVE } kind;
    int source, target; /* SAVE: source only; the copy's number is known at run time */
};

#define FSP_FD_SAVED (-2) /* as a source: the latest SAVE's copy */

/*
 * Order `n` moves with distinct targets, to be made as if all at once, into at most
 * FSP_FDMAP_OPS(n) operations.  Consumes `moves`.  Async-signal-safe.
 */
#define FSP_FDMAP_OPS(n) ((n) + (n) / 2)
size_t fsp_fdmap_order(struct fsp_move *moves, size_t n, struct fsp_fdop *ops);

/* ---- child.c, spawn.c, backend_*.c ---- */

/* What the child does about the descriptor table before it touches one of them. */
enum fsp_table {
    FSP_TABLE_COPIED,  /* it has a copy already */
    FSP_TABLE_UNSHARE, /* shared: copy up to `table_end`, drop the rest */
    FSP_TABLE_FETCH,   /* shared: drop everything, then fetch the sources from the parent */
};

/* One spawn, between parent and child.  With shared memory both read and write this very struct. */
struct fsp_launch {
    const struct fsp_plan *plan;
    const char *path; /* tried first; NULL: search */
    struct fsp_move *moves;
    struct fsp_fdop *ops; /* room for FSP_FDMAP_OPS(nmoves) */
    size_t nmoves;
    enum fsp_table table;
    unsigned table_end;
    bool avoid_fetch, avoid_unshare;
    pid_t parent;        /* for FSP_TABLE_FETCH, and for a death signal */
    bool sweep;          /* close what the child should not keep */
    bool reset_handlers; /* the backend could not ask the kernel to */
    uint32_t ignored;    /* signals: see fsp_ignore_signals */
    bool batch;          /* the parent's thread is SCHED_BATCH */
    bool terminal;       /* see FSP_SPAWN_TERMINAL */
    uint64_t mask;
    volatile struct fsp_error *error; /* zero until the child fails */
    int tell; /* 0, or a descriptor that is to close on exec and not before */

    bool detached; /* the parent goes on: the table is a copy, the pad is the child's */
    struct fsp_pad *pad;

    struct fsp_child child; /* out */
};

/* The life of a child up to exec; returns the exit status after a failure. */
int fsp_child_main(void *launch);
/* ---- settle.c: the part of it that is not about exec ---- */
bool fsp_child_settle(struct fsp_launch *l); /* false: l->error says why */
int fsp_child_failed(struct fsp_launch *l, long r, enum fsp_stage stage, int index);
/* Ask for a signal when the parent's thread ends: 0, or -errno; -ESRCH: it is not `parent` any
 * more. A fork of such a process has to ask again. */
long fsp_child_follow(int sig, pid_t parent);

struct fsp_backend {
    const char *name;
    /* Start it and wait for exec: 0 (look at launch->error), or -errno of the clone itself. */
    int (*launch)(struct fsp_launch *launch);
    bool shares_memory; /* no credentials there */
    bool shares_table;  /* offers FSP_TABLE_UNSHARE and FETCH */
    bool by_libc;       /* knows only what posix_spawn does */
    bool detaches;      /* can leave the parent running */
    bool on_trial;      /* emulators do not keep its promise: see spawn.c */
};

extern const struct fsp_backend fsp_backend_clone3, fsp_backend_clone, fsp_backend_vfork,
    fsp_backend_posix_spawn, fsp_backend_fork;

/* Can posix_spawn express this plan? */
bool fsp_posix_spawn_can(const struct fsp_plan *plan);

/* ---- pad.c ---- */

#define FSP_STACK_SIZE   (64 * 1024)
#define FSP_INLINE_MOVES 8

struct fsp_pad {
    int child; /* set while a child may use it; atomic, cleared by the kernel */
    int tell;  /* for the next spawn's launch */
    volatile struct fsp_error error;
    struct fsp_launch launch;
    struct fsp_move moves[FSP_INLINE_MOVES];
    struct fsp_fdop ops[FSP_FDMAP_OPS(FSP_INLINE_MOVES)];
    char path[PATH_MAX];
};

struct fsp_pad *fsp_pad_get(void); /* NULL: no memory */
void fsp_pad_put(struct fsp_pad *pad);
bool fsp_pad_busy(const struct fsp_pad *pad);
/* Until it is not. */
void fsp_pad_wait(const struct fsp_pad *pad);
void *fsp_pad_stack(struct fsp_pad *pad); /* the lowest address of FSP_STACK_SIZE bytes */

/* ---- spawn.c ---- */

#define FSP_SPAWN_DETACHED 0x2u /* do not wait for the exec, if that can be helped */

/*
 * fsp_spawn on a pad of the caller's.  With FSP_SPAWN_DETACHED, and where the backend can, it
 * returns as soon as the child exists: the plan and the pad must then stay until the child has
 * ended (or fsp_pad_busy says that it has left), and pad->error tells afterwards whether it ever
 * became the program.
 */
int fsp_spawn_on(struct fsp_pad *pad, const struct fsp_plan *plan, const struct fsp_stdio *io,
                 unsigned flags, const uint64_t *mask, struct fsp_child *child,
                 struct fsp_error *error);

/* Does FSP_SPAWN_DETACHED make a difference? */
bool fsp_detaches(const struct fsp_plan *plan);

/* ---- start.c ---- */

/* The highest descriptor that such a child has to do with: new ones take the lowest free numbers,
 * so it tells what a copy of the table would cost. */
int fsp_highest(const struct fsp_plan *plan, const struct fsp_stdio *io);

/* ---- wait.c ---- */

/* A call failed for good: the kernel does not have it, or a filter refuses it. */
static inline bool fsp_is_refused(int r) {
    return r < 0 && r != -EMFILE && r != -ENFILE && r != -ENOMEM && r != -ESRCH;
}

/* It has no pidfd, and not for want of room: none of ours ever will. */
bool fsp_lacks_pidfd(const struct fsp_child *child);

/* Is it a child of this process, or was it one?  Not if it is somebody else's. */
bool fsp_is_child(const struct fsp_child *child);

/* Would fsp_wait reap it now?  For children without a pidfd. */
bool fsp_has_exited(const struct fsp_child *child);

/* ---- terminal.c ---- */

/* fd[0] is ours and non-blocking, fd[1] the child's; both close-on-exec.  -errno, and both -1. */
int fsp_terminal_open(struct fsp_size size, int fd[2]);
int fsp_terminal_resize(int fd, struct fsp_size size);

/* ---- pipe.c ---- */

/* Pipes for a thread's children, opened ahead of need, each used for one child only: whoever
 * still holds the pipe of an earlier child could write into the next one's answer. */
#define FSP_PIPES_AHEAD 4

struct fsp_pipes {
    int ahead[FSP_PIPES_AHEAD][2];
    int n;
};

void fsp_pipes_fill(struct fsp_pipes *pipes); /* in idle time */
void fsp_pipes_close(struct fsp_pipes *pipes);
/* fd[0] is the parent's and non-blocking, fd[1] the child's. */
int fsp_pipe_from_child(struct fsp_pipes *pipes, int fd[2]);
/* fd[0] is the child's, fd[1] the parent's and non-blocking. */
int fsp_pipe_to_child(int fd[2]);
/* Those of 0 to 2 that are wanted (to the child, and from it twice), the others -1; or -errno, with
 * none of them open. */
int fsp_pipes_take(struct fsp_pipes *pipes, const bool want[3], int fd[3][2]);

#endif
