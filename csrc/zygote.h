/*
 * zygote.h - templates and their processes: what the files that make up a life know of it.
 *
 *   template.c    the template, and what is told of it
 *   tend.c        it needs a process here
 *   launch.c      which begins,
 *   zygote.c      is asked for forks and answers,
 *   stale.c       must not be older than the files that it came from,
 *   checkpoint.c  gives its place to a fork that stands nearer to the requests,
 *   retire.c      and ends
 */
#ifndef FSP_ZYGOTE_H
#define FSP_ZYGOTE_H

#include "engine.h"
#include "snapshot.h"

#ifdef __linux__

struct msghdr;

#define FSP_ANSWER_NS  5000000000u /* a process that takes longer to fork is given up */
#define FSP_BACKOFF_NS 100000000u  /* before another try; it doubles up to 128 times */
#define FSP_MISSES     8 /* so many forks that may checkpoint and do not, and none may any more */

/* A template on one spawner. */
struct fsp_place {
    struct fsp_zygote *zygote;
    uint64_t forked, direct; /* read by others: atomic, so that no request takes the lock */
    uint64_t forked_before, direct_before; /* the same when `useless` was last judged */
    bool useless;                          /* more were direct than forked */
    uint64_t retry_at;
    unsigned failures;
    unsigned misses;
    bool no_effect; /* it was tried, and cannot be */
    bool left;      /* the template was closed, and this spawner knows */
};

struct fsp_template {
    unsigned refs; /* atomic: the maker, the engine's list, zygotes, jobs */
    struct fsp_plan *plan, *start;
    char *library;
    uint64_t timeout;
    unsigned nspawners, flags;

    /* Under the engine's lock. */
    struct fsp_engine *engine; /* NULL: it has gone */
    struct fsp_template *next;
    bool closed;
    unsigned nleft;
    struct fsp_template_state state;
    char changed[PATH_MAX]; /* the file that did so last */

    struct fsp_place at[]; /* each its spawner's */
};

struct fsp_zygote {
    struct fsp_zygote *next;
    struct fsp_template *template;
    struct fsp_child child;
    uint32_t id;
    int socket;
    enum { FSP_ZYGOTE_STARTING, FSP_ZYGOTE_READY, FSP_ZYGOTE_RETIRED, FSP_ZYGOTE_DEAD } state;
    uint64_t born, due;           /* due: to be killed then; 0: not */
    struct fsp_job *asked, *last; /* in the order of the requests, and so of the answers */
    struct fsp_plan *told;        /* the plan that it has */

    bool may_checkpoint, at_checkpoint, at_effect;
    int stopped_by;
    bool unwatched;      /* the poller does not tell its end */
    struct fsp_job *own; /* whose child it was, until that has the fork */
    int64_t since;       /* by the clock of files: what it came from was read later */
    const char *suspect; /* a file that changed while it started, perhaps after it was read */
    uint64_t looked;
    struct fsp_snap_identity file; /* of the program, or the script, as PATH has it */
    char *inputs;                  /* the other files that it came from: fsp_snap_input */
    size_t inputs_size, ninputs;

    struct fsp_snap_page *page;
    struct fsp_job *of[FSP_SNAP_SLOTS];
    unsigned jobs;  /* that have a slot */
    unsigned fresh; /* slots from here on were never used */
    unsigned nfree;
    uint16_t free[FSP_SNAP_SLOTS];
};

static inline struct fsp_place *fsp_place_of(struct fsp_template *t, const struct fsp_spawner *s) {
    return &t->at[s - s->engine->spawner];
}

/* What the poller tells of it; no job's: its generation would be 0. */
static inline uint64_t fsp_zygote_token(const struct fsp_zygote *z, bool child) {
    return (uint64_t)z->id << 1 | child;
}

/* Something is to be done about it at this time. */
static inline void fsp_zygote_set_due(struct fsp_spawner *s, struct fsp_zygote *z, uint64_t at) {
    z->due = at;
    if (at < s->tend_at) s->tend_at = at;
}

/* ---- template.c: what its state says ---- */

