/*
 * engine.c - the caller's side of the engine: threads started and ended, jobs handed over.
 *
 * Pending jobs wait in one queue (queue.c) for whichever spawner is free, since a spawner is held
 * while its child executes; a started job stays with its spawner (spawner.c) to the end.
 */
#include "engine.h"

/* All before the first thread: any spawner may wake any other, so each table has all (own.c). */
static int open_wakers(struct fsp_engine *e) {
    for (unsigned i = 0; i < e->nspawners; i++)
        e->spawner[i].waker.fd[0] = e->spawner[i].waker.fd[1] = -1;
    int r = fsp_waker_init(&e->waker);
    for (unsigned i = 0; i < e->nspawners && r == 0; i++) r = fsp_waker_init(&e->spawner[i].waker);
    return r;
}

static void close_wakers(struct fsp_engine *e) {
    fsp_waker_close(&e->waker);
    for (unsigned i = 0; i < e->nspawners; i++) fsp_waker_close(&e->spawner[i].waker);
}

/*
 * Every signal is blocked on a spawner, so that no handler of the program ever runs there; but
 * for the two that libc keeps to itself (hence its own mask and not the kernel's): setuid() in
 * another thread waits until each thread has answered one.
 */
static int start_threads(struct fsp_engine *e) {
    int r = 0;
    for (; e->nstarted < e->nspawners && r == 0; e->nstarted += r == 0) {
        struct fsp_spawner *s = &e->spawner[e->nstarted];
        s->engine = e;
        r = sys_thread(&s->thread, fsp_spawner_main, s);
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
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->ready, NULL);
    e->news_last = &e->news;
    e->nspawners = e->stats.spawners = spawners;
    e->born = fsp_fork_generation();
    if (mask)
        e->mask = *mask;
    else
        sys_sigmask(NULL, &e->mask);
    int r = open_wakers(e);
    if (r == 0) r = start_threads(e);
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
    for (unsigned i = 0; i < e->nstarted; i++) pthread_join(e->spawner[i].thread, NULL);
    fsp_origins_orphan(e);
    close_wakers(e);
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
    /* Whatever the caller may name there begins with its origin. */
    job->origin = job->turn = options->reset ? (struct fsp_origin *)options->reset
                                             : (struct fsp_origin *)options->snapshot;
    fsp_origin_ref(job->origin);
    job->mail.feed_last = &job->mail.feed;
    job->mail.eof = !(options->flags & FSP_JOB_FEED);
    job->child.pidfd = job->out[0].fd = job->out[1].fd = -1;
    fsp_in_init(job);
}

static int check_terminal(const struct fsp_job_options *options) {
#ifdef __linux__
    bool executed = options->snapshot == NULL && options->reset == NULL;
    return executed && options->flags & FSP_JOB_FEED ? 0 : -EINVAL;
#else
    (void)options;
    return -ENOTSUP;
#endif
}

int fsp_engine_submit(struct fsp_engine *e, struct fsp_plan *plan,
                      const struct fsp_job_options *options, struct fsp_job **out) {
    if (fsp_engine_forked(e)) return -ECHILD;
    int r = options->in == FSP_IO_TERMINAL ? check_terminal(options) : 0;
    if (r < 0) return r;
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
    fsp_queue_last(e, job);
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
    free_feeds(job->in.written, &job->in.input);
    free_feeds(job->mail.feed, NULL);
    free_chunks(job->news.chunks);
    free_chunks(job->taken.chunks);
    for (int i = 0; i < 2; i++) free(job->outcome.output[i].data);
    fsp_origin_unref(job->origin);
    fsp_plan_unref(job->plan);
    free(job);
}
