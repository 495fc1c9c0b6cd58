/*
 * zygote.h - templates and their processes: what the files that make up a life know of it.
 *
 *   template.c    the template, as an origin of children: who calls what of the files below
 *   tend.c        it needs a process here
 *   launch.c      which begins,
 *   ask.c         is asked for forks,
 *   hear.c        answers,
 *   checkpoint.c  gives its place to a fork that stands nearer to the requests,
 *   retire.c      and ends;
 *   keep.c        its forks that are no job's;
 *   request.c     over its socket,
 *   zygote.c      what all of these know of it: the process, and the jobs that it has to do with
 *   stale.c       it must not be older than the files that it came from
 *   state.c       what is told of it all
 *
 * Each names only those below it.
 */
#ifndef FSP_ZYGOTE_H
#define FSP_ZYGOTE_H

#include "engine/engine.h"
#include "snapshot.h"

#ifdef __linux__

struct msghdr;

#define FSP_ANSWER_NS  5000000000u /* a process that takes longer to fork is given up */
#define FSP_BACKOFF_NS 100000000u  /* before another try; it doubles up to 128 times */
#define FSP_MISSES     8 /* so many forks that may checkpoint and do not, and none may any more */

/* A template on one spawner; its post is due when another try may be made. */
struct fsp_place {
    struct fsp_post post;
    struct fsp_post *follower; /* is due whenever there is a process here, or no more; or NULL */
    struct fsp_zygote *zygote;
    uint64_t forked, direct; /* read by others: atomic, so that no request takes the lock */
    uint64_t forked_before, direct_before; /* the same when `useless` was last judged */
    bool useless;                          /* more were direct than forked */
    unsigned failures;
    unsigned misses;
    bool no_effect; /* it was tried, and cannot be */
};

struct fsp_template {
    struct fsp_origin origin; /* used by its processes, too */
    struct fsp_plan *plan, *start;
    char *library;
    uint64_t timeout;
    unsigned nspawners, flags;

    /* Under the engine's lock. */
    struct fsp_template_state state;
    char changed[PATH_MAX];           /* the file that did so last */
    char makers[FSP_SNAP_MAKERS_MAX]; /* of the threads for which it was refused last */

    struct fsp_place at[]; /* each its spawner's */
};

struct fsp_zygote {
    struct fsp_helper helper;
    struct fsp_template *template;
    struct fsp_child child;
    int socket;
    enum { FSP_ZYGOTE_STARTING, FSP_ZYGOTE_READY, FSP_ZYGOTE_RETIRED, FSP_ZYGOTE_DEAD } state;
    uint64_t born, due;           /* due: to be killed then; 0: not */
    struct fsp_job *asked, *last; /* in the order of the requests, and so of the answers */
    struct fsp_fork *forks;       /* asked for as well, and for no job */
    struct fsp_plan *told;        /* the plan that it has */

    bool may_checkpoint, at_checkpoint, at_effect;
    int stopped_by;
    bool unwatched;      /* the poller does not tell its end */
    struct fsp_job *own; /* whose child it was, until that has the fork */
    int64_t since;       /* by the clock of files: what it came from was read later */
    const char *suspect; /* a file that changed while it started, perhaps after it was read; or
                            since, as was seen without a request */
    uint64_t looked;
    struct fsp_snap_identity file;           /* of the program, or the script, as PATH has it */
    char *inputs;                            /* the other files that it came from: fsp_snap_input */
    size_t inputs_size, ninputs, next_input; /* the one that is to be looked at next */

    struct fsp_snap_page *page;
    struct fsp_job *of[FSP_SNAP_SLOTS];
    uint64_t records; /* of its residents, those that are taken: bits */
    unsigned jobs;    /* that have a slot, and other forks */
    unsigned fresh;   /* slots from here on were never used */
    unsigned nfree;
    uint16_t free[FSP_SNAP_SLOTS];
};

