/*
 * feed.c - stdin of a running child.
 *
 * The pipe is written without blocking and watched only while it is full.  A child that does not
 * read is no error: its EPIPE drops what is left, as communicate() does.
 */
#include "engine.h"

void fsp_in_init(struct fsp_job *job) {
    struct fsp_in *in = &job->in;
    in->fd = -1;
    in->last = &in->first;
    in->eof = !(job->options.flags & FSP_JOB_FEED);
    if (job->options.input_len) {
        in->input = (struct fsp_feed){NULL, job->options.input, job->options.input_len};
        in->first = &in->input;
        in->last = &in->input.next;
    }
}

void fsp_in_append(struct fsp_job *job, struct fsp_feed *feed) {
    struct fsp_in *in = &job->in;
    if (feed == NULL) return;
    *in->last = feed;
    while (feed->next) feed = feed->next;
    in->last = &feed->next;
}

static void drop_first(struct fsp_in *in) {
    struct fsp_feed *feed = in->first;
    in->first = feed->next;
    if (in->first == NULL) in->last = &in->first;
    if (feed != &in->input) free(feed);
}

static void unwatch(struct fsp_spawner *s, struct fsp_in *in) {
    if (in->watched) fsp_poller_forget(&s->poller, in->fd, FSP_POLL_OUT);
    in->watched = false;
}

static void watch(struct fsp_spawner *s, struct fsp_job *job) {
    uint64_t token = fsp_slots_token(&s->slots, job, FSP_SOURCE_STDIN);
    job->in.watched = fsp_poller_watch(&s->poller, job->in.fd, FSP_POLL_OUT, token) == 0;
    if (!job->in.watched) fsp_job_set_due(s, job, FSP_DUE_POLL, sys_now() + FSP_HOLD_NS);
}

/* What cannot be written any more counts as written: a writer that waits must go on. */
void fsp_in_close(struct fsp_spawner *s, struct fsp_job *job) {
    struct fsp_in *in = &job->in;
    size_t dropped = 0;
    if (in->fd >= 0) {
        unwatch(s, in);
        sys_close(in->fd);
        in->fd = -1;
    }
    while (in->first) {
        if (in->first != &in->input) dropped += in->first->len;
        drop_first(in);
    }
    if (dropped) fsp_job_tell_fed(job, dropped);
}

void fsp_in_pump(struct fsp_spawner *s, struct fsp_job *job) {
    struct fsp_in *in = &job->in;
    if (job->options.flags & FSP_JOB_SPARE) return; /* what came was for one that lives */
    size_t written = 0;
    while (in->fd >= 0 && in->first) {
        struct fsp_feed *feed = in->first;
        ssize_t n = sys_write(in->fd, feed->data, feed->len);
        if (n == -EAGAIN) break;
        if (n < 0) {
            in->eof = true;
            fsp_in_close(s, job);
            break;
        }
        if (feed != &in->input) written += (size_t)n;
        feed->data += n;
        feed->len -= (size_t)n;
        if (feed->len == 0) drop_first(in);
    }
    if (written) fsp_job_tell_fed(job, written);
    if (in->first == NULL && in->eof) fsp_in_close(s, job);
    if (in->fd < 0) {
        fsp_in_close(s, job);
        return;
    }
    if (in->first == NULL)
        unwatch(s, in);
    else if (!in->watched)
        watch(s, job);
}
