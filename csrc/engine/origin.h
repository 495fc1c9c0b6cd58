/*
 * origin.h - where the children of jobs come from.
 *
 * A job that names no origin is executed (exec.c); one that does gets its child there, or from the
 * origin that comes next, and is executed where there is none to be had.  An origin is a table of
 * functions that the job calls on its spawner, and has a few events to tell it what it waits for.
 * So a new source of children is a folder that includes this one, and nothing here changes.
 *
 * One that needs processes of its own, ahead of need, has two things more:
 *
 *   post     its place on one spawner, which calls it when something is due there
 *   helper   a process that it keeps on a spawner: one that forks, or that serves jobs itself
 *
 * All but `free` is called on the spawner that it concerns, without the engine's lock.
 */
#ifndef FSP_ORIGIN_H
#define FSP_ORIGIN_H

#include "spawn/internal.h"

struct fsp_spawner;
struct fsp_origin;
struct fsp_post;
struct fsp_helper;

enum fsp_birth {
    FSP_BIRTH_NONE,   /* there is no child to be had here: try the next */
    FSP_BIRTH_FAILED, /* nor anywhere: `error` says why */
    FSP_BIRTH_OWN,    /* job->child is the job's, to be watched and reaped */
    FSP_BIRTH_LENT,   /* job->child is the origin's and serves the job: it is sent signals, but its
                         end is told (fsp_job_over), unless it becomes the job's own */
    FSP_BIRTH_LATER,  /* fsp_job_has_child will tell, or fsp_job_is_lent, or fsp_job_has_none */
};

struct fsp_origin_ops {
    /* A child for this job.  Whatever stdio it opened it may leave open. */
    enum fsp_birth (*start)(struct fsp_spawner *s, struct fsp_job *job, uint64_t now,
                            struct fsp_error *error);
    /* A job whose child was to come later is to be killed; NULL: none ever comes later. */
    void (*hurry)(struct fsp_spawner *s, struct fsp_job *job);
    /* The job needs it no more: its child has ended and said all that it had to say in the
     * outcome.  Or (not `reaped`) it was given up, and lives. */
    void (*leave)(struct fsp_spawner *s, struct fsp_job *job, bool reaped);

    /* ---- NULL in one that has no posts ---- */

    struct fsp_post *(*post)(struct fsp_origin *origin, unsigned spawner);
    /* It is due.  Not once the engine stops. */
    void (*tend)(struct fsp_spawner *s, struct fsp_post *post);
    /* The origin was closed: the last that this post hears. */
    void (*close)(struct fsp_spawner *s, struct fsp_post *post);
    /* The poller has news of the helper: of its end, or of what it was watched for. */
    void (*ready)(struct fsp_spawner *s, struct fsp_helper *helper, bool ended);
    /* Is something due about the helper?  When it is next (UINT64_MAX: not). */
    uint64_t (*look)(struct fsp_spawner *s, struct fsp_helper *helper, uint64_t now);
    /* The engine stops, and waits until it has removed the helper.  Called again and again. */
    void (*stop)(struct fsp_spawner *s, struct fsp_helper *helper);
    void (*free)(struct fsp_origin *origin);
};

/* What is known of a job where its child comes from: all but `ops` is the origin's. */
struct fsp_from {
    const struct fsp_origin_ops *ops; /* NULL: no child comes */
    void *at;
    uint32_t slot, flags;
};

/* At the beginning of what a job may name (fsp_job_options). */
struct fsp_origin {
    const struct fsp_origin_ops *ops;
    struct fsp_origin *next; /* asked where this one has none, and referred to; NULL: exec is */
    unsigned refs; /* atomic: the maker, the posts, jobs, and whoever else it is told of */

    /* Under the engine's lock. */
    struct fsp_engine *engine; /* NULL: it has gone */
    bool closed;
};

struct fsp_post {
    struct fsp_post *next;
    struct fsp_origin *origin;
    uint64_t due; /* see fsp_post_set_due */
    bool closed;  /* the origin was, and this spawner knows */
};

struct fsp_helper {
    struct fsp_helper *next;
    struct fsp_origin *origin;
    uint32_t id;
};

/* ---- origin.c ---- */

void fsp_origin_ref(struct fsp_origin *origin); /* NULL is allowed, here and below */
void fsp_origin_unref(struct fsp_origin *origin);

/* The engine's spawners hear of it, and each takes a reference: `refs` is its maker's before.
 * -ESHUTDOWN. */
int fsp_origin_open(struct fsp_engine *e, struct fsp_origin *origin);
/* They hear that it is over, and the maker's reference is given back.  The engine may have gone,
 * or be that of another process. */
void fsp_origin_close(struct fsp_origin *origin);
/* Let every spawner look at the origin's helpers soon.  From any thread, without the lock. */
void fsp_origin_call(struct fsp_origin *origin);

/* The post is to be called then, or UINT64_MAX: not. */
void fsp_post_set_due(struct fsp_spawner *s, struct fsp_post *post, uint64_t at);
/* Helpers are to be looked at then, or earlier. */
void fsp_helpers_look_at(struct fsp_spawner *s, uint64_t at);

/* It has a name, and may be watched. */
void fsp_helper_init(struct fsp_spawner *s, struct fsp_helper *helper, struct fsp_origin *origin);
/* It is there, until it is removed: the engine does not end before.  Whoever keeps one keeps a
 * reference to its origin, too. */
void fsp_helper_add(struct fsp_spawner *s, struct fsp_helper *helper);
void fsp_helper_remove(struct fsp_spawner *s, struct fsp_helper *helper);

/* What the poller tells of it; no job's: its generation would be 0. */
static inline uint64_t fsp_helper_token(const struct fsp_helper *helper, bool ended) {
    return (uint64_t)helper->id << 1 | ended;
}

#define FSP_IS_HELPER(token) ((token) >> 32 == 0)
#define FSP_HELPER_LAST      (UINT32_MAX >> 1)

/* ---- events of a job ---- */

/* It has a child, and that is its own: the one that was to come, or that it was lent. */
void fsp_job_has_child(struct fsp_spawner *s, struct fsp_job *job, struct fsp_child child);
/* What was to come is the origin's, and serves it now. */
void fsp_job_is_lent(struct fsp_spawner *s, struct fsp_job *job, struct fsp_child child);
/* None will come, or what it was lent has not begun, and nothing of its request was read: the next
 * origin is asked, unless it is to end. */
void fsp_job_has_none(struct fsp_spawner *s, struct fsp_job *job);
/* Its child is no longer its own, and there will be another, or that again. */
struct fsp_child fsp_job_part(struct fsp_spawner *s, struct fsp_job *job);
/* What it was lent has done with it: this stands for an exit. */
void fsp_job_over(struct fsp_spawner *s, struct fsp_job *job, const struct fsp_status *status);

#endif
