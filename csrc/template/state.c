/*
 * state.c - what is told of a template: its spawners say how it goes, and its maker asks.
 */
#include "zygote.h"

#ifdef __linux__
#include <stdio.h>

/* ---- the caller's side ---- */

#define LOAD(counter) __atomic_load_n(&(counter), __ATOMIC_RELAXED)
#define ENOUGH        16 /* requests to judge by */

/* It may have recovered since it was judged. */
static bool is_useless(const struct fsp_place *p) {
    uint64_t forked = LOAD(p->forked) - LOAD(p->forked_before);
    uint64_t direct = LOAD(p->direct) - LOAD(p->direct_before);
    return LOAD(p->useless) && (forked < ENOUGH || forked < direct);
}

/* With a NUL; without what there is no room for. */
static size_t copy_out(struct fsp_template *t, const char *text, char *buf, size_t size) {
    struct fsp_engine *e = t->origin.engine;
    if (e) pthread_mutex_lock(&e->lock);
    size_t n = strlen(text);
    if (n >= size) n = size - 1;
    memcpy(buf, text, n);
    buf[n] = '\0';
    if (e) pthread_mutex_unlock(&e->lock);
    return n;
}

size_t fsp_template_changed(struct fsp_template *t, char *buf, size_t size) {
    return copy_out(t, t->changed, buf, size);
}

size_t fsp_template_makers(struct fsp_template *t, char *buf, size_t size) {
    return copy_out(t, t->makers, buf, size);
}

void fsp_template_get_state(struct fsp_template *t, struct fsp_template_state *out) {
    struct fsp_engine *e = t->origin.engine;
    if (e) pthread_mutex_lock(&e->lock);
    *out = t->state;
    if (e) pthread_mutex_unlock(&e->lock);
    for (unsigned i = 0; i < t->nspawners; i++) {
        out->useless += is_useless(&t->at[i]);
        out->forked += __atomic_load_n(&t->at[i].forked, __ATOMIC_RELAXED);
        out->direct += __atomic_load_n(&t->at[i].direct, __ATOMIC_RELAXED);
    }
}

/* ---- what its spawners say ---- */

void fsp_template_count(struct fsp_template *t, uint64_t *counter) {
    pthread_mutex_lock(&t->origin.engine->lock);
    ++*counter;
    pthread_mutex_unlock(&t->origin.engine->lock);
}

/* Judged where a request costs an exec anyhow. */
static void judge(struct fsp_template *t, struct fsp_place *p) {
    uint64_t forked = p->forked - p->forked_before, direct = p->direct - p->direct_before;
    if (direct < ENOUGH) return;
    bool useless = direct > forked, news = useless != p->useless;
    __atomic_store_n(&p->forked_before, p->forked, __ATOMIC_RELAXED);
    __atomic_store_n(&p->direct_before, p->direct, __ATOMIC_RELAXED);
    __atomic_store_n(&p->useless, useless, __ATOMIC_RELAXED);
    if (news) fsp_engine_tell(t->origin.engine);
}

void fsp_template_asked(struct fsp_template *t, struct fsp_place *place, bool forked) {
    __atomic_add_fetch(forked ? &place->forked : &place->direct, 1, __ATOMIC_RELAXED);
    if (!forked) judge(t, place);
}

void fsp_template_set_stale(struct fsp_template *t, const char *path) {
    pthread_mutex_lock(&t->origin.engine->lock);
    t->state.stale++;
    snprintf(t->changed, sizeof t->changed, "%s", path);
    pthread_mutex_unlock(&t->origin.engine->lock);
}

void fsp_template_set_makers(struct fsp_template *t, const void *text, size_t size) {
    if (size >= sizeof t->makers) size = sizeof t->makers - 1;
    pthread_mutex_lock(&t->origin.engine->lock);
    memcpy(t->makers, text, size);
    t->makers[size] = '\0';
    pthread_mutex_unlock(&t->origin.engine->lock);
}

void fsp_template_set_ready(struct fsp_zygote *z, int change) {
    struct fsp_template *t = z->template;
    pthread_mutex_lock(&t->origin.engine->lock);
    t->state.ready += (unsigned)change;
    if (z->at_effect) t->state.at_effect += (unsigned)change;
    if (change > 0) t->state.stopped_by = z->stopped_by;
    if (change > 0) t->state.failures = 0;
    pthread_mutex_unlock(&t->origin.engine->lock);
    fsp_engine_tell(t->origin.engine);
}

void fsp_template_set_failed(struct fsp_spawner *s, struct fsp_template *t, enum fsp_refusal why,
                             struct fsp_error error, int status) {
    struct fsp_place *place = fsp_place_of(t, s);
    unsigned doublings = place->failures < 7 ? place->failures : 7;
    place->failures++;
    fsp_post_set_due(s, &place->post, sys_now() + ((uint64_t)FSP_BACKOFF_NS << doublings));
    pthread_mutex_lock(&t->origin.engine->lock);
    t->state.why = why;
    t->state.error = error;
    t->state.status = status;
    if (place->failures > t->state.failures) t->state.failures = place->failures;
    pthread_mutex_unlock(&t->origin.engine->lock);
    fsp_engine_tell(t->origin.engine);
}

void fsp_template_set_short(struct fsp_spawner *s, struct fsp_zygote *z, enum fsp_refusal why,
                            int status) {
    struct fsp_template *t = z->template;
    if (!z->at_effect || !(t->flags & FSP_TEMPLATE_FALLBACK)) {
        fsp_template_set_failed(s, t, why, (struct fsp_error){0}, status);
        return;
    }
    fsp_place_of(t, s)->no_effect = true;
    pthread_mutex_lock(&t->origin.engine->lock);
    t->state.why = why;
    t->state.status = status;
    pthread_mutex_unlock(&t->origin.engine->lock);
}

#else

void fsp_template_get_state(struct fsp_template *t, struct fsp_template_state *out) {
    (void)t;
    *out = (struct fsp_template_state){0};
}

size_t fsp_template_changed(struct fsp_template *t, char *buf, size_t size) {
    (void)t, (void)size;
    *buf = '\0';
    return 0;
}

size_t fsp_template_makers(struct fsp_template *t, char *buf, size_t size) {
    (void)t, (void)size;
    *buf = '\0';
    return 0;
}

#endif
