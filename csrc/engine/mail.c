/*
 * mail.c - the two mailboxes of a job, and the locks around them.
 *
 * The caller puts stdin, signals, cancellation and consumed bytes into `mail`; the spawner puts
 * output and milestones into `news`.  A box that was empty puts its job on a list (the owner's,
 * or the engine's), and a list that was empty wakes whoever sleeps on it: one wake-up serves all
 * that comes before it is answered.
 */
#include "engine.h"

/* Under the lock.  True when the owner must be woken, which the caller does after unlocking. */
static bool list_mail(struct fsp_job *job) {
    struct fsp_spawner *s = job->owner;
    if (s == NULL || job->mail.listed) return false;
    job->mail.listed = true;
    job->next_mail = s->mail;
    s->mail = job;
    bool wake = s->sleeping;
    s->sleeping = false;
    return wake;
}

void fsp_job_unlist(struct fsp_job *job) {
    struct fsp_job **at = &job->owner->mail;
    while (*at && *at != job) at = &(*at)->next_mail;
    if (*at) *at = job->next_mail;
    job->mail.listed = false;
}

/* Under the lock.  True when the taker must be woken. */
static bool list_news(struct fsp_job *job) {
    struct fsp_engine *e = job->engine;
    if (job->news_listed) return false;
    bool was_empty = e->news == NULL;
    job->news_listed = true;
    job->next_news = NULL;
    *e->news_last = job;
    e->news_last = &job->next_news;
    return was_empty;
}

/* ---- news: the spawner's side ---- */

void fsp_job_tell_started(struct fsp_job *job) {
    struct fsp_engine *e = job->engine;
    pthread_mutex_lock(&e->lock);
    job->news.started = 1;
    bool wake = list_news(job);
    pthread_mutex_unlock(&e->lock);
    if (wake) fsp_waker_set(&e->waker);
}

void fsp_job_tell_output(struct fsp_job *job, struct fsp_chunk *chunk) {
    struct fsp_engine *e = job->engine;
    pthread_mutex_lock(&e->lock);
    job->mail.told[chunk->stream] += chunk->len;
    if (job->news.chunks == NULL) job->news_last = &job->news.chunks;
    *job->news_last = chunk;
    job->news_last = &chunk->next;
    bool wake = list_news(job);
    pthread_mutex_unlock(&e->lock);
    if (wake) fsp_waker_set(&e->waker);
}

void fsp_job_tell_fed(struct fsp_job *job, size_t written) {
    struct fsp_engine *e = job->engine;
    pthread_mutex_lock(&e->lock);
    bool wake = false;
    job->mail.queued -= written;
    if (job->mail.want_drain && job->mail.queued <= FSP_FEED_LOW) {
        job->mail.want_drain = false;
        job->news.drained = 1;
        wake = list_news(job);
    }
    pthread_mutex_unlock(&e->lock);
    if (wake) fsp_waker_set(&e->waker);
}

void fsp_job_untell_fed(struct fsp_job *job, size_t written) {
    pthread_mutex_lock(&job->engine->lock);
    job->mail.queued += written;
    pthread_mutex_unlock(&job->engine->lock);
}

/* Under the lock.  True when the taker must be woken. */
static bool end(struct fsp_job *job) {
    struct fsp_engine *e = job->engine;
    if (job->mail.listed) fsp_job_unlist(job);
    if (job->child.pid != 0) e->stats.running--;
    e->stats.finished++;
    job->owner = NULL;
    job->ended = true;
    job->news.ended = 1;
    return list_news(job);
}

/* After this the job is the submitter's: the spawner must not look at it again. */
void fsp_job_tell_ended(struct fsp_job *job) {
    struct fsp_engine *e = job->engine;
    pthread_mutex_lock(&e->lock);
    bool wake = end(job);
    pthread_mutex_unlock(&e->lock);
    if (wake) fsp_waker_set(&e->waker);
}

bool fsp_job_has_room(struct fsp_job *job, int stream) {
    pthread_mutex_lock(&job->engine->lock);
    bool room = job->mail.told[stream] - job->mail.consumed[stream] < FSP_WINDOW;
    if (!room) job->mail.stalled = true;
    pthread_mutex_unlock(&job->engine->lock);
    return room;
}

struct fsp_mail fsp_job_take_mail(struct fsp_job *job) {
    pthread_mutex_lock(&job->engine->lock);
    struct fsp_mail taken = job->mail;
    job->mail.feed = NULL;
    job->mail.feed_last = &job->mail.feed;
    job->mail.signals[0] = job->mail.signals[1] = 0;
    job->mail.cancel = job->mail.adopt = job->mail.stalled = job->mail.resized = false;
    pthread_mutex_unlock(&job->engine->lock);
    return taken;
}

