/*
 * feed.c - stdin of a running child.
 *
 * The pipe is written without blocking and watched only while it is full.  A child that does not
 * read is no error: its EPIPE drops what is left, as communicate() does.
 *
 * A child that is lent may turn out not to have begun.  So what it is given is kept, until more
 * was written than a pipe holds: some of it was read then.
 */
#include "engine.h"

#define PIPE_HOLDS (64 * 1024) /* at most: pipe(7) */

void fsp_in_init(struct fsp_job *job) {
    struct fsp_in *in = &job->in;
    in->fd = -1;
    in->last = &in->first;
    in->written_last = &in->written;
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
    if (in->keeps) {
        feed->next = NULL;
        *in->written_last = feed;
        in->written_last = &feed->next;
    } else if (feed != &in->input)
        free(feed);
}

static void unwatch(struct fsp_spawner *s, struct fsp_in *in) {
    if (in->watched) fsp_poller_forget(&s->poller, in->fd, FSP_POLL_OUT);
    in->watched = false;
}

/* ---- what may be needed again ---- */

void fsp_in_keep(struct fsp_job *job) {
    job->in.keeps = job->in.fd >= 0;
}

void fsp_in_release(struct fsp_job *job) {
    struct fsp_in *in = &job->in;
    in->keeps = false;
    for (struct fsp_feed *feed; (feed = in->written);) {
        in->written = feed->next;
        if (feed != &in->input) free(feed);
    }
    in->written_last = &in->written;
}

static void rewind_feed(struct fsp_job *job, struct fsp_feed *feed) {
    const char *start = feed == &job->in.input ? job->options.input : (const char *)(feed + 1);
    feed->len += (size_t)(feed->data - start);
    feed->data = start;
}

void fsp_in_again(struct fsp_spawner *s, struct fsp_job *job) {
    struct fsp_in *in = &job->in;
    unwatch(s, in);
    sys_close(in->fd);
    in->fd = -1;
    *in->written_last = in->first;
    if (in->first == NULL) in->last = in->written ? in->written_last : &in->first;
    in->first = in->written;
    for (struct fsp_feed *feed = in->first; feed; feed = feed->next) rewind_feed(job, feed);
    in->eof = !(job->options.flags & FSP_JOB_FEED); /* else the mail says so again */
    fsp_job_untell_fed(job, in->counted);
    in->written = NULL;
    in->written_last = &in->written;
    in->sent = in->counted = 0;
    in->keeps = false;
}

/* ---- the pipe ---- */

static int watch(struct fsp_spawner *s, struct fsp_job *job) {
    uint64_t token = fsp_slots_token(&s->slots, job, FSP_SOURCE_STDIN);
    int r = fsp_poller_watch(&s->poller, job->in.fd, FSP_POLL_OUT, token);
    job->in.watched = r == 0;
    return r;
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
    if (in->keeps) in->counted += dropped;
    if (dropped) fsp_job_tell_fed(job, dropped);
}

static void note_sent(struct fsp_job *job, size_t sent, size_t counted) {
    struct fsp_in *in = &job->in;
    in->sent += sent;
    in->counted += counted;
    if (in->sent > PIPE_HOLDS) fsp_in_release(job);
}

int fsp_in_pump(struct fsp_spawner *s, struct fsp_job *job) {
    struct fsp_in *in = &job->in;
    if (job->options.flags & FSP_JOB_SPARE) return 0; /* what came was for one that lives */
    size_t written = 0, sent = 0;
    while (in->fd >= 0 && in->first) {
        struct fsp_feed *feed = in->first;
        ssize_t n = sys_write(in->fd, feed->data, feed->len);
        if (n == -EAGAIN) break;
        if (n < 0) {
            in->eof = true;
            fsp_in_close(s, job);
            break;
        }
        sent += (size_t)n;
        if (feed != &in->input) written += (size_t)n;
        feed->data += n;
        feed->len -= (size_t)n;
        if (feed->len == 0) drop_first(in);
    }
    if (in->keeps) note_sent(job, sent, written);
    if (written) fsp_job_tell_fed(job, written);
    if (in->first == NULL && in->eof) fsp_in_close(s, job);
    if (in->fd < 0) {
        fsp_in_close(s, job);
        return 0;
    }
    if (in->first && !in->watched) return watch(s, job);
    if (in->first == NULL) unwatch(s, in);
    return 0;
}
