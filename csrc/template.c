/*
 * template.c - a template, of which each spawner has a process of its own.
 *
 * What its maker sees of it, and what its spawners say of their processes.  It lives as long as
 * somebody may ask for it: its maker, the engine's list, its processes, the jobs.  Nothing is
 * started here: the spawners are called, and tend.c is where they look.
 */
#include "zygote.h"

#ifdef __linux__
#include <stdio.h>

void fsp_template_ref(struct fsp_template *t) {
    if (t) __atomic_add_fetch(&t->refs, 1, __ATOMIC_RELAXED);
}

void fsp_template_unref(struct fsp_template *t) {
    if (t == NULL || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    fsp_plan_unref(t->plan);
    fsp_plan_unref(t->start);
    free(t->library);
    free(t);
}

/* ---- the caller's side ---- */

/* Under the lock. */
static void call_spawners(struct fsp_engine *e) {
    for (unsigned i = 0; i < e->nstarted; i++) {
        e->spawner[i].templates = true;
        e->spawner[i].sleeping = false;
        fsp_waker_set(&e->spawner[i].waker);
    }
}

int fsp_template_new(struct fsp_engine *e, struct fsp_plan *plan, struct fsp_plan *start,
                     const char *library, uint64_t timeout, unsigned flags,
                     struct fsp_template **out) {
    if (fsp_engine_forked(e)) return -ECHILD;
    struct fsp_template *t = sys_calloc(1, sizeof *t + e->nspawners * sizeof *t->at);
    if (t == NULL) return -ENOMEM;
    *t = (struct fsp_template){
        .refs = 2, .engine = e, .timeout = timeout, .flags = flags, .nspawners = e->nspawners};
    t->state.spawners = e->nspawners;
    t->plan = fsp_plan_ref(plan);
    t->start = fsp_plan_ref(start ? start : plan);
    t->library = sys_malloc(strlen(library) + 1);
    if (t->library == NULL) {
        t->refs = 1;
        fsp_template_unref(t);
        return -ENOMEM;
    }
    strcpy(t->library, library);
    for (unsigned i = 0; i < t->nspawners; i++) t->at[i].retry_at = sys_now() + fsp_files_tick();
    pthread_mutex_lock(&e->lock);
    bool stopping = e->stopping;
    if (!stopping) {
        t->next = e->templates;
        e->templates = t;
        call_spawners(e);
    }
    pthread_mutex_unlock(&e->lock);
    if (stopping) {
        t->refs = 1;
        fsp_template_unref(t);
        return -ESHUTDOWN;
    }
    *out = t;
    return 0;
}

#define LOAD(counter) __atomic_load_n(&(counter), __ATOMIC_RELAXED)
#define ENOUGH        16 /* requests to judge by */

/* It may have recovered since it was judged. */
static bool is_useless(const struct fsp_place *p) {
    uint64_t forked = LOAD(p->forked) - LOAD(p->forked_before);
    uint64_t direct = LOAD(p->direct) - LOAD(p->direct_before);
    return LOAD(p->useless) && (forked < ENOUGH || forked < direct);
}

size_t fsp_template_changed(struct fsp_template *t, char *buf, size_t size) {
    struct fsp_engine *e = t->engine;
    if (e) pthread_mutex_lock(&e->lock);
    size_t n = strlen(t->changed);
    if (n >= size) n = size - 1;
    memcpy(buf, t->changed, n);
    buf[n] = '\0';
    if (e) pthread_mutex_unlock(&e->lock);
    return n;
}

void fsp_template_get_state(struct fsp_template *t, struct fsp_template_state *out) {
    struct fsp_engine *e = t->engine;
    if (e) pthread_mutex_lock(&e->lock);
    *out = t->state;
    if (e) pthread_mutex_unlock(&e->lock);
    for (unsigned i = 0; i < t->nspawners; i++) {
        out->useless += is_useless(&t->at[i]);
        out->forked += __atomic_load_n(&t->at[i].forked, __ATOMIC_RELAXED);
        out->direct += __atomic_load_n(&t->at[i].direct, __ATOMIC_RELAXED);
    }
}

void fsp_template_free(struct fsp_template *t) {
    struct fsp_engine *e = t->engine;
    if (e && !fsp_engine_forked(e)) {
        pthread_mutex_lock(&e->lock);
        t->closed = true;
        call_spawners(e);
        pthread_mutex_unlock(&e->lock);
    }
    fsp_template_unref(t);
}

/* The threads have ended. */
void fsp_templates_orphan(struct fsp_engine *e) {
    while (e->templates) {
        struct fsp_template *t = e->templates;
        e->templates = t->next;
        t->engine = NULL;
        fsp_template_unref(t);
    }
}

/* ---- what the state says ---- */

void fsp_template_count(struct fsp_template *t, uint64_t *counter) {
    pthread_mutex_lock(&t->engine->lock);
    ++*counter;
    pthread_mutex_unlock(&t->engine->lock);
}

/* Judged where a request costs an exec anyhow. */
static void judge(struct fsp_template *t, struct fsp_place *p) {
    uint64_t forked = p->forked - p->forked_before, direct = p->direct - p->direct_before;
    if (direct < ENOUGH) return;
    bool useless = direct > forked, news = useless != p->useless;
    __atomic_store_n(&p->forked_before, p->forked, __ATOMIC_RELAXED);
    __atomic_store_n(&p->direct_before, p->direct, __ATOMIC_RELAXED);
    __atomic_store_n(&p->useless, useless, __ATOMIC_RELAXED);
    if (news) fsp_waker_set(&t->engine->waker);
}

void fsp_template_asked(struct fsp_template *t, struct fsp_place *place, bool forked) {
    __atomic_add_fetch(forked ? &place->forked : &place->direct, 1, __ATOMIC_RELAXED);
    if (!forked) judge(t, place);
}

void fsp_template_set_stale(struct fsp_template *t, const char *path) {
    pthread_mutex_lock(&t->engine->lock);
    t->state.stale++;
    snprintf(t->changed, sizeof t->changed, "%s", path);
    pthread_mutex_unlock(&t->engine->lock);
}

void fsp_template_set_ready(struct fsp_zygote *z, int change) {
    struct fsp_template *t = z->template;
    pthread_mutex_lock(&t->engine->lock);
    t->state.ready += (unsigned)change;
    if (z->at_effect) t->state.at_effect += (unsigned)change;
    if (change > 0) t->state.stopped_by = z->stopped_by;
    if (change > 0) t->state.failures = 0;
    pthread_mutex_unlock(&t->engine->lock);
    fsp_waker_set(&t->engine->waker);
}

void fsp_template_set_failed(struct fsp_spawner *s, struct fsp_template *t, enum fsp_refusal why,
                             struct fsp_error error, int status) {
    struct fsp_place *place = fsp_place_of(t, s);
    unsigned doublings = place->failures < 7 ? place->failures : 7;
    place->failures++;
    place->retry_at = sys_now() + ((uint64_t)FSP_BACKOFF_NS << doublings);
    pthread_mutex_lock(&t->engine->lock);
    t->state.why = why;
    t->state.error = error;
    t->state.status = status;
    if (place->failures > t->state.failures) t->state.failures = place->failures;
    pthread_mutex_unlock(&t->engine->lock);
    fsp_waker_set(&t->engine->waker);
}

void fsp_template_set_short(struct fsp_spawner *s, struct fsp_zygote *z, enum fsp_refusal why,
                            int status) {
    struct fsp_template *t = z->template;
    if (!z->at_effect || !(t->flags & FSP_TEMPLATE_FALLBACK)) {
        fsp_template_set_failed(s, t, why, (struct fsp_error){0}, status);
        return;
    }
    fsp_place_of(t, s)->no_effect = true;
    pthread_mutex_lock(&t->engine->lock);
    t->state.why = why;
    t->state.status = status;
    pthread_mutex_unlock(&t->engine->lock);
}

#else

int fsp_template_new(struct fsp_engine *e, struct fsp_plan *plan, struct fsp_plan *start,
                     const char *library, uint64_t timeout, unsigned flags,
                     struct fsp_template **out) {
    (void)e, (void)plan, (void)start, (void)library, (void)timeout, (void)flags, (void)out;
    return -ENOTSUP;
}

void fsp_template_get_state(struct fsp_template *t, struct fsp_template_state *out) {
    (void)t;
    *out = (struct fsp_template_state){0};
}

size_t fsp_template_changed(struct fsp_template *t, char *buf, size_t size) {
    (void)t, (void)size;
    *buf = '\0';
    return 0;
}

void fsp_template_free(struct fsp_template *t) {
    (void)t;
}

void fsp_template_ref(struct fsp_template *t) {
    (void)t;
}

void fsp_template_unref(struct fsp_template *t) {
    (void)t;
}

void fsp_templates_orphan(struct fsp_engine *e) {
    (void)e;
}

#endif
