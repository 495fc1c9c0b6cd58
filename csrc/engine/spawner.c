/*
 * spawner.c - a spawner's thread.
 *
 * It takes one pending job a turn, looks after those it has, and sleeps only when there is
 * neither.
 */
#include "engine.h"

/* The next pending job, now this spawner's; NULL if there is none or spawns are held. */
static struct fsp_job *take_pending(struct fsp_spawner *s, uint64_t now) {
    struct fsp_engine *e = s->engine;
    pthread_mutex_lock(&e->lock);
    struct fsp_job *job = now >= s->hold_until || e->stopping ? e->pending : NULL;
    if (job) {
        fsp_unqueue(e, job);
        job->owner = s;
    }
    pthread_mutex_unlock(&e->lock);
    return job;
}

static void start_next(struct fsp_spawner *s, bool stopping) {
    uint64_t now = sys_now();
    struct fsp_job *job = take_pending(s, now);
    if (job) fsp_job_begin(s, job, now, stopping);
}

static void read_mail(struct fsp_spawner *s) {
    struct fsp_job *job;
    while ((job = fsp_spawner_next_mail(s))) fsp_job_read_mail(s, job);
}

static void run_due(struct fsp_spawner *s) {
    if (s->heap.n == 0) return;
    uint64_t now = sys_now();
    while (s->heap.n && s->heap.jobs[0]->next_due <= now) fsp_job_due(s, s->heap.jobs[0], now);
}

/*
 * For how long to sleep (0: not at all), decided under the lock so that no wake-up is missed: a
 * spawner on the idle list is woken by whoever brings it work.
 */
static uint64_t may_sleep(struct fsp_spawner *s, bool *leave) {
    struct fsp_engine *e = s->engine;
    uint64_t now = sys_now(), until = s->heap.n ? s->heap.jobs[0]->next_due : UINT64_MAX;
    if (s->tend_at < until) until = s->tend_at;
    pthread_mutex_lock(&e->lock);
    bool held = s->hold_until > now && !e->stopping;
    if (held && e->pending && s->hold_until < until) until = s->hold_until;
    bool busy = s->mail || s->called || (e->pending && !held) || until <= now;
    *leave = e->stopping && !busy && s->heap.n == 0 && !s->helpers;
    if (!busy && !*leave) {
        s->sleeping = true;
        s->next_idle = e->idle;
        e->idle = s;
    }
    pthread_mutex_unlock(&e->lock);
    if (busy) return 0;
    return until == UINT64_MAX ? UINT64_MAX : until - now;
}

static void awake(struct fsp_spawner *s) {
    struct fsp_engine *e = s->engine;
    pthread_mutex_lock(&e->lock);
    s->sleeping = false;
    for (struct fsp_spawner **at = &e->idle; *at; at = &(*at)->next_idle)
        if (*at == s) {
            *at = s->next_idle;
            break;
        }
    pthread_mutex_unlock(&e->lock);
}

static void handle(struct fsp_spawner *s, const uint64_t *tokens, int n) {
    for (int i = 0; i < n; i++) {
        enum fsp_source source;
        if (tokens[i] == UINT64_MAX) {
            fsp_waker_clear(&s->waker);
            continue;
        }
        if (FSP_IS_HELPER(tokens[i])) {
            fsp_helper_ready(s, tokens[i]);
            continue;
        }
        struct fsp_job *job = fsp_slots_find(&s->slots, tokens[i], &source);
        if (job) fsp_job_ready(s, job, source);
    }
}

static void abort_all(struct fsp_spawner *s) {
    for (uint32_t i = 0; i < s->slots.cap; i++)
        if (s->slots.slot[i].job) fsp_job_abort(s, s->slots.slot[i].job);
}

static bool is_stopping(struct fsp_engine *e) {
    pthread_mutex_lock(&e->lock);
    bool stopping = e->stopping;
    pthread_mutex_unlock(&e->lock);
    return stopping;
}

/* Most engines have no origins but exec: not even the clock is looked at for them. */
static void tend(struct fsp_spawner *s) {
    pthread_mutex_lock(&s->engine->lock);
    bool told = s->called;
    pthread_mutex_unlock(&s->engine->lock);
    if (told || (s->tend_at != UINT64_MAX && s->tend_at <= sys_now())) fsp_origins_tend(s);
}

static void loop(struct fsp_spawner *s) {
    uint64_t tokens[64];
    for (;;) {
        bool leave;
        uint64_t timeout = may_sleep(s, &leave);
        if (leave) return;
        if (timeout) fsp_pipes_fill(&s->pipes);
        int n = fsp_poller_wait(&s->poller, tokens, 64, timeout);
        if (timeout) awake(s);
        handle(s, tokens, n);
        read_mail(s);
        run_due(s);
        tend(s);
        bool stopping = is_stopping(s->engine);
        if (stopping) {
            abort_all(s);
            fsp_origins_stop(s);
        }
        start_next(s, stopping);
    }
}

void *fsp_spawner_main(void *arg) {
    struct fsp_spawner *s = arg;
    struct fsp_engine *e = s->engine;
    int r = fsp_spawner_open(s);
    pthread_mutex_lock(&e->lock);
    e->nready++;
    if (r < 0 && e->init_result == 0) e->init_result = r;
    e->stats.private_tables += s->private;
    pthread_cond_signal(&e->ready);
    pthread_mutex_unlock(&e->lock);
    if (r == 0) loop(s);
    fsp_spawner_close(s);
    return NULL;
}