struct fsp_job *fsp_spawner_next_mail(struct fsp_spawner *s) {
    pthread_mutex_lock(&s->engine->lock);
    struct fsp_job *job = s->mail;
    if (job) {
        s->mail = job->next_mail;
        job->mail.listed = false;
    }
    pthread_mutex_unlock(&s->engine->lock);
    return job;
}

void fsp_engine_tell(struct fsp_engine *e) {
    __atomic_add_fetch(&e->told, 1, __ATOMIC_RELEASE);
    fsp_waker_set(&e->waker);
}

/* ---- news: the caller's side ---- */

uint64_t fsp_engine_told(const struct fsp_engine *e) {
    return __atomic_load_n(&e->told, __ATOMIC_ACQUIRE);
}

struct fsp_job *fsp_engine_take(struct fsp_engine *e) {
    if (fsp_engine_forked(e)) return NULL;
    fsp_waker_clear(&e->waker);
    pthread_mutex_lock(&e->lock);
    struct fsp_job *list = e->news;
    e->news = NULL;
    e->news_last = &e->news;
    for (struct fsp_job *job = list; job; job = job->next_news) {
        job->taken = job->news;
        job->next_taken = job->next_news;
        job->news = (struct fsp_news){0};
        job->news_listed = false;
    }
    pthread_mutex_unlock(&e->lock);
    return list;
}

struct fsp_news *fsp_job_news(struct fsp_job *job) {
    return &job->taken;
}

/* ---- mail: the caller's side ---- */

static void unlock_and_wake(struct fsp_job *job, bool wake) {
    struct fsp_spawner *s = job->owner;
    pthread_mutex_unlock(&job->engine->lock);
    if (wake) fsp_waker_set(&s->waker);
}

int fsp_job_write(struct fsp_job *job, const void *data, size_t len) {
    if (len == 0 || fsp_engine_forked(job->engine)) return 0;
    struct fsp_feed *feed = sys_malloc(sizeof *feed + len);
    if (feed == NULL) return -ENOMEM;
    *feed = (struct fsp_feed){NULL, memcpy(feed + 1, data, len), len};

    pthread_mutex_lock(&job->engine->lock);
    if (job->mail.eof || job->ended) {
        int r = job->ended ? 0 : -EPIPE;
        pthread_mutex_unlock(&job->engine->lock);
        free(feed);
        return r;
    }
    *job->mail.feed_last = feed;
    job->mail.feed_last = &feed->next;
    job->mail.queued += len;
    bool full = job->mail.queued > FSP_FEED_HIGH;
    job->mail.want_drain |= full;
    unlock_and_wake(job, list_mail(job));
    return full;
}

void fsp_job_write_eof(struct fsp_job *job) {
    if (fsp_engine_forked(job->engine)) return;
    pthread_mutex_lock(&job->engine->lock);
    bool wake = !job->mail.eof && list_mail(job);
    job->mail.eof = true;
    unlock_and_wake(job, wake);
}

void fsp_job_consumed(struct fsp_job *job, int stream, size_t len) {
    if (fsp_engine_forked(job->engine)) return;
    pthread_mutex_lock(&job->engine->lock);
    struct fsp_mail *m = &job->mail;
    m->consumed[stream] += len;
    bool room = m->told[stream] - m->consumed[stream] <= FSP_WINDOW / 2;
    unlock_and_wake(job, m->stalled && room && list_mail(job));
}

void fsp_job_adopt(struct fsp_job *job, int tell) {
    if (fsp_engine_forked(job->engine)) return;
    pthread_mutex_lock(&job->engine->lock);
    job->mail.adopt = true;
    job->mail.tell_adopted = tell;
    unlock_and_wake(job, list_mail(job));
}

void fsp_job_signal(struct fsp_job *job, int group, int sig) {
    if (fsp_engine_forked(job->engine) || sig < 1 || sig > 64) return;
    pthread_mutex_lock(&job->engine->lock);
    job->mail.signals[group ? 1 : 0] |= (uint64_t)1 << (sig - 1);
    unlock_and_wake(job, list_mail(job));
}

void fsp_job_resize(struct fsp_job *job, struct fsp_size size) {
    if (fsp_engine_forked(job->engine)) return;
    pthread_mutex_lock(&job->engine->lock);
    job->mail.resized = true;
    job->mail.size = size;
    unlock_and_wake(job, list_mail(job));
}

void fsp_job_cancel(struct fsp_job *job) {
    struct fsp_engine *e = job->engine;
    if (fsp_engine_forked(e)) return;
    pthread_mutex_lock(&e->lock);
    if (job->owner == NULL && !job->ended) {
        fsp_unqueue(e, job);
        job->outcome.cancelled = 1;
        bool wake = end(job);
        pthread_mutex_unlock(&e->lock);
        if (wake) fsp_waker_set(&e->waker);
        return;
    }
    job->mail.cancel = true;
    unlock_and_wake(job, list_mail(job));
}
