/*
 * reset.h - residents of a template, and what the files that make up their life know of them.
 *
 *   reset.c     residents as an origin of children: who calls what of the files below
 *   tend.c      more are needed here, or fewer
 *   lend.c      one is given a job,
 *   hear.c      has done it, or leaves with it, or dies,
 *   keep.c      begins, and ends;
 *   suits.c     which jobs they can do at all
 *   state.c     what is told of it all
 *
 * Each names only those below it.
 *
 *   asked for -> READY -> idle <-> lent to a job -> retired: its socket is closed, and it ends
 *                                        \-> it leaves, or dies: the job's own child
 *
 * A resident (template/resident.h) belongs to one spawner and serves one job at a time; it is sent
 * what the job's child would be sent.  There are as many of them as there were jobs of its
 * template at once, and whoever finds none idle goes to the template, which forks.
 */
#ifndef FSP_RESET_H
#define FSP_RESET_H

#include "template/zygote.h"

#ifdef __linux__

#define FSP_RESIDENTS   32          /* of one spawner */
#define FSP_AT_ONCE     2           /* that begin at a time: the template has forks to make */
#define FSP_SERVES      10000       /* jobs of one resident */
#define FSP_SERVES_NS   60000000000 /* CPU that they use */
#define FSP_IDLE_NS     10000000000 /* after which one is not needed any more */
#define FSP_BRISK_NS    3000000 /* one was done with its job since: others wait for the next, ... */
#define FSP_PATIENCE_NS 20000000   /* but not for longer */
#define FSP_GO_NS       1000000000 /* for a retired one to end by itself */
#define FSP_EARLY       3          /* who leaves with one of its first jobs, ... */
#define FSP_EARLY_LEAVES 2         /* so many in a row: none is of use here, ... */
#define FSP_LATER_LEAVES 8         /* or so many, once one has got further */

/* On one spawner; its post is due when residents may be missing, or too many. */
struct fsp_nest {
    struct fsp_post post;
    struct fsp_resident *idle;              /* the last that served is the first to serve again */
    unsigned n, starting, busy;             /* not those that are retired */
    unsigned wanted;                        /* jobs at once, of late */
    unsigned failures;                      /* in a row */
    uint64_t not_before;                    /* another one is made after a while only */
    uint64_t number;                        /* of the latest job */
    uint64_t done_at;                       /* one was done with it */
    struct fsp_job *waiting, *waiting_last; /* wait.c */
    uint64_t resets, pages, restore_ns, calls; /* see fsp_reset_state; only this spawner adds */
};

struct fsp_reset {
    struct fsp_origin origin; /* the next one is the template's */
    struct fsp_template *template;
    unsigned nspawners;
    uint64_t brisk, patience; /* FSP_BRISK_NS, FSP_PATIENCE_NS */
    /* From here on all spawners write, and each member by itself is atomic. */
    bool off;                     /* no job is for residents any more */
    bool proven;                  /* one has got further than its first jobs */
    unsigned early;               /* that left with one of those, in a row */
    struct fsp_reset_state state; /* without what nests count */
    uint64_t left_by[FSP_CALLS + 1];
    struct fsp_nest at[]; /* each its spawner's */
};

struct fsp_resident {
    struct fsp_helper helper;
    struct fsp_reset *reset;
    struct fsp_resident *next_idle;
    struct fsp_fork fork;
    int record; /* its number; -1: it has gone */
    int socket;
    struct fsp_child child; /* pid 0: not told yet; -1: there is none */
    enum {
        FSP_RESIDENT_STARTING,
        FSP_RESIDENT_IDLE,
        FSP_RESIDENT_LENT,
        FSP_RESIDENT_OVER,   /* the job has its outcome, and not let go of it yet */
        FSP_RESIDENT_OWN,    /* it is the job's own child, and no helper any more */
        FSP_RESIDENT_RETIRED /* it is to end */
    } state;
    bool greeted;   /* READY came */
    bool unwatched; /* the poller does not tell its end */
    bool ended;     /* it is a zombie, and the job may still signal it */
    struct fsp_job *job;
    struct fsp_plan *told; /* the plan that it has */
    uint64_t number;       /* of the job */
    uint64_t due;          /* to be killed, or (idle) not needed, then; 0: not */
    unsigned served;
    uint64_t used; /* CPU, ns */
};

static inline struct fsp_nest *fsp_nest_of(struct fsp_reset *reset, const struct fsp_spawner *s) {
    return &reset->at[s - s->engine->spawner];
}

/* The process that its residents are to be forks of; NULL: there is none. */
static inline struct fsp_zygote *fsp_nest_zygote(struct fsp_reset *reset,
                                                 const struct fsp_spawner *s) {
    struct fsp_zygote *z = fsp_place_of(reset->template, s)->zygote;
    return z && z->state == FSP_ZYGOTE_READY ? z : NULL;
}

