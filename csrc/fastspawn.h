/*
 * fastspawn.h - the whole C interface of the core.
 *
 * Steps of a process's life, each usable without the next:
 *
 *   plan     what to run, as plain data, flattened once        (fsp_plan_*)
 *   spawn    start it on the calling thread, wait, signal      (fsp_spawn, fsp_wait, fsp_kill)
 *   talk     the same with pipes: feed, collect, wait          (fsp_talk_*)
 *   engine   threads that start, feed, collect, limit and reap (fsp_engine_*, fsp_job_*)
 *
 * Conventions.  Functions return 0 or a positive result, else -errno; results go through
 * trailing out-parameters.  Nothing here aborts, prints, or reports through errno.  Times are
 * nanoseconds, sizes are bytes.  Unless a prototype says otherwise a function may be called from
 * any thread and is not async-signal-safe.
 */
#ifndef FASTSPAWN_H
#define FASTSPAWN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where a spawn failed.  FSP_STAGE_EXEC is the program itself; the rest is the way to it. */
enum fsp_stage {
    FSP_STAGE_NONE,
    FSP_STAGE_PREPARE, /* in the parent: memory, pipes, stack */
    FSP_STAGE_CLONE,   /* the clone, vfork or fork itself */
    FSP_STAGE_TABLE,   /* making the descriptor table private (never reported: retried) */
    FSP_STAGE_FDS,     /* placing descriptor number `index` */
    FSP_STAGE_CWD,
    FSP_STAGE_SIGNALS,
    FSP_STAGE_SESSION,
    FSP_STAGE_PGROUP,
    FSP_STAGE_CGROUP,
    FSP_STAGE_RLIMIT, /* rlimit number `index` of the plan */
    FSP_STAGE_GROUPS,
    FSP_STAGE_GID,
    FSP_STAGE_UID,
    FSP_STAGE_PRIVS, /* no_new_privs */
    FSP_STAGE_DEATH, /* the death signal; ESRCH: the parent has gone already */
    FSP_STAGE_EXEC,
};

struct fsp_error {
    int err; /* errno, positive; 0: none */
    enum fsp_stage stage;
    int index;
};

/* ---- plan ------------------------------------------------------------------------------ */

struct fsp_rlimit {
    int resource; /* RLIMIT_* */
    struct rlimit value;
};

#define FSP_FLAG_SETSID          0x1u  /* setsid() in the child */
#define FSP_FLAG_CLOSE_FDS       0x2u  /* only 0-2 and keep_fds survive the exec */
#define FSP_FLAG_RESTORE_SIGNALS 0x4u  /* SIGPIPE, SIGXFZ, SIGXFSZ back to default */
#define FSP_FLAG_SETPGROUP       0x8u  /* setpgid(0, pgroup) in the child */
#define FSP_FLAG_NO_NEW_PRIVS    0x10u /* no exec gives it more rights: prctl(2). Linux */

#define FSP_ID_NONE ((uint32_t)-1)

/* What to run.  Everything is borrowed for the call of fsp_plan_new only. */
struct fsp_spec {
    const char *file;        /* the program; without a slash it is looked up on `search` */
    const char *const *argv; /* NULL-terminated, at least one entry */
    const char *const *envp; /* NULL-terminated */
    const char *search;      /* directories separated by ':'; NULL: `file` is used as it is */
    const char *cwd;         /* NULL: the caller's */
    const char *cgroup;      /* the cgroup.procs of a cgroup to be moved to; NULL: none. Linux */
    const int *keep_fds;     /* descriptors >= 0 that the child keeps under their numbers */
    size_t nkeep_fds;
    const struct fsp_rlimit *rlimits;
    size_t nrlimits;
    const uint32_t *groups; /* setgroups(); NULL: unchanged */
    size_t ngroups;
    uint32_t uid, gid; /* FSP_ID_NONE: unchanged */
    int umask;         /* -1: unchanged */
    pid_t pgroup;      /* with FSP_FLAG_SETPGROUP; 0: a new group */
    int death_signal;  /* sent to it when the thread that starts it ends; 0: none. Linux */
    unsigned flags;
};

struct fsp_plan; /* immutable, reference-counted, one allocation */