/* A fork that is no job's, in what its owner keeps of it. */
struct fsp_fork {
    struct fsp_fork *next;
    struct fsp_zygote *of;
    uint32_t slot;
    bool waits; /* for the process to answer */
    /* It has.  0: there is none.  Not the place to free it, nor to remove a helper. */
    void (*born)(struct fsp_spawner *s, struct fsp_fork *fork, pid_t pid);
};

static inline bool fsp_zygote_is_asked(const struct fsp_zygote *z) {
    return z->asked || z->forks;
}

static inline struct fsp_place *fsp_place_of(struct fsp_template *t, const struct fsp_spawner *s) {
    return &t->at[s - s->engine->spawner];
}

/* Whatever a process says: it has one of those that there are. */
static inline enum fsp_refusal fsp_zygote_refusal(int32_t said) {
    bool known = said > FSP_REFUSED_NOT && said <= FSP_REFUSED_PIDFD;
    return known ? (enum fsp_refusal)said : FSP_REFUSED_BUILD;
}

/* Something is to be done about it at this time. */
static inline void fsp_zygote_set_due(struct fsp_spawner *s, struct fsp_zygote *z, uint64_t at) {
    z->due = at;
    fsp_helpers_look_at(s, at);
}

/* ---- state.c: what its spawners say ---- */

void fsp_template_count(struct fsp_template *t, uint64_t *counter);
/* One more process serves, or (-1) one less. */
void fsp_template_set_ready(struct fsp_zygote *z, int change);
/* A request came: by exec, or not. */
void fsp_template_asked(struct fsp_template *t, struct fsp_place *place, bool forked);
/* A process was of another state of this file. */
void fsp_template_set_stale(struct fsp_template *t, const char *path);
/* A process had more threads than one, these. */
void fsp_template_set_makers(struct fsp_template *t, const void *text, size_t size);
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
/* What came along with what it says: the files that it read, in the message or in a memfd. */
struct fsp_said {
    const char *data;
    size_t size;
    int fd; /* -1: none */
};

/* -ENOMEM; -E2BIG: there are too many, or it is no such memfd; or why that cannot be read. */
int fsp_files_keep(struct fsp_zygote *z, const struct fsp_said *said);
/* One of them that changed since, or NULL.  The answer may be 0.1 s old, and 1 ms more for each. */
const char *fsp_files_changed(struct fsp_zygote *z, uint64_t now);
/* Of one that serves, without a request: when it is to be called again, UINT64_MAX: never. */
uint64_t fsp_files_idle(struct fsp_zygote *z, uint64_t now);

/* ---- zygote.c: a process, and the jobs that wait for it or run on its page ---- */

#define FSP_FROM_MAY_CHECKPOINT 1u /* in fsp_from: the fork was let, and has not yet */

/* NULL: no memory.  It has no process, page or socket yet. */
struct fsp_zygote *fsp_zygote_new(struct fsp_spawner *s, struct fsp_template *t);
/* The descriptor of its page, or -errno. */
int fsp_zygote_open_page(struct fsp_zygote *z);
/* It is the one to ask from now on. */
void fsp_zygote_take_place(struct fsp_spawner *s, struct fsp_zygote *z);
/* There is one to ask here, or no more. */
void fsp_zygote_tell_follower(struct fsp_spawner *s, const struct fsp_zygote *z);
/* Its socket, if that is open. */
void fsp_zygote_close(struct fsp_spawner *s, struct fsp_zygote *z);
/* Not while it lives, nor while a job reads its page. */
void fsp_zygote_free(struct fsp_zygote *z);
/* The job gets a slot of it, which fsp_zygote_leave ends; false: there are too many. */
bool fsp_zygote_enter(struct fsp_zygote *z, struct fsp_job *job);
/* The job needs its slot no more; unless it was reaped, nor does anyone after it. */
void fsp_zygote_leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped);
/* The job that waits is to be killed. */
void fsp_zygote_hurry(struct fsp_spawner *s, struct fsp_job *job);
/* A slot by itself: its number, or -1. */
int fsp_zygote_take_slot(struct fsp_zygote *z);
/* `reusable`: nobody writes there any more.  The process may be gone after this. */
void fsp_zygote_give_slot(struct fsp_zygote *z, uint32_t slot, bool reusable);
/* An answer is due. */
void fsp_zygote_expect(struct fsp_spawner *s, struct fsp_zygote *z);
/* The job is the last of those that wait for a fork. */
void fsp_zygote_await(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job);
/* The first of them, which waits no more; or NULL. */
struct fsp_job *fsp_zygote_next_asked(struct fsp_zygote *z);
/* Of the fork, by the page; 0: there is none. */
int fsp_zygote_pid_of(const struct fsp_zygote *z, const struct fsp_job *job);
/* The process that the page tells of, and what pidfd_open(2) said; its pid is -1 if there is none,
 * or none that is a child of ours. */
