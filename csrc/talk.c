/*
 * talk.c - one child on the calling thread: its pipes, its input and output, its end.
 *
 * What subprocess.run does, without going back to the caller for each event.  Most children are
 * short: they write a little and are gone.  So for the first moment only their exit is waited
 * for, after which everything is in the pipes; a child that lives on is then read as it writes.
 * One that fills its pipe at once waits for that moment, no longer.
 *
 * Signals are the caller's: a wait that one interrupts returns, with all that came so far kept.
 * Only ends that nobody else has are made non-blocking, since that is a property of the open
 * file; an end that is read is read after poll(2) told that something is there.
 */
#include "internal.h"

#include <poll.h>

#define PATIENCE   1000000 /* ns for which only the exit is waited for */
#define FIRST_READ 16384   /* bytes; doubled from there */

/* Where there are no pidfds: between two looks, from and to (ms). */
#define NAP_FIRST 1
#define NAP_MAX   50

/* ---- start ---- */

static void close_ends(struct fsp_talk *talk) {
    for (int i = 0; i < 3; i++) {
        sys_close(talk->fd[i]);
        talk->fd[i] = -1;
    }
}

/* One /dev/null for all, which the child gets; the caller closes it. */
static int open_null(int *null) {
    if (*null < 0) *null = sys_open("/dev/null", O_RDWR);
    return *null;
}

/* The child's end of stream i, or -1 for its parent's own, or -errno. */
static int open_end(struct fsp_talk *talk, int i, enum fsp_io how, int *null, int *end) {
    int fd[2], r = 0;
    *end = -1;
    if (how == FSP_IO_NULL) {
        r = *end = open_null(null);
        return r < 0 ? r : 0;
    }
    if (how != FSP_IO_PIPE) return 0;
    r = i == 0 ? fsp_pipe_to_child(fd) : sys_pipe(fd);
    if (r < 0) return r;
    *end = i == 0 ? fd[0] : fd[1];
    talk->fd[i] = i == 0 ? fd[1] : fd[0];
    return 0;
}

static int open_ends(struct fsp_talk *talk, const enum fsp_io how[3], int *null,
                     struct fsp_stdio *io) {
    int r = 0;
    for (int i = 0; r == 0 && i < 3; i++) r = open_end(talk, i, how[i], null, &io->fd[i]);
    if (r == 0 && how[2] == FSP_IO_STDOUT) {
        io->fd[2] = io->fd[1];
        if (io->fd[1] < 0) r = -EINVAL;
    }
    return r;
}

static void close_childs(const struct fsp_talk *talk, const struct fsp_stdio *io, int null) {
    for (int i = 0; i < 3; i++)
        if (talk->fd[i] >= 0) sys_close(io->fd[i]);
    sys_close(null);
}

int fsp_talk_start(const struct fsp_plan *plan, const enum fsp_io how[3], const void *input,
                   size_t input_len, struct fsp_talk *talk, struct fsp_error *error) {
    struct fsp_stdio io = {
        {-1, -1, -1}
    };
    int null = -1;
    *talk = (struct fsp_talk){
        .child = {-1, -1},
          .fd = {-1, -1, -1},
          .input = input, .input_len = input_len
    };
    int r = open_ends(talk, how, &null, &io);
    if (r < 0)
        *error = (struct fsp_error){-r, FSP_STAGE_PREPARE, -1};
    else
        r = fsp_spawn(plan, &io, 0, NULL, &talk->child, error);
    close_childs(talk, &io, null);
    if (r < 0) close_ends(talk);
    talk->patience = r < 0 ? 0 : sys_now() + PATIENCE;
    return r;
}

/* ---- feed and collect ---- */

static void close_end(struct fsp_talk *talk, int i) {
    sys_close(talk->fd[i]);
    talk->fd[i] = -1;
}

/* A child that does not read is no error: what is left for it is dropped. */
static void feed(struct fsp_talk *talk) {
    while (talk->input_len) {
        ssize_t n = sys_write(talk->fd[0], talk->input, talk->input_len);
        if (n == -EAGAIN) return;
        if (n < 0) break;
        talk->input += n;
        talk->input_len -= (size_t)n;
    }
    close_end(talk, 0);
}

static int make_room(struct fsp_buf *buf) {
    if (buf->cap - buf->len >= FIRST_READ) return 0;
    size_t cap = buf->cap ? buf->cap * 2 : FIRST_READ;
    char *data = sys_realloc(buf->data, cap);
    if (data == NULL) return -ENOMEM;
    buf->data = data;
    buf->cap = cap;
    return 0;
}