/*
 * -EINVAL (no argv, no file), -ENOTSUP (something that is marked as Linux's, elsewhere), -ENOMEM.
 * The new plan has one reference, the caller's.
 *
 * The death signal is that of PR_SET_PDEATHSIG(2const).  It belongs to the *thread* that spawns:
 * the caller's on the caller's path, one that lives as long as the engine on the engine's.  It is
 * for the child alone, not for its own children, and the kernel forgets it when the child executes
 * a program with set-user-ID, set-group-ID or capabilities, or changes its identity.
 */
int fsp_plan_new(const struct fsp_spec *spec, struct fsp_plan **out);
struct fsp_plan *fsp_plan_ref(struct fsp_plan *plan);
void fsp_plan_unref(struct fsp_plan *plan); /* NULL is allowed */

/* Its environment, which ends with NULL; as long as the plan. */
char *const *fsp_plan_environment(const struct fsp_plan *plan);

/*
 * The path that a spawn of this plan would execute now, into buf: its length, or -errno as the
 * exec would give it (-ENOENT, -EACCES, ...).  `max_age` is how old (ns) a cached answer may be;
 * 0 looks at every directory's mtime again.  -ENAMETOOLONG if it does not fit.
 */
int fsp_plan_resolve(const struct fsp_plan *plan, uint64_t max_age, char *buf, size_t size);

/* ---- spawn ----------------------------------------------------------------------------- */

struct fsp_child {
    pid_t pid;
    int pidfd; /* close-on-exec; -1 where the kernel has none */
};

/* Source descriptors for the child's 0, 1, 2; -1: the caller's own. */
struct fsp_stdio {
    int fd[3];
};

#define FSP_SPAWN_PRIVATE                                                                          \
    0x1u /* the calling thread owns its table, all of it close-on-exec,                            \
            and blocks every signal: skip what that makes needless */
#define FSP_SPAWN_BATCH                                                                            \
    0x4u /* the calling thread is SCHED_BATCH (sched(7)), which the child is not to be */
#define FSP_SPAWN_TERMINAL                                                                         \
    0x8u /* descriptor 0 is a terminal of no session: the child leads a session of its own, whose  \
            controlling terminal it is, and none of the signals that a terminal sends is ignored.  \
            Linux (else -ENOTSUP) */

/*
 * Start the plan on the calling thread, which is held until the child has executed the program
 * or failed to.  On success the caller owns child->pidfd and must wait for the child.  On failure
 * nothing is left: no child, no descriptor.  `mask` is the signal mask of the child (NULL: the
 * caller's).  The calling thread's descriptors, memory and number of open files do not change
 * what a spawn costs.
 */
int fsp_spawn(const struct fsp_plan *plan, const struct fsp_stdio *io, unsigned flags,
              const uint64_t *mask, struct fsp_child *child, struct fsp_error *error);

/* A spawn on its way. */
struct fsp_start {
    struct fsp_child child;
    int fd;              /* readable once the child executes or has failed to; -1: it has */
    struct fsp_pad *pad; /* what the child uses until then, and NULL after it */
    struct fsp_plan *plan;
    pid_t owner; /* whose child it is: a fork of that process has a copy of this */
};

/*
 * fsp_spawn, not waiting for the exec.  1: one of the next two is due, once; the sources of `io`
 * may be closed at once.  0: nothing was started, and fsp_spawn is the way (the backend cannot, the
 * descriptor table is large, too many are on their way).  -errno as fsp_spawn.  No other thread
 * should fork meanwhile, or `fd` is not readable until what it forked has gone or executed.
 */
int fsp_start(struct fsp_plan *plan, const struct fsp_stdio *io, struct fsp_start *start,
              struct fsp_error *error);

/* As fsp_spawn: 0 and the caller's child, or -errno and nothing is left.  Waits if need be. */
int fsp_start_end(struct fsp_start *start, struct fsp_child *child, struct fsp_error *error);

/* Kill and reap it.  In a process forked meanwhile it is left alone. */
void fsp_start_drop(struct fsp_start *start);

/*
 * Signals (bit sig - 1; 1 to 31) that children ignore from now on, whatever this process does with
 * them: those that it was told to ignore, and has handlers for all the same.  A handler is reset in
 * a child, so that what the process inherited would go no further.  Of the whole process, as
 * dispositions are; none at the start.  Linux.
 */
