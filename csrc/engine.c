/*
 * engine.c - spawner threads, and how jobs get to them.
 *
 * Pending jobs wait in one queue for whichever spawner is free, since a spawner is held while its
 * child executes; a started job stays with its spawner to the end.  A spawner takes one job a
 * turn, looks after those it has, and sleeps only when there is neither.
 *
 * Each spawner owns its descriptor table (close_range with CLOSE_RANGE_UNSHARE): no socket of the
 * server is ever in it, so none can leak into a child, holds up a close, or costs a spawn
 * anything; and a file that another thread is writing cannot be busy (ETXTBSY) because of us.
 */
#include "engine.h"

static unsigned fork_generation;

static void forked(void) {
    fork_generation++; /* the child of a fork has one thread */
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, forked);
}

static unsigned generation(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    return fork_generation;
}

int fsp_engine_forked(const struct fsp_engine *e) {
    return e->born != fork_generation;
}

/* ---- the queue of pending jobs, under the lock ---- */

static void queue_last(struct fsp_engine *e, struct fsp_job *job) {
    job->next = NULL;
    job->prev = e->pending_last;
    *(e->pending_last ? &e->pending_last->next : &e->pending) = job;
    e->pending_last = job;
    e->stats.pending++;
}

static void queue_first(struct fsp_engine *e, struct fsp_job *job) {
    job->prev = NULL;
    job->next = e->pending;
    *(e->pending ? &e->pending->prev : &e->pending_last) = job;
    e->pending = job;
    e->stats.pending++;
}

void fsp_engine_unqueue(struct fsp_engine *e, struct fsp_job *job) {
    *(job->prev ? &job->prev->next : &e->pending) = job->next;
    *(job->next ? &job->next->prev : &e->pending_last) = job->prev;
    e->stats.pending--;
}

/* ---- a spawner's thread ---- */

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
    s->devnull = s->low[0] = s->low[1] = s->low[2] = -1;
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

/* No resources: give it back, and let children end first. */
static void put_off(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    struct fsp_engine *e = s->engine;
    fsp_pipes_close(&s->pipes);
    pthread_mutex_lock(&e->lock);
    if (job->mail.listed) fsp_job_unlist(job);
    job->owner = NULL;
    queue_first(e, job);
    e->stats.retried++;
    pthread_mutex_unlock(&e->lock);
    s->hold_until = now + FSP_HOLD_NS;
}

static void start_next(struct fsp_spawner *s, bool stopping) {
    uint64_t now = sys_now();
    struct fsp_job *job = take_pending(s, now);
    if (job == NULL) return;
    struct fsp_mail mail = fsp_job_take_mail(job);
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
    pthread_mutex_lock(&e->lock);
    bool held = s->hold_until > now && !e->stopping;
    if (held && e->pending && s->hold_until < until) until = s->hold_until;
    bool busy = s->mail || (e->pending && !held) || until <= now;
    *leave = e->stopping && !busy && s->heap.n == 0;
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
        struct fsp_job *job = fsp_slots_find(&s->slots, tokens[i], &source);
        if (job) fsp_job_ready(s, job, source);
    }
}

static void abort_all(struct fsp_spawner *s) {
    for (uint32_t i = 0; i < s->slots.cap; i++)
        if (s->slots.slot[i].job && !s->slots.slot[i].job->killed)
            fsp_job_abort(s, s->slots.slot[i].job);
}

static bool is_stopping(struct fsp_engine *e) {
    pthread_mutex_lock(&e->lock);
    bool stopping = e->stopping;
    pthread_mutex_unlock(&e->lock);
    return stopping;
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
        bool stopping = is_stopping(s->engine);
        if (stopping) abort_all(s);
        start_next(s, stopping);
    }
}

static void *spawner_main(void *arg) {
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

/* ---- the caller's side ---- */

static int start_thread(struct fsp_spawner *s) {
    const uint64_t all = ~(uint64_t)0;
    uint64_t before = 0;
    int r = fsp_waker_init(&s->waker);
    if (r < 0) return r;
    sys_sigmask(&all, &before); /* inherited: no handler ever runs on a spawner */
    r = -fsp_fault("thread");
    if (r == 0) r = -pthread_create(&s->thread, NULL, spawner_main, s);
    sys_sigmask(&before, NULL);
    if (r < 0) fsp_waker_close(&s->waker);
    return r;
}

static int start_threads(struct fsp_engine *e) {
    int r = 0;
    for (; e->nstarted < e->nspawners && r == 0; e->nstarted += r == 0) {
        struct fsp_spawner *s = &e->spawner[e->nstarted];
        s->engine = e;
        r = start_thread(s);
    }
    /* Their tables must be theirs before the caller opens anything that should stay out. */
    pthread_mutex_lock(&e->lock);
    while (e->nready < e->nstarted) pthread_cond_wait(&e->ready, &e->lock);
    if (r == 0) r = e->init_result;
    pthread_mutex_unlock(&e->lock);
    return r;
}

int fsp_engine_new(unsigned spawners, const uint64_t *mask, struct fsp_engine **out) {
    if (spawners == 0) return -EINVAL;
    struct fsp_engine *e = sys_calloc(1, sizeof *e + spawners * sizeof *e->spawner);
    if (e == NULL) return -ENOMEM;
    int r = fsp_waker_init(&e->waker);
    if (r < 0) {
        free(e);
        return r;
    }
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->ready, NULL);
    e->news_last = &e->news;
    e->nspawners = e->stats.spawners = spawners;
    e->born = generation();
    if (mask)
        e->mask = *mask;
    else
        sys_sigmask(NULL, &e->mask);
    r = start_threads(e);
    if (r < 0) {
        fsp_engine_free(e);
        return r;
    }
    *out = e;
    return 0;
}