/* One read, which does not wait: poll said so.  `last`: no writer is left, so a short read has
 * brought all there was. */
static int collect(struct fsp_talk *talk, int stream, bool last) {
    struct fsp_buf *buf = &talk->output[stream - 1];
    int r = make_room(buf);
    if (r < 0) return r;
    size_t room = buf->cap - buf->len;
    ssize_t n = sys_read(talk->fd[stream], buf->data + buf->len, room);
    if (n == -EAGAIN) return 0;
    if (n > 0) buf->len += (size_t)n;
    if (n <= 0 || (last && (size_t)n < room)) close_end(talk, stream);
    return n < 0 ? (int)n : 0;
}

/* ---- wait ---- */

/* Rounded up, so that who waits for a deadline does not come early and wait again. */
static int milliseconds(uint64_t until) {
    if (until == UINT64_MAX) return -1;
    uint64_t now = sys_now();
    if (until <= now) return 0;
    uint64_t ms = (until - now) / 1000000 + ((until - now) % 1000000 != 0);
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

static int sys_poll(struct pollfd *fds, nfds_t n, int timeout) {
    return (int)FSP_CALL("poll", poll(fds, n, timeout));
}

static int wait_for_exit(const struct fsp_talk *talk, uint64_t until) {
    struct pollfd fd = {talk->child.pidfd, POLLIN, 0};
    return sys_poll(&fd, 1, milliseconds(until));
}

static bool is_open(const struct fsp_talk *talk) {
    return talk->fd[0] >= 0 || talk->fd[1] >= 0 || talk->fd[2] >= 0;
}

/* One wait for any of the pipes, and what it brought: 1, 0 at the deadline, -errno. */
static int pump(struct fsp_talk *talk, uint64_t deadline) {
    struct pollfd fds[3];
    for (int i = 0; i < 3; i++) fds[i] = (struct pollfd){talk->fd[i], i ? POLLIN : POLLOUT, 0};
    int r = sys_poll(fds, 3, milliseconds(deadline));
    if (r <= 0) return r;
    if (fds[0].revents) feed(talk);
    for (int i = 1; i < 3; i++) {
        short got = fds[i].revents;
        if (got == POLLHUP) {
            close_end(talk, i);
        } else if (got) {
            r = collect(talk, i, got & POLLHUP);
            if (r < 0) return r;
        }
    }
    return 1;
}

/* Without a pidfd the exit can only be looked for. */
static int nap(int *ms, uint64_t deadline) {
    int left = milliseconds(deadline);
    if (left == 0) return 0;
    int r = sys_poll(NULL, 0, left > 0 && left < *ms ? left : *ms);
    *ms = *ms * 2 > NAP_MAX ? NAP_MAX : *ms * 2;
    return r < 0 ? r : 1;
}

static int reap(struct fsp_talk *talk, uint64_t deadline) {
    int ms = NAP_FIRST;
    for (;;) {
        int r = fsp_wait(&talk->child, 0, &talk->status);
        if (r != 0) return r;
        r = talk->child.pidfd >= 0 ? wait_for_exit(talk, deadline) : nap(&ms, deadline);
        if (r <= 0) return r;
    }
}

/* The first moment: most children are gone before it is over. */
static int be_patient(struct fsp_talk *talk, uint64_t deadline) {
    if (talk->fd[0] >= 0) feed(talk);
    bool wait = talk->patience && talk->child.pidfd >= 0 && talk->fd[0] < 0;
    uint64_t until = talk->patience < deadline ? talk->patience : deadline;
    int r = wait ? wait_for_exit(talk, until) : 0;
    if (r >= 0) talk->patience = 0;
    return r < 0 ? r : 0;
}

int fsp_talk(struct fsp_talk *talk, uint64_t deadline) {
    int r = be_patient(talk, deadline);
    while (r >= 0 && is_open(talk)) {
        r = pump(talk, deadline);
        /* A child that never stops to write would keep the poll from ever coming late. */
        if (r == 0 || (r > 0 && milliseconds(deadline) == 0)) return 0;
    }
    return r < 0 ? r : reap(talk, deadline);
}

void fsp_talk_end(struct fsp_talk *talk) {
    close_ends(talk);
    for (int i = 0; i < 2; i++) {
        free(talk->output[i].data);
        talk->output[i] = (struct fsp_buf){0};
    }
}
