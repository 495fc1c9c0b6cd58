/*
 * talk.c - one child on the calling thread: its pipes, its input and output, its end.
 *
 * What subprocess.run does, without going back to the caller for each event.
 *
 * What costs is to sleep and to be woken, beside the clone itself.  So the child is detached, where
 * a copy of the table is cheap, and most children get by with two wake-ups: one for the first they
 * write, which is all they write, and one for their exit, after which the pipes are at their end.
 * After a few of those the next one's exit is waited for at once; should it fill a pipe instead it
 * waits for us, once, for a tick at most.  Waiting for the exit while a pipe may fill takes a
 * timer; one that is later than the next tick is next to free, one that is earlier costs more than
 * a wake-up.
 *
 * Signals are the caller's: a wait that one interrupts returns, with all that came so far kept.
 * One that comes between two waits must not be missed, so they are blocked there.
 * Only ends that nobody else has are made non-blocking, since that is a property of the open
 * file; an end that is read is read after poll(2) told that something is there.
 */
#include "internal.h"

#include <poll.h>

#define FIRST_READ 16384 /* bytes; doubled from there */

/* With descriptors from here on the table is not worth a copy. */
#define COPY_BELOW 64

/* A child whose first output is no longer than this is taken to have said all, for a tick or so. */
#define SHORT   4096    /* bytes */
#define SURE    8       /* children in a row that had: the next one's exit is waited for first */
#define TICK_NS 4000000 /* 250 Hz, as most kernels have it */

/* Where there are no pidfds: between two looks, from and to (ns). */
#define NAP_FIRST 1000000
#define NAP_MAX   50000000

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

static int spawn(struct fsp_talk *talk, struct fsp_plan *plan, const struct fsp_stdio *io,
                 struct fsp_error *error) {
    struct fsp_pad *pad = fsp_pad_get();
    if (pad == NULL) {
        *error = (struct fsp_error){ENOMEM, FSP_STAGE_PREPARE, -1};
        return -ENOMEM;
    }
    unsigned flags = fsp_highest(plan, io) < COPY_BELOW ? FSP_SPAWN_DETACHED : 0;
    int r = fsp_spawn_on(pad, plan, io, flags, NULL, &talk->child, error);
    if (r == 0 && pad->launch.detached) {
        talk->pad = pad;
        talk->plan = fsp_plan_ref(plan);
    } else {
        fsp_pad_put(pad);
    }
    return r;
}

int fsp_talk_start(struct fsp_plan *plan, const enum fsp_io how[3], const void *input,
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
        r = spawn(talk, plan, &io, error);
    close_childs(talk, &io, null);
    if (r < 0) close_ends(talk);
    return r;
}

