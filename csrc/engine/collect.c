/*
 * collect.c - stdout and stderr of a running child.
 *
 * Bytes are held until the job ends.  Those of a job that was asked to stream are told in chunks
 * as they come, once it has lived for a while or written more than a pipe holds: before that, the
 * chances are that one piece will do.  At most FSP_WINDOW told bytes per stream wait for the
 * caller; then the pipe is left alone, fills up, and the child is slowed by its own writes.
 */
#include "engine.h"

#define READS_PER_TURN 16 /* then the spawner's other children have theirs */

static int reserve(struct fsp_buf *buf, size_t more) {
    size_t need = buf->len + more, cap = buf->cap;
    if (need <= cap) return 0;
    /* The first read of a short-lived child is its whole output: take just that. */
    cap = cap == 0 || need > cap * 2 ? need : cap * 2;
    char *data = sys_realloc(buf->data, cap);
    if (data == NULL) return -ENOMEM;
    buf->data = data;
    buf->cap = cap;
    return 0;
}

static int hold(struct fsp_out *out, const char *data, size_t len) {
    int r = reserve(&out->held, len);
    if (r < 0) return r;
    memcpy(out->held.data + out->held.len, data, len);
    out->held.len += len;
    return 0;
}

static int tell(struct fsp_job *job, int stream, const char *data, size_t len) {
    struct fsp_chunk *chunk = sys_malloc(sizeof *chunk + len);
    if (chunk == NULL) return -ENOMEM;
    *chunk = (struct fsp_chunk){NULL, stream, len};
    memcpy(chunk->data, data, len);
    fsp_job_tell_output(job, chunk);
    return 0;
}

/* The part of len that the cap still allows. */
static size_t capped(const struct fsp_job *job, size_t len) {
    uint64_t max = job->options.limits.max_output;
    if (max == 0) return len;
    uint64_t left = max > job->total_output ? max - job->total_output : 0;
    return len < left ? len : (size_t)left;
}

/* 1: there is more than the cap allows. */
static int deliver(struct fsp_spawner *s, struct fsp_job *job, int stream, size_t len) {
    size_t kept = capped(job, len);
    int more = kept < len, r;
    struct fsp_out *out = &job->out[stream];
    job->total_output += len;
    if (job->exited) out->since_exit += len;
    if (kept == 0) return more;
    bool fits = out->held.len + kept <= FSP_SCRATCH;
    /* The last bytes of a child travel with its end; more than that is someone else's output. */
    bool wait = job->streaming ? job->exited && fits
                               : fits || (job->options.flags & (FSP_JOB_STREAM | FSP_JOB_SPARE)) !=
                                             FSP_JOB_STREAM;
    if (wait) {
        r = hold(out, s->scratch, kept);
    } else {
        r = fsp_out_stream(job);
        if (r == 0) r = tell(job, stream, s->scratch, kept);
    }
    return r < 0 ? r : more;
}

int fsp_out_stream(struct fsp_job *job) {
    job->streaming = true;
    for (int i = 0; i < 2; i++) {
        struct fsp_buf *held = &job->out[i].held;
        if (held->len && tell(job, i, held->data, held->len) < 0) return -ENOMEM;
        held->len = 0;
    }
    return 0;
}

static void unwatch(struct fsp_spawner *s, struct fsp_out *out) {
    if (out->watched) fsp_poller_forget(&s->poller, out->fd, FSP_POLL_IN);
    out->watched = false;
}

void fsp_out_close(struct fsp_spawner *s, struct fsp_job *job, int stream) {
    struct fsp_out *out = &job->out[stream];
    if (out->fd < 0) return;
    unwatch(s, out);
    sys_close(out->fd);
    out->fd = -1;
}

int fsp_out_watch(struct fsp_spawner *s, struct fsp_job *job, int stream) {
    struct fsp_out *out = &job->out[stream];
    if (out->fd < 0 || out->watched) return 0;
    uint64_t token =
        fsp_slots_token(&s->slots, job, stream ? FSP_SOURCE_STDERR : FSP_SOURCE_STDOUT);
    int r = fsp_poller_watch(&s->poller, out->fd, FSP_POLL_IN, token);
    out->watched = r == 0;
    return r;
}

/* What a spare writes before anyone wants it is held within a bound of its own, and so is what
 * others write once it has ended. */
static bool is_full(struct fsp_job *job, int stream) {
    const struct fsp_out *out = &job->out[stream];
    if (job->options.flags & FSP_JOB_SPARE)
        return job->exited ? out->since_exit > FSP_LEFT : out->held.len >= FSP_SCRATCH;
    return job->streaming && !fsp_job_has_room(job, stream);
}

/*
 * A short read means that the pipe was empty; asking again only to hear EAGAIN is left out while
 * the child lives.  After its exit the answer matters: end of file, or someone else's pipe too.
 */
int fsp_out_pump(struct fsp_spawner *s, struct fsp_job *job, int stream) {
    struct fsp_out *out = &job->out[stream];
    int more = 0;
    for (int turn = 0; turn < READS_PER_TURN && out->fd >= 0; turn++) {
        if (is_full(job, stream)) {
            unwatch(s, out);
            break;
        }
        ssize_t n = sys_read(out->fd, s->scratch, FSP_SCRATCH);
        if (n == -EAGAIN) break;
        if (n <= 0) {
            fsp_out_close(s, job, stream);
            break;
        }
        int r = deliver(s, job, stream, (size_t)n);
        if (r < 0) return r;
        more |= r;
        if (n < FSP_SCRATCH && !job->exited) break;
    }
    return more;
}
