/*
 * origin.c - what the engine does about origins whatever they are: who may still use one, the
 * posts on each spawner, and the helpers that its poller watches.
 */
#include "engine.h"

void fsp_origin_ref(struct fsp_origin *origin) {
    if (origin) __atomic_add_fetch(&origin->refs, 1, __ATOMIC_RELAXED);
}

void fsp_origin_unref(struct fsp_origin *origin) {
    if (origin == NULL || __atomic_sub_fetch(&origin->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    origin->ops->free(origin);
}

/* ---- the maker's side ---- */

/* Under the lock. */
static void call(struct fsp_spawner *s) {
    s->called = true;
    s->sleeping = false;
    fsp_waker_set(&s->waker);
}

int fsp_origin_open(struct fsp_engine *e, struct fsp_origin *origin) {
    pthread_mutex_lock(&e->lock);
    bool stopping = e->stopping;
    if (!stopping) origin->engine = e;
    for (unsigned i = 0; i < e->nspawners && !stopping; i++) {
        struct fsp_spawner *s = &e->spawner[i];
        struct fsp_post *post = origin->ops->post(origin, i);
        fsp_origin_ref(origin);
        post->origin = origin;
        post->next = s->new_posts;
        s->new_posts = post;
        call(s);
    }
    pthread_mutex_unlock(&e->lock);
    return stopping ? -ESHUTDOWN : 0;
}

/* Under the lock. */
static void call_all(struct fsp_engine *e) {
    for (unsigned i = 0; i < e->nspawners; i++) call(&e->spawner[i]);
}

void fsp_origin_call(struct fsp_origin *origin) {
    struct fsp_engine *e = origin->engine;
    pthread_mutex_lock(&e->lock);
    call_all(e);
    pthread_mutex_unlock(&e->lock);
}

void fsp_origin_close(struct fsp_origin *origin) {
    struct fsp_engine *e = origin->engine;
    if (e && !fsp_engine_forked(e)) {
        pthread_mutex_lock(&e->lock);
        origin->closed = true;
        call_all(e);
        pthread_mutex_unlock(&e->lock);
    }
    fsp_origin_unref(origin);
}

static void orphan(struct fsp_post *post) {
    while (post) {
        struct fsp_post *next = post->next;
        post->origin->engine = NULL;
        fsp_origin_unref(post->origin);
        post = next;
    }
}

void fsp_origins_orphan(struct fsp_engine *e) {
    for (unsigned i = 0; i < e->nstarted; i++) {
        orphan(e->spawner[i].posts);
        orphan(e->spawner[i].new_posts);
    }
}

/* ---- helpers ---- */

static struct fsp_helper *find(const struct fsp_spawner *s, uint32_t id) {
    struct fsp_helper *helper = s->helpers;
    while (helper && helper->id != id) helper = helper->next;
    return helper;
}

/* There are so many that a token holds, from 1 on; after the last one those that are free. */
void fsp_helper_init(struct fsp_spawner *s, struct fsp_helper *helper, struct fsp_origin *origin) {
    do s->last_helper = s->last_helper % FSP_HELPER_LAST + 1;
    while (find(s, s->last_helper));
    *helper = (struct fsp_helper){.origin = origin, .id = s->last_helper};
}

void fsp_helper_add(struct fsp_spawner *s, struct fsp_helper *helper) {
    helper->next = s->helpers;
    s->helpers = helper;
}

void fsp_helper_remove(struct fsp_spawner *s, struct fsp_helper *helper) {
    struct fsp_helper **at = &s->helpers;
    while (*at != helper) at = &(*at)->next;
    *at = helper->next;
}

void fsp_helpers_look_at(struct fsp_spawner *s, uint64_t at) {
    if (at < s->tend_at) s->tend_at = at;
}

void fsp_helper_ready(struct fsp_spawner *s, uint64_t token) {
    struct fsp_helper *helper = find(s, (uint32_t)(token >> 1));
    if (helper) helper->origin->ops->ready(s, helper, token & 1);
}

void fsp_origins_stop(struct fsp_spawner *s) {
    for (struct fsp_helper *helper = s->helpers, *next; helper; helper = next) {
        next = helper->next;
        helper->origin->ops->stop(s, helper);
    }
}

/* ---- what is due ---- */

void fsp_post_set_due(struct fsp_spawner *s, struct fsp_post *post, uint64_t at) {
    post->due = at;
    if (at < s->tend_at) s->tend_at = at;
}

/* What the makers have said since.  Is the engine stopping? */
static bool hear(struct fsp_spawner *s) {
    pthread_mutex_lock(&s->engine->lock);
    bool stopping = s->engine->stopping;
    s->called = false;
    for (struct fsp_post *post; (post = s->new_posts);) {
        s->new_posts = post->next;
        post->next = s->posts;
        s->posts = post;
    }
    for (struct fsp_post *post = s->posts; post; post = post->next)
        post->closed = post->origin->closed;
    pthread_mutex_unlock(&s->engine->lock);
    return stopping;
}

static void tend_helpers(struct fsp_spawner *s, uint64_t now) {
    for (struct fsp_helper *helper = s->helpers, *next; helper; helper = next) {
        next = helper->next;
        fsp_helpers_look_at(s, helper->origin->ops->look(s, helper, now));
    }
}

static void drop_closed(struct fsp_spawner *s) {
    for (struct fsp_post **at = &s->posts, *post; (post = *at);) {
        if (!post->closed) {
            at = &post->next;
            continue;
        }
        *at = post->next;
        post->origin->ops->close(s, post);
        fsp_origin_unref(post->origin);
    }
}

static void tend_posts(struct fsp_spawner *s, uint64_t now) {
    for (struct fsp_post *post = s->posts; post; post = post->next) {
        if (post->due <= now) {
            post->due = UINT64_MAX;
            post->origin->ops->tend(s, post);
        }
        fsp_post_set_due(s, post, post->due);
    }
}

void fsp_origins_tend(struct fsp_spawner *s) {
    bool stopping = hear(s);
    uint64_t now = sys_now();
    s->tend_at = UINT64_MAX;
    tend_helpers(s, now);
    drop_closed(s);
    if (!stopping) tend_posts(s, now);
}