void fsp_ignore_signals(uint32_t set);

/*
 * Backends: clone3, clone, vfork, posix_spawn, fork; the first one that works here is used.
 * select(name) pins one (-EINVAL: no such name; -ENOTSUP: not built for this system), NULL or ""
 * returns to choosing.  name() is the one that the next spawn tries first.
 */
int fsp_backend_select(const char *name);
const char *fsp_backend_name(void);
const char *fsp_backend_list(size_t i); /* the i-th name built in, NULL past the last */

struct fsp_status {
    int code; /* exit status, or -signal */
    int lost; /* someone else reaped the child (or SIGCHLD is ignored): code is not known */
    struct rusage usage; /* zero if someone else reaped it */
};

/*
 * Reap: 1 and *status when the child has ended, 0 when it has not (only with !block), -errno.
 * Stopped and continued children have not ended.  Closes and forgets child->pidfd on 1.
 *
 * A child that someone else reaped has ended, too.  Its code is known where there is a pidfd and
 * the kernel is Linux 6.15 or later (PIDFD_GET_INFO); else it is lost.
 */
int fsp_wait(struct fsp_child *child, int block, struct fsp_status *status);

/* The same, leaving pid and pidfd to the caller, who must not use the pid after 1. */
int fsp_reap(const struct fsp_child *child, int block, struct fsp_status *status);

/* 1 and *status if someone else reaped the child, else 0: it runs, or is there to be reaped.
 * Always 0 without a pidfd. */
int fsp_look(const struct fsp_child *child, struct fsp_status *status);

/* Send a signal to the child (or its process group).  -ESRCH once it was reaped; a recycled pid
 * is never hit, since the signal goes through the pidfd or to a child that is not reaped yet. */
int fsp_kill(const struct fsp_child *child, int group, int sig);

/*
 * Send a signal to a child that leads a session (FSP_FLAG_SETSID, FSP_SPAWN_TERMINAL), and to
 * whoever else is in that: how many those are, 0 also if the child has been reaped, or proc(5) is
 * not there.  0 as `sig` only counts.  Linux; elsewhere the group's, and 0.
 */
int fsp_kill_session(const struct fsp_child *leader, int sig);

/* ---- talk ------------------------------------------------------------------------------ */

enum fsp_io {
    FSP_IO_INHERIT,
    FSP_IO_NULL,
    FSP_IO_PIPE,
    FSP_IO_STDOUT,   /* stderr only: where stdout goes */
    FSP_IO_TERMINAL, /* stdin only, of a job: all three are a new terminal, see below */
};

/* An owned run of bytes. */
struct fsp_buf {
    char *data;
    size_t len, cap;
};

/* One child from spawn to reap on the calling thread.  By one thread at a time. */
struct fsp_talk {
    struct fsp_child child;
    struct fsp_status status; /* once fsp_talk answered 1 */
    struct fsp_buf output[2]; /* stdout, stderr: what came so far */
    int fd[3];                /* our ends of the pipes; -1: none, or at its end */
    const char *input;        /* what stdin still gets */
    size_t input_len;
    struct fsp_pad *pad; /* what the child started from, and its plan, until it has left them */
    struct fsp_plan *plan;
};

/*
 * Start the plan with pipes where `in`, `out` and `err` ask for them.  `input` is borrowed until
 * the end of the talk; stdin is closed after it (SIGPIPE is the caller's to ignore).  As fsp_spawn,
 * or -EMFILE, -ENFILE, -EINVAL (FSP_IO_STDOUT where stdout is not redirected): then nothing is
 * left, and no fsp_talk_end is due.
 *
 * It may return before the program executes: that it could not is then for fsp_talk to say.
 */
int fsp_talk_start(struct fsp_plan *plan, const enum fsp_io how[3], const void *input,
                   size_t input_len, struct fsp_talk *talk, struct fsp_error *error);

/*
 * Feed and collect until every pipe is at its end, whoever holds it, then reap.  1 when that is
 * done; 0 when `deadline` (CLOCK_MONOTONIC; UINT64_MAX: none) has passed; -EINTR when a signal
 * was handled, for which the caller may have something to do.  After 0, -EINTR or another error
 * (-ENOMEM) it can be called again.  Whatever it answers, the program has been executed by then,
 * or it is 1, the child is gone, and error->err says why it could not be.
 */