void fsp_template_count(struct fsp_template *t, uint64_t *counter);
/* One more process serves, or (-1) one less. */
void fsp_template_set_ready(struct fsp_zygote *z, int change);
/* A request came: by exec, or not. */
void fsp_template_asked(struct fsp_template *t, struct fsp_place *place, bool forked);
/* A process was of another state of this file. */
void fsp_template_set_stale(struct fsp_template *t, const char *path);
/* There is none, and the next try is put off. */
void fsp_template_set_failed(struct fsp_spawner *s, struct fsp_template *t, enum fsp_refusal why,
                             struct fsp_error error, int status);
/* It ran, but not to where it was to stop: next time let it stop earlier, if that will do. */
void fsp_template_set_short(struct fsp_spawner *s, struct fsp_zygote *z, enum fsp_refusal why,
                            int status);

/* ---- stale.c: the files that a process came from ---- */

/* The least time that a file which changes from now on will show. */
int64_t fsp_files_now(void);
/* So long after a change that time is a later one: a process that is started sooner would have to
 * be taken for older than the file. */
uint64_t fsp_files_tick(void);
/* The one file that the process does not know of: what the kernel was asked to execute. */
struct fsp_snap_identity fsp_files_program(const struct fsp_plan *plan);
/* What it says that it read; -ENOMEM. */
int fsp_files_keep(struct fsp_zygote *z, const char *data, size_t size);
/* One of them that changed since, or NULL.  The answer may be 0.1 s old, and older for many. */
const char *fsp_files_changed(struct fsp_zygote *z, uint64_t now);

/* ---- launch.c: a process begins ---- */

/* NULL: no memory.  It has no process, page or socket yet. */
struct fsp_zygote *fsp_zygote_new(struct fsp_spawner *s, struct fsp_template *t);
/* The descriptor of its page, or -errno. */
int fsp_zygote_open_page(struct fsp_zygote *z);
/* It is the one to ask from now on. */
void fsp_zygote_take_place(struct fsp_spawner *s, struct fsp_zygote *z);
/* Its socket, if that is open. */
void fsp_zygote_close(struct fsp_spawner *s, struct fsp_zygote *z);
/* Not while it lives, nor while a job reads its page. */
void fsp_zygote_free(struct fsp_zygote *z);
/* Where there is none: one that is about to say HELLO, or a failure that is known. */
void fsp_zygote_start(struct fsp_spawner *s, struct fsp_template *t);

/* ---- zygote.c: requests and answers ---- */

/* The job gets a slot of it, which fsp_zygote_leave ends; false: there are too many. */
bool fsp_zygote_enter(struct fsp_zygote *z, struct fsp_job *job);
/* The job is the last of those that wait for a fork. */
void fsp_zygote_await(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job);
/* The first of them, which waits no more; or NULL. */
struct fsp_job *fsp_zygote_next_asked(struct fsp_zygote *z);
/* Of the fork, by the page; 0: there is none. */
int fsp_zygote_pid_of(const struct fsp_zygote *z, const struct fsp_job *job);
/* Let descriptors travel with a message; `control` has the room. */
void fsp_zygote_add_fds(struct msghdr *msg, char *control, const int *fd, size_t n);
/* What it said: until nobody waits for it, or all.  False: it is no template process any more. */
bool fsp_zygote_hear(struct fsp_spawner *s, struct fsp_zygote *z, bool all);

/* ---- checkpoint.c ---- */

/* The fork at the other end of `socket`, which is taken over, asks to take its template's place. */
void fsp_zygote_checkpoint(struct fsp_spawner *s, struct fsp_zygote *old,
                           const struct fsp_snap_reply *reply, const char *inputs, size_t size,
                           int socket);

/* ---- retire.c: a process ends ---- */

/* It hears that nobody wants it any more; one that does not listen is killed. */
void fsp_zygote_let_go(struct fsp_spawner *s, struct fsp_zygote *z);
/* No more requests: another one takes its place, and it leaves when it has answered those it has.
 */
void fsp_zygote_retire(struct fsp_spawner *s, struct fsp_zygote *z);
void fsp_zygote_put_down(struct fsp_zygote *z);
/* It was a job's child and did not come to fork: it is that job's again, dead or alive.  Its
 * program has begun, so nothing else could take over. */
void fsp_zygote_give_back(struct fsp_spawner *s, struct fsp_zygote *z);
/* It has no process any more. */
void fsp_zygote_bury(struct fsp_spawner *s, struct fsp_zygote *z, int status);
/* The poller says that its process has ended. */
void fsp_zygote_died(struct fsp_spawner *s, struct fsp_zygote *z);

#endif
#endif
