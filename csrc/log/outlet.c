/*
 * outlet.c - lines to a descriptor that need not take them now, written by a thread of its own.
 *
 * Whoever logs must not wait for whoever reads the log, and a descriptor that was inherited can't
 * be made non-blocking: others have the same description (open(2)).  So a thread waits instead.
 * What is queued is bounded; what has no room is dropped and counted.
 *
 * A line is written whole or not at all.  On a pipe that has several writers theirs would come
 * between the parts of a write of more than PIPE_BUF bytes (pipe(7)), and behind one that ended
 * early: a write has as many whole lines as fit, and what is left of a line comes first.  A file
 * takes any length at once.
 */
#include "os/sys.h" /* first: it sets the feature macros */

#include "fastspawn.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

struct batch {
    struct batch *next;
    size_t len, at; /* ... of which is written */
    char data[];
};

struct fsp_outlet {
    int fd;
    size_t most; /* bytes of a write */
    size_t capacity;
    struct batch *torn; /* the thread's: what is left of a line that could not be written */

    pthread_t thread;
    pthread_mutex_t lock; /* for all that follows */
    pthread_cond_t work, end;
    struct batch *first, **last;
    size_t queued;
    uint64_t dropped;
    int error;
    bool asleep, closing, ended, abandoned;
};

/* ---- whole lines ---- */

static uint64_t count_lines(const char *data, size_t len) {
    uint64_t n = 0;
    const char *end = data + len;
    while (data < end && (data = memchr(data, '\n', (size_t)(end - data)))) {
        data++;
        n++;
    }
    return n;
}

/* How much of it to write at once. */
static size_t piece(const struct fsp_outlet *o, const char *data, size_t len) {
    if (len <= o->most) return len;
    for (size_t n = o->most; n > 0; n--)
        if (data[n - 1] == '\n') return n;
    const char *end = memchr(data, '\n', len); /* longer than what can be kept whole */
    return end ? (size_t)(end - data) + 1 : len;
}

/* The descriptor does not block. */
static void wait_for_room(int fd) {
    struct pollfd watched = {fd, POLLOUT, 0};
    (void)FSP_CALL("poll", poll(&watched, 1, -1));
}

static int write_all(const struct fsp_outlet *o, struct batch *b) {
    while (b->at < b->len) {
        const char *data = b->data + b->at;
        ssize_t n = sys_write(o->fd, data, piece(o, data, b->len - b->at));
        if (n == -EAGAIN)
            wait_for_room(o->fd);
        else if (n < 0)
            return (int)n;
        else
            b->at += (size_t)n;
    }
    return 0;
}

/* Of what could not be written, the rest of a line that was begun. */
static struct batch *keep_torn(struct batch *b) {
    const char *data = b->data + b->at, *end = memchr(data, '\n', b->len - b->at);
    if (b->at > 0 && data[-1] != '\n' && end) {
        b->len = (size_t)(end - b->data) + 1;
        return b;
    }
    free(b);
    return NULL;
}

/* 0 or -errno, and the lines that are lost. */
static int write_batch(struct fsp_outlet *o, struct batch *b, uint64_t *lost) {
    int r = o->torn ? write_all(o, o->torn) : 0;
    if (r == 0) {
        free(o->torn);
        o->torn = NULL;
        r = write_all(o, b);
        *lost = count_lines(b->data + b->at, b->len - b->at);
        o->torn = keep_torn(b);
        if (o->torn) --*lost;
    } else {
        *lost = count_lines(b->data, b->len);
        free(b);
    }
    return r;
}

/* ---- the thread ---- */

static void destroy(struct fsp_outlet *o) {
    for (struct batch *b = o->first, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(o->torn);
    pthread_cond_destroy(&o->end);
    pthread_cond_destroy(&o->work);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

/* Under the lock. */
static struct batch *next_batch(struct fsp_outlet *o) {
    while (o->first == NULL && !o->closing) {
        o->asleep = true;
        pthread_cond_wait(&o->work, &o->lock);
    }
    struct batch *b = o->abandoned ? NULL : o->first;
    if (b) {
        o->first = b->next;
        if (o->first == NULL) o->last = &o->first;
    }
    return b;
}

static void *outlet_main(void *arg) {
    struct fsp_outlet *o = arg;
    sys_batch(); /* no line is in a hurry: a child is not preempted for it */
    pthread_mutex_lock(&o->lock);
    for (struct batch *b; (b = next_batch(o));) {
        size_t len = b->len;
        uint64_t lost = 0;
        pthread_mutex_unlock(&o->lock);
        int r = write_batch(o, b, &lost);
        pthread_mutex_lock(&o->lock);
        o->queued -= len;
        o->dropped += lost;
        o->error = -r;
    }
    bool abandoned = o->abandoned;
    o->ended = true;
    pthread_cond_signal(&o->end);
    pthread_mutex_unlock(&o->lock);
    if (abandoned) destroy(o);
    return NULL;
}

/* ---- the caller's side ---- */

int fsp_outlet_new(int fd, size_t capacity, struct fsp_outlet **out) {
    struct stat st;
    struct fsp_outlet *o = sys_calloc(1, sizeof *o);
    if (o == NULL) return -ENOMEM;
    o->fd = fd;
    o->most = sys_fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? SIZE_MAX : PIPE_BUF;
    o->capacity = capacity;
    o->last = &o->first;
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->work, NULL);
    pthread_cond_init(&o->end, NULL);
    int r = sys_thread(&o->thread, outlet_main, o); /* a broken pipe is an error, no signal */
    if (r < 0) {
        destroy(o);
        return r;
    }
    *out = o;
    return 0;
}

static bool queue(struct fsp_outlet *o, struct batch *b) {
    if (o->queued && o->queued + b->len > o->capacity) return false;
    *o->last = b;
    o->last = &b->next;
    o->queued += b->len;
    return true;
}

int fsp_outlet_put(struct fsp_outlet *o, const void *data, size_t len) {
    if (len == 0) return 0;
    struct batch *b = sys_malloc(sizeof *b + len);
    if (b) {
        b->next = NULL;
        b->len = len;
        b->at = 0;
        memcpy(b->data, data, len);
    }
    pthread_mutex_lock(&o->lock);
    bool queued = b && queue(o, b), wake = queued && o->asleep;
    if (wake) o->asleep = false;
    if (!queued) o->dropped += count_lines(data, len);
    pthread_mutex_unlock(&o->lock);
    if (wake) pthread_cond_signal(&o->work);
    if (!queued) free(b);
    return queued ? 0 : b ? -EAGAIN : -ENOMEM;
}

void fsp_outlet_get_state(struct fsp_outlet *o, struct fsp_outlet_state *out) {
    pthread_mutex_lock(&o->lock);
    *out = (struct fsp_outlet_state){o->queued, o->dropped, o->error};
    pthread_mutex_unlock(&o->lock);
}

int fsp_outlet_free(struct fsp_outlet *o, uint64_t timeout) {
    struct timespec until;
    int r = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + timeout;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_t thread = o->thread;

    pthread_mutex_lock(&o->lock);
    o->closing = true;
    pthread_cond_signal(&o->work);
    while (!o->ended && r == 0) r = pthread_cond_timedwait(&o->end, &o->lock, &until);
    bool ended = o->ended;
    o->abandoned = !ended;
    pthread_mutex_unlock(&o->lock);
    if (!ended) {
        pthread_detach(thread); /* it sits in a write, and may for ever */
        return 0;
    }
    pthread_join(thread, NULL);
    destroy(o);
    return 1;
}