struct fsp_child fsp_zygote_child(pid_t pid, int *error);
/* The job hears whether there is one. */
void fsp_zygote_answer(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job);

/* ---- request.c ---- */

/* Let descriptors travel with a message; `control` has the room. */
void fsp_zygote_add_fds(struct msghdr *msg, char *control, const int *fd, size_t n);
/* Which of the three the fork has already, and which (their number) go along. */
int fsp_zygote_choose_fds(const struct fsp_spawner *s, const struct fsp_stdio *io, int32_t from[3],
                          int send[3]);
/* Send a request, in which slot, flags and descriptors are filled in: 0 or -errno. */
int fsp_zygote_request(struct fsp_spawner *s, struct fsp_zygote *z,
                       struct fsp_snap_request *request, struct fsp_plan *plan, const int *fd,
                       size_t nfds);

/* ---- launch.c: a process begins ---- */

/* Where there is none: one that is about to say HELLO, or a failure that is known. */
void fsp_zygote_start(struct fsp_spawner *s, struct fsp_template *t);

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

/* ---- checkpoint.c ---- */

/* The fork at the other end of `socket`, which is taken over, asks to take its template's place. */
void fsp_zygote_checkpoint(struct fsp_spawner *s, struct fsp_zygote *old,
                           const struct fsp_snap_reply *reply, const struct fsp_said *said,
                           int socket);

/* ---- hear.c ---- */

/* The poller says so of its socket, or of its process. */
void fsp_zygote_ready(struct fsp_spawner *s, struct fsp_helper *helper, bool ended);
/* Its process has ended.  False: it cannot be reaped yet. */
bool fsp_zygote_died(struct fsp_spawner *s, struct fsp_zygote *z);

/* ---- ask.c ---- */

enum fsp_birth fsp_zygote_ask(struct fsp_spawner *s, struct fsp_job *job, uint64_t now,
                              struct fsp_error *error);

/* May it be asked for a fork for this job?  One that is stale is retired. */
bool fsp_zygote_is_usable(struct fsp_spawner *s, struct fsp_zygote *z, const struct fsp_job *job,
                          uint64_t now);

/* ---- keep.c: forks that are no job's ---- */

/* A resident (resident.h), with that end of its socket.  `born` tells of it.  Its record, or
 * -errno. */
int fsp_fork_resident(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_fork *fork,
                      int socket);
struct fsp_resident_record *fsp_fork_record(const struct fsp_fork *fork, int record);
/* The one that has this slot waits no more; NULL: it is a job's. */
struct fsp_fork *fsp_fork_answered(struct fsp_zygote *z, uint32_t slot);
/* It has ended, or lives on and is not looked after (not `reaped`). */
void fsp_fork_leave(struct fsp_fork *fork, int record, bool reaped);

/* ---- tend.c: see fsp_origin_ops ---- */

void fsp_zygotes_tend(struct fsp_spawner *s, struct fsp_post *post);
void fsp_zygotes_close(struct fsp_spawner *s, struct fsp_post *post);
uint64_t fsp_zygote_look(struct fsp_spawner *s, struct fsp_helper *helper, uint64_t now);
void fsp_zygote_stop(struct fsp_spawner *s, struct fsp_helper *helper);

#endif
#endif