static inline struct fsp_resident_record *fsp_resident_record(const struct fsp_resident *r) {
    return fsp_fork_record(&r->fork, r->record);
}

/* What its record says: no time before 1970, nor one that does not fit. */
static inline int64_t fsp_resident_us(int64_t us) {
    const int64_t most = (int64_t)1000000 * INT32_MAX;
    return us < 0 ? 0 : us > most ? most : us;
}

/* ---- state.c ---- */

static inline void fsp_reset_count(uint64_t *counter) {
    __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

/* Others only read it, now and then. */
static inline void fsp_nest_add(uint64_t *counter, uint64_t n) {
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline bool fsp_reset_is_off(const struct fsp_reset *reset) {
    return __atomic_load_n(&reset->off, __ATOMIC_RELAXED);
}

/* A job was done by a resident, which has done `served` of them. */
void fsp_reset_done(struct fsp_spawner *s, struct fsp_reset *reset, unsigned served);
/* One left with a job, after `served` others, at a system call or (negative) a signal. */
void fsp_reset_left(struct fsp_spawner *s, struct fsp_reset *reset, unsigned served, int by);
/* There are no residents any more, on no spawner: they left, or could not be had (-errno). */
void fsp_reset_give_up(struct fsp_spawner *s, struct fsp_reset *reset, int error);

/* ---- suits.c ---- */

bool fsp_reset_suits_plan(const struct fsp_plan *plan);
/* Is this job one for a resident that was made of the template's plan? */
bool fsp_reset_suits(const struct fsp_reset *reset, const struct fsp_job *job);

/* ---- wait.c ---- */

/* Is it worth while to wait for one that is busy? */
bool fsp_reset_is_brisk(struct fsp_spawner *s, struct fsp_reset *reset, uint64_t now);
/* The job waits for one. */
void fsp_reset_await(struct fsp_spawner *s, struct fsp_reset *reset, struct fsp_job *job);
/* See to those that wait when there is something to do about them, though nobody is done. */
void fsp_reset_tend_again(struct fsp_spawner *s, struct fsp_reset *reset);
/* The one that has waited for longest waits no more; NULL: none does. */
struct fsp_job *fsp_nest_next_waiting(struct fsp_nest *nest);
/* All that wait are forked. */
void fsp_nest_turn_away(struct fsp_spawner *s, struct fsp_nest *nest);

/* ---- keep.c ---- */

/* One could not begin: the next try is put off. */
void fsp_nest_failed(struct fsp_nest *nest);
/* One more begins: 0 or -errno. */
int fsp_resident_make(struct fsp_spawner *s, struct fsp_reset *reset, struct fsp_zygote *z);
/* It is to end.  Not while it has a job. */
void fsp_resident_retire(struct fsp_spawner *s, struct fsp_resident *r);
/* It may serve. */
void fsp_resident_rest(struct fsp_spawner *s, struct fsp_resident *r);
/* May it serve once more? */
bool fsp_resident_is_fit(struct fsp_spawner *s, const struct fsp_resident *r);
/* It says nothing more. */
void fsp_resident_close(struct fsp_spawner *s, struct fsp_resident *r);
/* It is no helper any more, but somebody's child. */
void fsp_resident_let_go(struct fsp_spawner *s, struct fsp_resident *r);
/* `reaped`: nobody writes to its record any more. */
void fsp_resident_free(struct fsp_resident *r, bool reaped);
/* It has ended, and no job is at it: false if it cannot be reaped yet. */
bool fsp_resident_bury(struct fsp_spawner *s, struct fsp_resident *r);

/* ---- hear.c ---- */

void fsp_resident_ready(struct fsp_spawner *s, struct fsp_helper *helper, bool ended);

/* ---- lend.c ---- */

/* The one that served last, if it may serve again, or NULL. */
struct fsp_resident *fsp_nest_next_idle(struct fsp_spawner *s, struct fsp_nest *nest);
/* One that is idle has the job, and is its child.  False: none could be given it. */
bool fsp_resident_take(struct fsp_spawner *s, struct fsp_reset *reset, struct fsp_job *job,
                       uint64_t now);

enum fsp_birth fsp_resident_lend(struct fsp_spawner *s, struct fsp_job *job, uint64_t now,
                                 struct fsp_error *error);
void fsp_resident_leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped);

/* ---- tend.c: see fsp_origin_ops ---- */

/* Then, or before. */
static inline void fsp_nest_tend_by(struct fsp_spawner *s, struct fsp_nest *nest, uint64_t at) {
    if (at < nest->post.due) fsp_post_set_due(s, &nest->post, at);
}

void fsp_nest_tend(struct fsp_spawner *s, struct fsp_post *post);
void fsp_nest_close(struct fsp_spawner *s, struct fsp_post *post);
uint64_t fsp_resident_look(struct fsp_spawner *s, struct fsp_helper *helper, uint64_t now);
void fsp_resident_stop(struct fsp_spawner *s, struct fsp_helper *helper);

#endif
#endif
