/*
 * tend.c - more residents are needed on a spawner, or fewer; and who waits for one.
 */
#include "reset.h"

#ifdef __linux__

/* ---- who waits ---- */

/* False: they are all busy. */
static bool serve(struct fsp_spawner *s, struct fsp_reset *reset, uint64_t now) {
    struct fsp_nest *nest = fsp_nest_of(reset, s);
    struct fsp_job *job = nest->waiting;
    if (fsp_nest_next_idle(s, nest) == NULL) return false;
    fsp_nest_next_waiting(nest);
    if (!job->terminating && fsp_resident_take(s, reset, job, now))
        fsp_job_is_lent(s, job, job->child);
    else
        fsp_job_has_none(s, job);
    return true;
}

static bool has_waited(struct fsp_spawner *s, struct fsp_reset *reset, const struct fsp_job *job,
                       uint64_t now) {
    return job->terminating || !fsp_reset_is_brisk(s, reset, now) ||
           now - job->started_at >= reset->patience;
}

static void serve_waiting(struct fsp_spawner *s, struct fsp_reset *reset) {
    struct fsp_nest *nest = fsp_nest_of(reset, s);
    if (nest->waiting == NULL) return;
    uint64_t now = sys_now();
    while (nest->waiting && serve(s, reset, now)) continue;
    while (nest->waiting && has_waited(s, reset, nest->waiting, now))
        fsp_job_has_none(s, fsp_nest_next_waiting(nest));
    if (nest->waiting) fsp_reset_tend_again(s, reset);
}

/* ---- the nest ---- */

/* A program that may still come to its checkpoint has its residents there. */
static bool is_settled(struct fsp_spawner *s, struct fsp_reset *reset, const struct fsp_zygote *z) {
    return !z->may_checkpoint || fsp_place_of(reset->template, s)->misses >= FSP_MISSES;
}

static void fill(struct fsp_spawner *s, struct fsp_reset *reset, struct fsp_nest *nest) {
    struct fsp_zygote *z = fsp_nest_zygote(reset, s);
    if (nest->failures > FSP_MISSES) fsp_reset_give_up(s, reset, -ECHILD);
    if (z == NULL || fsp_reset_is_off(reset) || !is_settled(s, reset, z)) return;
    while (nest->n < nest->wanted && nest->starting < FSP_AT_ONCE) {
        if (nest->failures && sys_now() < nest->not_before) {
            fsp_nest_tend_by(s, nest, nest->not_before);
            return;
        }
        if (fsp_resident_make(s, reset, z) < 0) fsp_nest_failed(nest);
    }
}

/* Those that are idle and of another process than is asked now, or of none. */
static void retire_unfit(struct fsp_spawner *s, struct fsp_nest *nest) {
    for (struct fsp_resident *r = nest->idle, *next; r; r = next) {
        next = r->next_idle;
        if (!fsp_resident_is_fit(s, r)) fsp_resident_retire(s, r);
    }
}

void fsp_nest_tend(struct fsp_spawner *s, struct fsp_post *post) {
    struct fsp_reset *reset = (struct fsp_reset *)post->origin;
    struct fsp_nest *nest = fsp_nest_of(reset, s);
    fsp_place_of(reset->template, s)->follower = post;
    retire_unfit(s, nest);
    serve_waiting(s, reset);
    fill(s, reset, nest);
}

void fsp_nest_close(struct fsp_spawner *s, struct fsp_post *post) {
    struct fsp_reset *reset = (struct fsp_reset *)post->origin;
    fsp_place_of(reset->template, s)->follower = NULL;
    retire_unfit(s, fsp_nest_of(reset, s));
    fsp_nest_turn_away(s, fsp_nest_of(reset, s));
}

/* ---- each of them ---- */

static void expire(struct fsp_spawner *s, struct fsp_resident *r) {
    struct fsp_nest *nest = fsp_nest_of(r->reset, s);
    r->due = 0;
    if (r->state == FSP_RESIDENT_IDLE) {
        if (nest->n <= 1) return; /* the next job would only have to wait for one */
        nest->wanted = nest->n - 1;
        fsp_resident_retire(s, r);
        return;
    }
    if (r->state == FSP_RESIDENT_STARTING) fsp_nest_failed(nest);
    if (r->child.pid > 0) fsp_kill(&r->child, 0, SIGKILL);
    fsp_resident_retire(s, r);
}

/* Nobody needs what is left of it. */
static bool has_gone(const struct fsp_resident *r) {
    return !r->job && (r->ended || r->child.pid < 0 || (r->unwatched && fsp_has_exited(&r->child)));
}

uint64_t fsp_resident_look(struct fsp_spawner *s, struct fsp_helper *helper, uint64_t now) {
    struct fsp_resident *r = (struct fsp_resident *)helper;
    if (has_gone(r) && fsp_resident_bury(s, r)) return UINT64_MAX;
    if (r->state == FSP_RESIDENT_IDLE && fsp_reset_is_off(r->reset)) fsp_resident_retire(s, r);
    if (r->due && r->due <= now) expire(s, r);
    uint64_t due = r->due ? r->due : UINT64_MAX;
    return r->unwatched && now + FSP_WATCH_NS < due ? now + FSP_WATCH_NS : due;
}

/* One that serves ends with its job. */
void fsp_resident_stop(struct fsp_spawner *s, struct fsp_helper *helper) {
    struct fsp_resident *r = (struct fsp_resident *)helper;
    fsp_nest_turn_away(s, fsp_nest_of(r->reset, s));
    if (r->job || (r->state == FSP_RESIDENT_RETIRED && r->due == 0)) return;
    fsp_resident_retire(s, r);
    if (r->child.pid > 0) fsp_kill(&r->child, 0, SIGKILL);
    if (r->child.pid) r->due = 0;
}

#endif