int fsp_engine_fd(const struct fsp_engine *e) {
    return e->waker.fd[0];
}

void fsp_engine_stop(struct fsp_engine *e) {
    if (fsp_engine_forked(e)) return;
    pthread_mutex_lock(&e->lock);
    e->stopping = true;
    for (unsigned i = 0; i < e->nstarted; i++) {
        e->spawner[i].sleeping = false;
        fsp_waker_set(&e->spawner[i].waker);
    }
    pthread_mutex_unlock(&e->lock);
}

void fsp_engine_free(struct fsp_engine *e) {
    if (e == NULL || fsp_engine_forked(e)) return;
    fsp_engine_stop(e);
    for (unsigned i = 0; i < e->nstarted; i++) {
        pthread_join(e->spawner[i].thread, NULL);
        fsp_waker_close(&e->spawner[i].waker);
    }
    fsp_waker_close(&e->waker);
    pthread_cond_destroy(&e->ready);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

void fsp_engine_stats(struct fsp_engine *e, struct fsp_engine_stats *out) {
    *out = (struct fsp_engine_stats){0};
    if (fsp_engine_forked(e)) return;
    pthread_mutex_lock(&e->lock);
    *out = e->stats;
    pthread_mutex_unlock(&e->lock);
}

static void job_init(struct fsp_job *job, struct fsp_engine *e, struct fsp_plan *plan,
                     const struct fsp_job_options *options) {
    job->engine = e;
    job->plan = fsp_plan_ref(plan);
    job->options = *options;
    job->mail.feed_last = &job->mail.feed;
    job->mail.eof = !(options->flags & FSP_JOB_FEED);
    job->child.pidfd = job->out[0].fd = job->out[1].fd = -1;
    fsp_in_init(job);
}

int fsp_engine_submit(struct fsp_engine *e, struct fsp_plan *plan,
                      const struct fsp_job_options *options, struct fsp_job **out) {
    if (fsp_engine_forked(e)) return -ECHILD;
    struct fsp_job *job = sys_calloc(1, sizeof *job);
    if (job == NULL) return -ENOMEM;
    job_init(job, e, plan, options);
    *out = job;

    pthread_mutex_lock(&e->lock);
    if (e->stopping) {
        pthread_mutex_unlock(&e->lock);
        fsp_job_free(job);
        return -ESHUTDOWN;
    }
    queue_last(e, job);
    struct fsp_spawner *s = e->idle;
    bool wake = false;
    if (s) {
        e->idle = s->next_idle;
        wake = s->sleeping;
        s->sleeping = false;
    }
    pthread_mutex_unlock(&e->lock);
    if (wake) fsp_waker_set(&s->waker);
    return 0;
}

void *fsp_job_user(const struct fsp_job *job) {
    return job->options.user;
}

struct fsp_outcome *fsp_job_outcome(struct fsp_job *job) {
    return &job->outcome;
}

struct fsp_job *fsp_job_next(const struct fsp_job *job) {
    return job->next_taken;
}

static void free_chunks(struct fsp_chunk *chunk) {
    while (chunk) {
        struct fsp_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}

static void free_feeds(struct fsp_feed *feed, const struct fsp_feed *borrowed) {
    while (feed) {
        struct fsp_feed *next = feed->next;
        if (feed != borrowed) free(feed);
        feed = next;
    }
}

void fsp_job_free(struct fsp_job *job) {
    if (job == NULL) return;
    free_feeds(job->in.first, &job->in.input);
    free_feeds(job->mail.feed, NULL);
    free_chunks(job->news.chunks);
    free_chunks(job->taken.chunks);
    for (int i = 0; i < 2; i++) free(job->outcome.output[i].data);
    fsp_plan_unref(job->plan);
    free(job);
}