/* The child has ended, or is waited for until it has left our memory: what did it say? */
static struct fsp_error settle(struct fsp_talk *talk) {
    struct fsp_pad *pad = talk->pad;
    if (pad == NULL) return (struct fsp_error){0};
    if (talk->child.pid > 0) fsp_pad_wait(pad);
    struct fsp_error error = {pad->error.err, pad->error.stage, pad->error.index};
    fsp_pad_put(pad);
    fsp_plan_unref(talk->plan);
    talk->pad = NULL;
    talk->plan = NULL;
    return error;
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

/* How a talk waits: until when, and with which signals let through. */
struct pause {
    uint64_t deadline, mask;
};

#define EVER UINT64_MAX

static uint64_t left(uint64_t deadline) {
    uint64_t now;
    if (deadline == EVER) return EVER;
    now = sys_now();
    return deadline > now ? deadline - now : 0;
}

/* For at most `ns`: the number of descriptors with news, 0, -EINTR, or another error. */
#ifdef __linux__

/* Signals are let through only inside the call, which one that came before it ends at once. */
static int sys_poll(struct pollfd *fds, nfds_t n, uint64_t ns, const struct pause *wait) {
    struct {
        long sec, nsec;
    } time = {(long)(ns / 1000000000), (long)(ns % 1000000000)};
    return (int)FSP_CALL("poll", syscall(SYS_ppoll, fds, n, ns == EVER ? NULL : &time, &wait->mask,
                                         sizeof wait->mask));
}

static void begin(struct pause *wait) {
    const uint64_t all = ~(uint64_t)0;
    sys_sigmask(&all, &wait->mask);
}

static void end(const struct pause *wait) {
    sys_sigmask(&wait->mask, NULL);
}

#define KEEPS_SIGNALS true

#else

static int sys_poll(struct pollfd *fds, nfds_t n, uint64_t ns, const struct pause *wait) {
    uint64_t ms = ns / 1000000 + (ns % 1000000 != 0);
    (void)wait;
    return (int)FSP_CALL("poll", poll(fds, n, ns == EVER ? -1 : ms > INT_MAX ? INT_MAX : (int)ms));
}

static void begin(struct pause *wait) {
    (void)wait;
}

static void end(const struct pause *wait) {
    (void)wait;
}

/* A signal may have come with the news: back to the caller after each wait. */
#define KEEPS_SIGNALS false

#endif

static bool is_open(const struct fsp_talk *talk) {
    return talk->fd[0] >= 0 || talk->fd[1] >= 0 || talk->fd[2] >= 0;
}

/* One wait for any of the pipes, and what it brought: 1, 0 at the deadline, -errno. */
static int pump(struct fsp_talk *talk, const struct pause *wait) {
    struct pollfd fds[3];
    for (int i = 0; i < 3; i++) fds[i] = (struct pollfd){talk->fd[i], i ? POLLIN : POLLOUT, 0};
    int r = sys_poll(fds, 3, left(wait->deadline), wait);
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

/* Without a pidfd the exit can only be looked for, now and then. */
static int wait_for_exit(const struct fsp_talk *talk, uint64_t *nap, const struct pause *wait) {
    struct pollfd fd = {talk->child.pidfd, POLLIN, 0};
    uint64_t ns = left(wait->deadline);
    if (ns == 0) return 0;
    if (fd.fd >= 0) return sys_poll(&fd, 1, ns, wait);
    int r = sys_poll(NULL, 0, ns < *nap ? ns : *nap, wait);
    *nap = *nap * 2 > NAP_MAX ? NAP_MAX : *nap * 2;
    return r < 0 ? r : 1;
}

/* `look`: the pipes have just come to their end, so the child has, too, most likely. */
static int reap(struct fsp_talk *talk, bool look, const struct pause *wait) {
    uint64_t nap = NAP_FIRST;
    int r = 0;
    for (;;) {
        if (look) r = fsp_wait(&talk->child, 0, &talk->status);
        if (r != 0) return r;
        look = true;
        r = wait_for_exit(talk, &nap, wait);
        if (r <= 0) return r;
    }
}

static size_t came(const struct fsp_talk *talk) {
    return talk->output[0].len + talk->output[1].len;
}

/* So many children in a row exited when they were expected to. */
static unsigned brief;

/* It wrote a little: will it exit now?  As pump(), but 1 when the time is up. */
static int await_exit(const struct fsp_talk *talk, const struct pause *wait) {
    struct pollfd fd = {talk->child.pidfd, POLLIN, 0};
    uint64_t ns = left(wait->deadline);
    int r = sys_poll(&fd, 1, ns < TICK_NS ? ns : TICK_NS, wait);
    unsigned seen = __atomic_load_n(&brief, __ATOMIC_RELAXED);
    __atomic_store_n(&brief, r <= 0 ? 0 : seen < SURE ? seen + 1 : seen, __ATOMIC_RELAXED);
    return r < 0 ? r : 1;
}

static int talk_on(struct fsp_talk *talk, const struct pause *wait) {
    bool look = is_open(talk) || left(wait->deadline) == 0;
    if (talk->fd[0] >= 0) feed(talk);
    bool patient = talk->child.pidfd >= 0 && talk->fd[0] < 0;
    if (patient && is_open(talk) && __atomic_load_n(&brief, __ATOMIC_RELAXED) == SURE) {
        int r = await_exit(talk, wait);
        if (r < 0) return r;
        patient = false;
    }
    while (is_open(talk)) {
        int r = pump(talk, wait);
        if (r > 0 && patient && came(talk) < SHORT) r = await_exit(talk, wait);
        patient = false;
        if (r < 0) return r;
        /* A child that never stops to write would keep the poll from ever coming late. */
        if (r == 0 || left(wait->deadline) == 0) return 0;
        if (!KEEPS_SIGNALS) return -EINTR;
    }
    return reap(talk, look, wait);
}

int fsp_talk(struct fsp_talk *talk, uint64_t deadline, struct fsp_error *error) {
    struct pause wait = {.deadline = deadline};
    begin(&wait);
    int r = talk_on(talk, &wait);
    end(&wait);
    *error = settle(talk);
    if (error->err == 0 || r == 1) return r;
    close_ends(talk);
    fsp_wait(&talk->child, 1, &talk->status);
    return 1;
}

void fsp_talk_end(struct fsp_talk *talk) {
    settle(talk);
    close_ends(talk);
    for (int i = 0; i < 2; i++) {
        free(talk->output[i].data);
        talk->output[i] = (struct fsp_buf){0};
    }
}
