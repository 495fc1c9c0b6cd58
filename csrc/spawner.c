/*
 * spawner.c - a spawner's thread.
 *
 * It takes one pending job a turn, looks after those it has, and sleeps only when there is
 * neither.
 *
 * It owns its descriptor table (close_range with CLOSE_RANGE_UNSHARE): no socket of the server is
 * ever in it, so none can leak into a child, holds up a close, or costs a spawn anything; and a
 * file that another thread is writing cannot be busy (ETXTBSY) because of us.
 */
#include "engine.h"

#ifdef __linux__

/* Keep 0-2 and the two wakers.  The topmost range goes first: it is the one that unshares, and
 * what it drops is not even copied. */
static bool own_table(struct fsp_spawner *s) {
    unsigned low = (unsigned)s->waker.fd[0], high = (unsigned)s->engine->waker.fd[0];
    if (low > high) {
        unsigned swap = low;
        low = high;
        high = swap;
    }
    if (sys_close_range(high + 1, ~0u, CLOSE_RANGE_UNSHARE) < 0) return false;
    if (low + 1 < high) sys_close_range(low + 1, high - 1, 0);
    if (low > 3) sys_close_range(3, low - 1, 0);
    return true;
}

#else

static bool own_table(struct fsp_spawner *s) {
    (void)s;
    return false;
}

#endif

/* 0, or -errno with nothing left open. */
static int open_own(struct fsp_spawner *s) {
    s->devnull = s->low[0] = s->low[1] = s->low[2] = s->poller.fd = -1;
    s->tend_at = UINT64_MAX;
    s->scratch = sys_malloc(FSP_SCRATCH);
    if (s->scratch == NULL) return -ENOMEM;
    s->private = own_table(s);
    int r = s->devnull = sys_open("/dev/null", O_RDWR);
    for (int i = 0; i < 3 && r >= 0; i++) r = s->low[i] = sys_dup_above(s->devnull, 3);
    if (r >= 0) r = fsp_poller_init(&s->poller);
    if (r >= 0) r = fsp_poller_watch(&s->poller, s->waker.fd[0], FSP_POLL_IN, UINT64_MAX);
    return r < 0 ? r : 0;
}

static void close_own(struct fsp_spawner *s) {
    fsp_pipes_close(&s->pipes);
    fsp_poller_close(&s->poller);
    sys_close(s->devnull);
    for (int i = 0; i < 3; i++) sys_close(s->low[i]);
    free(s->heap.jobs);
    free(s->slots.slot);
    free(s->scratch);
}

/* How it spawns. */
unsigned fsp_spawner_flags(const struct fsp_spawner *s) {
    return (s->private ? FSP_SPAWN_PRIVATE : 0) | (s->batch ? FSP_SPAWN_BATCH : 0);
}

/*
 * One that asks for forks would be woken for each answer and for each exit, and preempt a fork
 * that runs for it.  It waits for its turn instead, and finds more at a time, with half as many
 * wake-ups.  For one that executes it would make no difference.
 */
void fsp_spawner_calm(struct fsp_spawner *s) {
    if (!s->batch) s->batch = sys_batch() == 0;
}

/* The next pending job, now this spawner's; NULL if there is none or spawns are held. */
static struct fsp_job *take_pending(struct fsp_spawner *s, uint64_t now) {
    struct fsp_engine *e = s->engine;
    pthread_mutex_lock(&e->lock);
    struct fsp_job *job = now >= s->hold_until || e->stopping ? e->pending : NULL;
    if (job) {
        fsp_engine_unqueue(e, job);
        job->owner = s;
    }
    pthread_mutex_unlock(&e->lock);
    return job;
}

void fsp_job_give_back(struct fsp_job *job) {
    struct fsp_engine *e = job->engine;
    pthread_mutex_lock(&e->lock);
    if (job->mail.listed) fsp_job_unlist(job);
    job->owner = NULL;
    fsp_engine_requeue(e, job);
    e->stats.retried++;
    pthread_mutex_unlock(&e->lock);
}

/* No resources: give it back, and let children end first. */
static void put_off(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    fsp_pipes_close(&s->pipes);
    fsp_job_give_back(job);
    s->hold_until = now + FSP_HOLD_NS;
}

static void start_next(struct fsp_spawner *s, bool stopping) {
    uint64_t now = sys_now();
    struct fsp_job *job = take_pending(s, now);
    if (job == NULL) return;
    struct fsp_mail mail = fsp_job_take_mail(job);
    if (mail.adopt) { /* before it began: it is a job like any other */
        job->options.flags &= ~FSP_JOB_SPARE;
        if (mail.tell_adopted) job->options.flags |= FSP_JOB_STARTED;
    }
    fsp_in_append(job, mail.feed);
    job->in.eof |= mail.eof;
    if (mail.cancel || stopping) {
        job->outcome.cancelled = 1;
        fsp_in_close(s, job);
        fsp_job_end(job);
    } else if (fsp_job_start(s, job, now) > 0)
        put_off(s, job, now);
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
    bool busy = s->mail || s->templates || (e->pending && !held) || until <= now;
    *leave = e->stopping && !busy && s->heap.n == 0 && !s->zygotes;
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
        if (FSP_IS_ZYGOTE(tokens[i])) {
            fsp_zygote_ready(s, tokens[i]);
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

/* Most engines have no templates: not even the clock is looked at for them. */
static void tend(struct fsp_spawner *s) {
    pthread_mutex_lock(&s->engine->lock);
    bool told = s->templates;
    pthread_mutex_unlock(&s->engine->lock);
    if (told || (s->tend_at != UINT64_MAX && s->tend_at <= sys_now())) fsp_zygotes_tend(s);
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
            fsp_zygotes_stop(s);
        }
        start_next(s, stopping);
    }
}

void *fsp_spawner_main(void *arg) {
    struct fsp_spawner *s = arg;
    struct fsp_engine *e = s->engine;
    int r = open_own(s);
    pthread_mutex_lock(&e->lock);
    e->nready++;
    if (r < 0 && e->init_result == 0) e->init_result = r;
    e->stats.private_tables += s->private;
    pthread_cond_signal(&e->ready);
    pthread_mutex_unlock(&e->lock);
    if (r == 0) loop(s);
    close_own(s);
    return NULL;
}
