/*
 * tend.c - what a spawner has to do about its template processes.
 *
 * Start one where there is none (after a while if the last one failed), kill those that do not
 * answer in time, and let those go whose template was closed.  zygote.c sees to it that one from
 * files that have changed is not asked again.
 */
#include "zygote.h"

#ifdef __linux__

static void expire(struct fsp_spawner *s, struct fsp_zygote *z) {
    z->due = 0;
    if (z->state == FSP_ZYGOTE_STARTING) {
        fsp_zygote_retire(s, z);
        fsp_template_set_short(s, z, FSP_REFUSED_TIME, 0);
    } else
        fsp_zygote_retire(s, z);
    fsp_zygote_put_down(z);
}

/* Under the lock.  The last spawner to leave a closed template takes it off the list. */
static void leave(struct fsp_spawner *s, struct fsp_template *t) {
    struct fsp_template **at = &s->engine->templates;
    fsp_place_of(t, s)->left = true;
    if (++t->nleft < t->nspawners) return;
    while (*at != t) at = &(*at)->next;
    *at = t->next;
    fsp_template_unref(t);
}

/* The next template that this spawner has to do something about, with a reference; or NULL. */
static struct fsp_template *next_task(struct fsp_spawner *s, uint64_t now, bool *close) {
    struct fsp_engine *e = s->engine;
    struct fsp_template *t;
    pthread_mutex_lock(&e->lock);
    s->templates = false;
    for (t = e->templates; t; t = t->next) {
        struct fsp_place *place = fsp_place_of(t, s);
        *close = t->closed;
        if (t->closed ? !place->left : !e->stopping && !place->zygote && place->retry_at <= now)
            break;
    }
    if (t) fsp_template_ref(t);
    if (t && t->closed) leave(s, t);
    pthread_mutex_unlock(&e->lock);
    return t;
}

static uint64_t sooner(uint64_t due, uint64_t other) {
    return other && other < due ? other : due;
}

static uint64_t next_due(struct fsp_spawner *s) {
    uint64_t due = UINT64_MAX;
    for (struct fsp_zygote *z = s->zygotes; z; z = z->next)
        due = sooner(sooner(due, z->due), z->unwatched ? sys_now() + FSP_WATCH_NS : 0);
    pthread_mutex_lock(&s->engine->lock);
    for (struct fsp_template *t = s->engine->templates; t; t = t->next) {
        struct fsp_place *place = fsp_place_of(t, s);
        if (!t->closed && !s->engine->stopping && !place->zygote && place->retry_at < due)
            due = place->retry_at;
    }
    pthread_mutex_unlock(&s->engine->lock);
    return due;
}

void fsp_zygotes_tend(struct fsp_spawner *s) {
    uint64_t now = sys_now();
    struct fsp_template *t;
    bool close;
    for (struct fsp_zygote *z = s->zygotes, *next; z; z = next) {
        next = z->next;
        if (z->due && z->due <= now) expire(s, z);
        if (z->unwatched && fsp_has_exited(&z->child)) fsp_zygote_died(s, z);
    }
    while ((t = next_task(s, now, &close))) {
        struct fsp_zygote *z = fsp_place_of(t, s)->zygote;
        if (!close)
            fsp_zygote_start(s, t);
        else if (z)
            fsp_zygote_retire(s, z);
        fsp_template_unref(t);
    }
    s->tend_at = next_due(s);
}

void fsp_zygotes_stop(struct fsp_spawner *s) {
    for (struct fsp_zygote *z = s->zygotes; z; z = z->next) {
        if (z->state != FSP_ZYGOTE_RETIRED) fsp_zygote_retire(s, z);
        /* The program of one at a checkpoint has begun, and may have to end: see exits.py. */
        if (!z->at_checkpoint || z->due == 0) fsp_zygote_put_down(z);
    }
}

#else

void fsp_zygotes_tend(struct fsp_spawner *s) {
    s->tend_at = UINT64_MAX;
}

void fsp_zygotes_stop(struct fsp_spawner *s) {
    (void)s;
}

#endif
