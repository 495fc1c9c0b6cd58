/*
 * tend.c - what a spawner has to do about its template processes when the time has come.
 *
 * Start one where there is none (after a while if the last one failed), kill those that do not
 * answer in time, and let those go whose template was closed.  ask.c sees to it that one from
 * files that have changed is not asked again.
 */
#include "zygote.h"

#ifdef __linux__

void fsp_zygotes_tend(struct fsp_spawner *s, struct fsp_post *post) {
    struct fsp_template *t = (struct fsp_template *)post->origin;
    if (fsp_place_of(t, s)->zygote == NULL) fsp_zygote_start(s, t);
}

void fsp_zygotes_close(struct fsp_spawner *s, struct fsp_post *post) {
    struct fsp_zygote *z = fsp_place_of((struct fsp_template *)post->origin, s)->zygote;
    if (z) fsp_zygote_retire(s, z);
}

/* Until it has forked for the job whose process it was, it is that job's: it may be slow, and only
 * the job's own limits end it. */
static bool is_of_job(const struct fsp_zygote *z) {
    return z->own && !z->own->terminating && !fsp_zygote_pid_of(z, z->own);
}

static void expire(struct fsp_spawner *s, struct fsp_zygote *z) {
    if (is_of_job(z)) {
        fsp_zygote_retire(s, z); /* no others shall wait for it */
        fsp_zygote_set_due(s, z, sys_now() + FSP_ANSWER_NS);
        return;
    }
    z->due = 0;
    if (z->state == FSP_ZYGOTE_STARTING) {
        fsp_zygote_retire(s, z);
        fsp_template_set_short(s, z, FSP_REFUSED_TIME, 0);
    } else
        fsp_zygote_retire(s, z);
    fsp_zygote_put_down(z);
}

uint64_t fsp_zygote_look(struct fsp_spawner *s, struct fsp_helper *helper, uint64_t now) {
    struct fsp_zygote *z = (struct fsp_zygote *)helper;
    if (z->due && z->due <= now) expire(s, z);
    if (z->unwatched && fsp_has_exited(&z->child) && fsp_zygote_died(s, z)) return UINT64_MAX;
    uint64_t due = z->due ? z->due : UINT64_MAX;
    uint64_t files = z->state == FSP_ZYGOTE_READY ? fsp_files_idle(z, now) : UINT64_MAX;
    if (files < due) due = files;
    return z->unwatched && now + FSP_WATCH_NS < due ? now + FSP_WATCH_NS : due;
}

void fsp_zygote_stop(struct fsp_spawner *s, struct fsp_helper *helper) {
    struct fsp_zygote *z = (struct fsp_zygote *)helper;
    if (z->state != FSP_ZYGOTE_RETIRED) fsp_zygote_retire(s, z);
    /* The program of one at a checkpoint has begun, and may have to end: see exits.py. */
    if (!z->at_checkpoint || z->due == 0) fsp_zygote_put_down(z);
}

#endif