int fsp_talk(struct fsp_talk *talk, uint64_t deadline, struct fsp_error *error);

/* Close and free.  A child that was not reaped is left to the caller, with its pidfd. */
void fsp_talk_end(struct fsp_talk *talk);

/* ---- engine ---------------------------------------------------------------------------- */

struct fsp_engine;
struct fsp_job;

struct fsp_limits {
    uint64_t timeout;    /* from spawn to TERM; 0: none */
    uint64_t kill_grace; /* from TERM to KILL */
    uint64_t drain;      /* from the leader's exit to giving up on pipes that others hold */
    uint64_t max_output; /* bytes of stdout and stderr together; 0: no limit */
};

#define FSP_JOB_STREAM  0x1u /* output of a child that lives on is delivered as it comes */
#define FSP_JOB_FEED    0x2u /* stdin comes through fsp_job_write, after `input` */
#define FSP_JOB_STARTED 0x4u /* tell when it runs */
#define FSP_JOB_SPARE   0x8u /* with FEED: it runs ahead of its request, see fsp_job_adopt */

/* Of a terminal, in characters. */
struct fsp_size {
    unsigned short cols, rows;
};

/*
 * A job on a terminal (FSP_IO_TERMINAL, with FSP_JOB_FEED) is executed as FSP_SPAWN_TERMINAL says,
 * whatever `out`, `err` and the plan's group are; what it shows is stdout.  Its group is its whole
 * session.  The end of stdin (fsp_job_write_eof) hangs the terminal up, at once; so does the end of
 * the output.  It ends when all of the session have: those that outlive the leader get HUP, and
 * KILL after limits.kill_grace.  Linux.
 */
struct fsp_job_options {
    enum fsp_io in, out, err;
    struct fsp_limits limits;
    unsigned flags;
    struct fsp_size size; /* of its terminal */
    const void *input;    /* borrowed until the job has ended */
    size_t input_len;
    void *user;
    struct fsp_template *snapshot; /* fork it from there; NULL: exec */
    struct fsp_reset *reset;       /* have it done by one of these; NULL: not */
};

/* How a job ended; valid once its news say `ended`, until fsp_job_free. */
struct fsp_outcome {
    struct fsp_error error; /* err != 0: never ran, or memory ran out while collecting */
    struct fsp_status status;
    pid_t pid;                /* valid from `started` */
    uint64_t wall;            /* spawn to reap */
    struct fsp_buf output[2]; /* stdout, stderr: what was not delivered in chunks */
    unsigned timed_out : 1, truncated : 1, cancelled : 1;
    unsigned spare : 1; /* it ended as one: no adoption came in time, and stdin got nothing */
};

/* Output that came while the child lived (FSP_JOB_STREAM). */
struct fsp_chunk {
    struct fsp_chunk *next;
    int stream; /* 0: stdout, 1: stderr */
    size_t len;
    char data[];
};

/* What happened to a job since the last take; in this order. */
struct fsp_news {
    unsigned started : 1; /* FSP_JOB_STARTED was asked for, and it runs; or it was adopted */
    unsigned drained : 1; /* the stdin queue fell below its low-water mark */
    unsigned ended : 1;   /* the last news of a job */
    struct fsp_chunk *chunks;
};

/*
 * Start `spawners` threads.  They own their descriptor tables (where the kernel allows it), so
 * what the caller opens later is invisible to children and costs them nothing.  `mask` is the
 * signal mask that children get (NULL: the caller's).  -EAGAIN, -EMFILE, -ENOMEM.
 */
int fsp_engine_new(unsigned spawners, const uint64_t *mask, struct fsp_engine **out);

/* Becomes readable when jobs have news, or a template or its residents do.  Owned by the engine. */
int fsp_engine_fd(const struct fsp_engine *engine);

/* How often the latter did: another number after a take than before means that their state is to
 * be looked at. */
uint64_t fsp_engine_told(const struct fsp_engine *engine);

/* The jobs that have news, in the order in which they first had them, each with all of it: a
 * list through fsp_job_next.  One thread takes at a time. */
