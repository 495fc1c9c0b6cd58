/*
 * listen.c - see listen.h.
 */
#include "listen.h"

#include <poll.h>

bool listen_shared_tables;

struct fsp_engine *listen_engine(unsigned spawners) {
    struct fsp_engine *e = NULL;
    if (listen_shared_tables) faults_arm("close_range", ENOSYS, 0, FAULTS_ALL);
    int r = fsp_engine_new(spawners, NULL, &e);
    if (listen_shared_tables) faults_off();
    if (r < 0) {
        tap_note("no engine: %s", strerror(-r));
        _exit(1);
    }
    return e;
}

struct fsp_job_options listen_options(void) {
    return (struct fsp_job_options){
        .in = FSP_IO_NULL,
        .out = FSP_IO_PIPE,
        .err = FSP_IO_PIPE,
        .limits = {.kill_grace = 1000000000, .drain = 60000000000},
    };
}

void listen_submit(struct fsp_engine *e, struct fsp_spec spec, struct fsp_job_options options,
                   struct heard *heard) {
    spec.flags |= FSP_FLAG_SETSID;
    struct fsp_plan *plan = support_plan(&spec);
    bool hold = heard->hold;
    *heard = (struct heard){.hold = hold};
    options.user = heard;
    CHECK_INT(fsp_engine_submit(e, plan, &options, &heard->job), 0);
    fsp_plan_unref(plan);
}

static void append(struct fsp_buf *buf, const char *data, size_t len) {
    if (buf->len + len + 1 > buf->cap) {
        buf->cap = (buf->len + len + 1) * 2;
        buf->data = realloc(buf->data, buf->cap);
    }
    if (len) memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void listen_consume(struct heard *heard, int stream) {
    fsp_job_consumed(heard->job, stream, heard->held[stream]);
    heard->held[stream] = 0;
}

static void hear_chunks(struct heard *h, struct fsp_chunk *chunk) {
    while (chunk) {
        struct fsp_chunk *next = chunk->next;
        append(&h->all[chunk->stream], chunk->data, chunk->len);
        h->told[chunk->stream] += chunk->len;
        h->held[chunk->stream] += chunk->len;
        h->chunks++;
        free(chunk);
        chunk = next;
    }
    for (int i = 0; i < 2 && !h->hold; i++)
        if (h->held[i]) listen_consume(h, i);
}

static void hear(struct heard *h, struct fsp_news *news) {
    if (h->ended) h->after_end++;
    h->started += news->started;
    h->drained += news->drained;
    hear_chunks(h, news->chunks);
    news->chunks = NULL;
    if (!news->ended) return;
    h->ended++;
    h->outcome = fsp_job_outcome(h->job);
    for (int i = 0; i < 2; i++)
        append(&h->all[i], h->outcome->output[i].data, h->outcome->output[i].len);
}

void listen_once(struct fsp_engine *e, int timeout) {
    struct pollfd readable = {fsp_engine_fd(e), POLLIN, 0};
    if (poll(&readable, 1, timeout) <= 0) return;
    for (struct fsp_job *job = fsp_engine_take(e), *next; job; job = next) {
        next = fsp_job_next(job);
        hear(fsp_job_user(job), fsp_job_news(job));
    }
}

static size_t count_ended(const struct heard *heard, size_t n) {
    size_t ended = 0;
    for (size_t i = 0; i < n; i++) ended += heard[i].ended > 0;
    return ended;
}

bool listen_to_end(struct fsp_engine *e, struct heard *heard, size_t n) {
    return LISTEN_UNTIL(e, count_ended(heard, n) == n);
}

void listen_free(struct heard *heard, size_t n) {
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(heard[i].ended, 1);
        CHECK_INT(heard[i].after_end, 0);
        for (int j = 0; j < 2; j++) free(heard[i].all[j].data);
        if (heard[i].ended) fsp_job_free(heard[i].job);
        heard[i] = (struct heard){.hold = heard[i].hold};
    }
}

void listen_run(struct fsp_spec spec, struct fsp_job_options options, struct heard *heard) {
    struct fsp_engine *e = listen_engine(1);
    listen_submit(e, spec, options, heard);
    CHECK(listen_to_end(e, heard, 1));
    fsp_engine_free(e);
}