struct fsp_job *fsp_engine_take(struct fsp_engine *engine);
struct fsp_job *fsp_job_next(const struct fsp_job *job);

/* What the last take brought.  The chunks are the caller's (free(3) each). */
struct fsp_news *fsp_job_news(struct fsp_job *job);

/* Kill what runs, refuse what comes (-ESHUTDOWN), and let each job end. */
void fsp_engine_stop(struct fsp_engine *engine);

/* Stop, wait for the threads, free.  News not taken are dropped; the jobs remain the caller's to
 * free.  In a forked child it frees nothing and returns at once. */
void fsp_engine_free(struct fsp_engine *engine);

/* 1 in a process forked from the one that made the engine: its threads do not exist here. */
int fsp_engine_forked(const struct fsp_engine *engine);

struct fsp_engine_stats {
    uint64_t started, finished, retried; /* children spawned, jobs ended, spawns put off (EAGAIN) */
    unsigned running, pending, spawners, private_tables;
};
void fsp_engine_stats(struct fsp_engine *engine, struct fsp_engine_stats *out);

/*
 * Hand over a command: never blocks, takes its own reference to the plan.  After a
 * success it ends exactly once, whatever happens.  -ESHUTDOWN, -ECHILD (forked), -ENOMEM;
 * -EINVAL (a terminal for a job that is not fed, or not executed), -ENOTSUP (a terminal, not
 * Linux).
 */
int fsp_engine_submit(struct fsp_engine *engine, struct fsp_plan *plan,
                      const struct fsp_job_options *options, struct fsp_job **out);

void *fsp_job_user(const struct fsp_job *job);
struct fsp_outcome *fsp_job_outcome(struct fsp_job *job);

/* Queue a copy for stdin: 1 when the queue is above its high-water mark (wait for
 * `drained`), else 0.  -EPIPE after eof, -ENOMEM.  Bytes to a child that does not read
 * them are dropped when it ends. */
int fsp_job_write(struct fsp_job *job, const void *data, size_t len);
void fsp_job_write_eof(struct fsp_job *job);

/* Give back `len` delivered bytes: the engine holds at most a fixed window per stream. */
void fsp_job_consumed(struct fsp_job *job, int stream, size_t len);

/* TERM to the process group, grace, KILL.  A job not yet started never starts. */
void fsp_job_cancel(struct fsp_job *job);

/*
 * A spare (FSP_JOB_SPARE) gets its request: its time limits, and the wall time, begin now.  Until
 * then its output is held, and read only up to a bound.  What is written to it must come after
 * this.  If it ends before the adoption reaches it, its outcome says `spare`.  With `tell`, there
 * is news (`started`) when it was in time.
 */
void fsp_job_adopt(struct fsp_job *job, int tell);

/* Send one signal (to the group if `group`); nothing happens once the child has ended. */
void fsp_job_signal(struct fsp_job *job, int group, int sig);

/* Its terminal has another size (of whose change it is told: WINCH). */
void fsp_job_resize(struct fsp_job *job, struct fsp_size size);

/* After `ended` only. */
void fsp_job_free(struct fsp_job *job);

/* ---- templates ------------------------------------------------------------------------- */

/*
 * A template is a plan whose processes come by fork: each spawner keeps a process of the program,
 * stopped before its main (preload.c), and a job that names the template is a fork of it.  In
 * all else such a job is like any other.  While there is no such process (it starts, it died, the
 * program changed on disk) jobs start by exec.
 */
struct fsp_template;

enum fsp_refusal {
    FSP_REFUSED_NOT,
    FSP_REFUSED_SPAWN,   /* the process could not be started: `error` */
    FSP_REFUSED_EXIT,    /* it ended before main: `status`, as in fsp_status.code */
    FSP_REFUSED_TIME,    /* it did not reach main in time */
    FSP_REFUSED_BUILD,   /* it speaks another version of the protocol */
    FSP_REFUSED_THREADS, /* it has several threads before main */
    FSP_REFUSED_PROC,    /* it cannot look at itself: /proc is missing */
    FSP_REFUSED_KERNEL,  /* no PR_GET_TID_ADDRESS (CONFIG_CHECKPOINT_RESTORE) */
    FSP_REFUSED_EFFECT,  /* no way to watch for the first effect on this architecture */
    FSP_REFUSED_INPUTS,  /* it came from more files than can be watched for change */
    FSP_REFUSED_MEMORY,  /* it has more memory than can be searched for held locks */
    FSP_REFUSED_ATFORK,  /* it has registered more handlers of forks than can be run */
    FSP_REFUSED_TID,     /* its libc keeps the thread's id where it cannot be found */
    /* ... no way to watch: */
    FSP_REFUSED_LIBC,     /* its libc is not glibc */
    FSP_REFUSED_DISPATCH, /* no Syscall User Dispatch, or no openat2(2) */
    FSP_REFUSED_VDSO,     /* its vDSO is sealed: mseal(2) */
    FSP_REFUSED_TSC,      /* rdtsc cannot be trapped: PR_SET_TSC */
    FSP_REFUSED_LOCKS,    /* it holds more locks than can be given to a fork */
    FSP_REFUSED_UNFORKED, /* it has memory that a fork does not get: madvise(2), mlock(2) */
    FSP_REFUSED_LOOP,     /* it has an event loop at its checkpoint */
    FSP_REFUSED_SEED,     /* its random numbers would be the same in all forks */
    FSP_REFUSED_DRAWN,    /* it may draw some (RDRAND) where that cannot be seen */
    FSP_REFUSED_EARLY,    /* it ended in main, before its first effect: `status` */
    FSP_REFUSED_PIDFD,    /* no pidfd_open(2): what it forks cannot be told apart from another */
};

struct fsp_template_state {
    unsigned spawners, ready; /* processes to have, and that wait for requests */
    unsigned failures;        /* starts that failed, in a row at the worst spawner */
    enum fsp_refusal why;     /* of the latest failure */
    struct fsp_error error;
    int status;
    enum fsp_refusal no_checkpoint;     /* why a fork that asked could not become a template */
    uint64_t forked, direct, restarted; /* jobs by fork (or by one that resets), by exec;
                                           processes that died */
    uint64_t checkpoints;               /* forks that became template processes */
    unsigned at_effect;                 /* of those ready, stopped before their first effect */
    int stopped_by;   /* the system call before which; negative: none (snapshot.h) */
    uint64_t stale;   /* processes that were replaced since a file that they came from changed */
    unsigned useless; /* spawners on which more jobs start by exec than by fork, of late */
};

#define FSP_TEMPLATE_CHECKPOINT 0x1u /* forks may checkpoint; those of Python may without */
#define FSP_TEMPLATE_EFFECT                                                                        \
    0x2u /* stop just before the first effect, with argv, environment                              \
            and directory as in the plan: only jobs of that very plan                              \
            are forks */
#define FSP_TEMPLATE_FALLBACK      0x4u /* ... but before main if that cannot be */
#define FSP_TEMPLATE_NO_CHECKPOINT 0x8u /* none may checkpoint */
#define FSP_TEMPLATE_PYTHON                                                                        \
    0x10u /* with FALLBACK: a program of Python does not wait before main for its checkpoint */

/*
 * Let every spawner start its process; it executes `start` (NULL: `plan`), which names an
 * interpreter in front of `plan`'s own command where the kernel would end up elsewhere (a script
 * of env(1)); `library` is the path of the preload object, `timeout` how
 * long (ns) a process may take to main.  The engine's descriptor becomes readable when the
 * state changes.  -ENOMEM, -ESHUTDOWN, -ECHILD (forked), -ENOTSUP (not Linux).
 */
int fsp_template_new(struct fsp_engine *engine, struct fsp_plan *plan, struct fsp_plan *start,
                     const char *library, uint64_t timeout, unsigned flags,
                     struct fsp_template **out);
void fsp_template_get_state(struct fsp_template *t, struct fsp_template_state *out);
/* The file that last made a process stale, or "", with a NUL in `buf`; its length there. */
size_t fsp_template_changed(struct fsp_template *t, char *buf, size_t size);
/* Whose the threads are for which a process was refused last (FSP_REFUSED_THREADS), the same way:
 * a line for each kind, how many, their name and the end of their object's path between tabs. */
size_t fsp_template_makers(struct fsp_template *t, char *buf, size_t size);
/* End its processes, and give it back: jobs that name it still end as they would have. */
void fsp_template_free(struct fsp_template *t); /* the engine may have gone */

/* ---- residents ------------------------------------------------------------------------- */

/*
 * Residents are forks of a template that serve one job after the other: where another would exit,
 * one puts itself back to what it was when it was forked (resident.h).  A job that names them is in
 * all else like any other, but for its pid, which those before it had; what a resident cannot undo
 * makes it an ordinary child of its job, and another takes its place.  Where none is idle the job
 * is a fork of the template, and where that has none, it starts by exec.
 *
 * Not for a program that one request may take over: it could keep something for the next.
 *
 * Jobs that are told of (FSP_JOB_STARTED), spares, and plans with an identity, a cgroup, a limit of
 * CPU time or descriptors to keep are never theirs; nor are those of plans that differ from the
 * template's in more than arguments and environment.
 */
struct fsp_reset;

struct fsp_reset_state {
    uint64_t resets;     /* jobs that were done so */
    uint64_t leaves;     /* jobs in which a resident became an ordinary child */
    uint64_t retired;    /* residents that were ended: old, signalled, stale, idle */
    uint64_t made;       /* residents ever begun */
    unsigned residents;  /* there now */
    unsigned off;        /* 1: all jobs are forks, as residents left too early, `error`, the plan */
    int left_by;         /* the system call, or -signal, that the latest left at */
    int error;           /* errno of what a resident needs, and could not be had; 0: nothing */
    uint64_t calls;      /* system calls in those jobs */
    uint64_t pages;      /* that were put back, in all */
    uint64_t restore_ns; /* that this took */
};

#define FSP_CALLS 512 /* numbers of system calls (x86-64) are below this */

/* Of a template of the same engine, which this keeps.  -ENOMEM, -ESHUTDOWN, -ECHILD (forked),
 * -ENOTSUP (not Linux). */
int fsp_reset_new(struct fsp_engine *engine, struct fsp_template *t, struct fsp_reset **out);
void fsp_reset_get_state(struct fsp_reset *reset, struct fsp_reset_state *out);
/* How many of `leaves` were at this system call; FSP_CALLS: at a signal, or an unknown one. */
uint64_t fsp_reset_left_by(struct fsp_reset *reset, unsigned call);
/* As fsp_template_free. */
void fsp_reset_free(struct fsp_reset *reset);

/* ---- outlets --------------------------------------------------------------------------- */

/* Lines to a descriptor that may not take them now (a log that nobody reads), by a thread. */
struct fsp_outlet;

struct fsp_outlet_state {
    size_t queued;    /* bytes that wait, or are being written */
    uint64_t dropped; /* lines that had no room, or could not be written */
    int error;        /* errno of the latest write; 0: it went well */
};

/*
 * `fd` stays the caller's, and open until the outlet has been freed; whether it blocks does not
 * matter.  `capacity`: bytes that may wait.  -ENOMEM, -EAGAIN (no thread).  Of no use in a forked
 * child.
 */
int fsp_outlet_new(int fd, size_t capacity, struct fsp_outlet **out);

/*
 * Hand over a copy of whole lines, each with its newline; never blocks.  -EAGAIN or -ENOMEM: they
 * are dropped, all of them.  Lines of up to PIPE_BUF bytes are written whole or not at all,
 * whoever else writes to the same pipe, socket, terminal or open file.
 */
int fsp_outlet_put(struct fsp_outlet *o, const void *data, size_t len);
void fsp_outlet_get_state(struct fsp_outlet *o, struct fsp_outlet_state *out);

/* Let it write what waits, for at most `timeout` (ns), and end it.  1; 0: it was given up, with
 * what waits, and its thread ends when the write does in which it sits. */
int fsp_outlet_free(struct fsp_outlet *o, uint64_t timeout);

/* ---- tests ----------------------------------------------------------------------------- */

/*
 * The seam: every system call and allocation of the core asks this hook first, by name ("pipe2",
 * "malloc", ...).  A positive result is the errno it fails with.  NULL: off.  The hook also runs
 * in children between clone and exec, so it must be async-signal-safe.
 */
void fsp_fault_set(int (*hook)(const char *call));

#ifdef __cplusplus
}
#endif
#endif
