/*
 * worker.c - the built-in worker of fastspawn.ResettablePool: a program of its own.
 *
 * It runs one command at a time for whoever holds its stdin and stdout, and resets by killing it:
 * when the command has ended, so has everything in its process group, and its pipes are closed
 * before the next one is accepted.  docs/strategies.md has the protocol: frames of a kind, a
 * length (4 bytes, big-endian) and as many bytes.
 *
 * stdout is written blockingly: a reader that is slow slows the command.  The end of stdin is the
 * end of the worker, and of the command that it runs.
 */
#include "spawn/internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAME_MAX (4u << 20)
#define HEADER    5
#define CHUNK     65536
#define FLUSH_AT  (1u << 17)
#define PIPE_MOST (1 << 20) /* where nobody tells what a pipe holds */

struct bytes {
    char *data;
    size_t len, cap;
};

/* The command that runs. */
static struct {
    struct fsp_child child; /* pid 0: none */
    int in, out[2];         /* our ends; -1: none, or closed */
    struct bytes input;     /* what stdin still gets, from `fed` on */
    size_t fed;
    bool eof;
} run = {
    .in = -1, .out = {-1, -1}
};

static struct bytes incoming, outgoing;
static int woken[2];
static volatile sig_atomic_t unheard; /* a command ended, and nothing woke us */

static void leave(int status) __attribute__((noreturn));
static void leave(int status) {
    struct fsp_status ignored;
    if (run.child.pid > 0) {
        fsp_kill(&run.child, 1, SIGKILL);
        fsp_wait(&run.child, 1, &ignored);
    }
    _exit(status);
}

static void reserve(struct bytes *b, size_t more) {
    if (b->len + more <= b->cap) return;
    size_t cap = b->cap * 2 > b->len + more ? b->cap * 2 : b->len + more;
    char *data = sys_realloc(b->data, cap);
    if (data == NULL) leave(3);
    b->data = data;
    b->cap = cap;
}

static void append(struct bytes *b, const void *data, size_t len) {
    reserve(b, len);
    if (len) memcpy(b->data + b->len, data, len);
    b->len += len;
}

/* ---- frames out ---- */

static void flush(void) {
    for (size_t at = 0; at < outgoing.len;) {
        ssize_t n = sys_write(STDOUT_FILENO, outgoing.data + at, outgoing.len - at);
        if (n < 0) leave(0); /* nobody is left to tell */
        at += (size_t)n;
    }
    outgoing.len = 0;
}

static void tell(char kind, const void *payload, size_t len) {
    unsigned char header[HEADER] = {(unsigned char)kind, (unsigned char)(len >> 24),
                                    (unsigned char)(len >> 16), (unsigned char)(len >> 8),
                                    (unsigned char)len};
    append(&outgoing, header, sizeof header);
    append(&outgoing, payload, len);
    if (outgoing.len >= FLUSH_AT) flush();
}

static void tell_number(char kind, long number) {
    char text[24];
    tell(kind, text, (size_t)snprintf(text, sizeof text, "%ld", number));
}

/* ---- the command ---- */

static void close_fd(int *fd) {
    sys_close(*fd);
    *fd = -1;
}

/* One read; 0 when there is nothing more, now or ever.  What cannot be read is not left out of an
 * answer: there is none. */
static size_t pump(int i) {
    static char chunk[CHUNK];
    if (run.out[i] < 0) return 0;
    ssize_t n = sys_read(run.out[i], chunk, sizeof chunk);
    if (n == -EAGAIN) return 0;
    if (n < 0) leave(3);
    if (n == 0)
        close_fd(&run.out[i]);
    else
        tell(i ? 'E' : 'O', chunk, (size_t)n);
    return (size_t)n;
}

/* What nobody reads any more counts as taken, so that the sender goes on. */
static void feed(void) {
    size_t left = run.input.len - run.fed;
    if (left && run.in >= 0) {
        ssize_t n = sys_write(run.in, run.input.data + run.fed, left);
        if (n == -EAGAIN) return;
        if (n < 0 && n != -EPIPE) leave(3);
        if (n < 0)
            close_fd(&run.in);
        else
            left = (size_t)n;
    }
    if (left) tell_number('C', (long)left);
    run.fed += left;
    if (run.fed == run.input.len) {
        run.fed = run.input.len = 0;
        if (run.eof) close_fd(&run.in);
    }
}

/* What was written by now, which is no more than the pipe holds: whoever has left the group may
 * write to it without end. */
static void drain(int i) {
    long left = run.out[i] < 0 ? 0 : sys_pipe_size(run.out[i]);
    if (left < 0) left = PIPE_MOST;
    for (size_t n; left > 0 && (n = pump(i)) > 0;) left -= (long)n;
    close_fd(&run.out[i]);
}

/* Its group goes before it is reaped, while the number is still its own; then what was written by
 * then is in the pipes. */
static void finish(void) {
    struct fsp_status status;
    fsp_kill(&run.child, 1, SIGKILL);
    for (int i = 0; i < 2; i++) drain(i);
    close_fd(&run.in);
    if (fsp_wait(&run.child, 1, &status) < 0) status.lost = 1;
    run.child = (struct fsp_child){0, -1};
    tell_number('X', status.lost ? 255 : status.code);
}

/* ---- the request ---- */

/* The strings of a payload, which are separated by NULs. */
static char **split(char *text, size_t len, size_t *count) {
    size_t n = 1;
    for (size_t i = 0; i < len; i++) n += text[i] == 0;
    char **strings = sys_malloc((n + 2) * sizeof *strings);
    if (strings == NULL) leave(3);
    char *at = text;
    for (size_t i = 0; i < n; i++, at += strlen(at) + 1) strings[i] = at;
    strings[n] = NULL;
    *count = n;
    return strings;
}

static const char *search(char *const *env) {
    for (; *env; env++)
        if (strncmp(*env, "PATH=", 5) == 0) return *env + 5;
    return "/bin:/usr/bin"; /* os.defpath */
}

/* 0, or -errno with nothing left open but what is in `run` (which finish() or fail() closes). */
static int start(const struct fsp_plan *plan, const char *in, const char *err) {
    struct fsp_pipes none = {0};
    struct fsp_error error = {0};
    int p[3][2] =
        {
            {-1, -1},
            {-1, -1},
            {-1, -1}
    },
        theirs[3], r = 0, null = -1;
    bool feeds = strcmp(in, "pipe") == 0, splits = strcmp(err, "pipe") == 0;
    if (!feeds || strcmp(err, "discard") == 0) r = null = sys_open("/dev/null", O_RDWR);
    if (r >= 0) r = fsp_pipes_take(&none, (bool[3]){feeds, true, splits}, p);
    theirs[0] = feeds ? p[0][0] : null;
    theirs[1] = p[1][1];
    theirs[2] = splits                        ? p[2][1]
                : strcmp(err, "discard") == 0 ? null
                : strcmp(err, "merge") == 0   ? p[1][1]
                                              : STDERR_FILENO;
    run.in = p[0][1];
    run.out[0] = p[1][0];
    run.out[1] = p[2][0];
    if (r >= 0) {
        struct fsp_stdio io = {
            {theirs[0], theirs[1], theirs[2]}
        };
        r = fsp_spawn(plan, &io, 0, NULL, &run.child, &error);
    }
    close_fd(&p[0][0]);
    close_fd(&p[1][1]);
    close_fd(&p[2][1]);
    close_fd(&null);
    return r;
}

/* stderr, stdin, cwd, the number of arguments, the arguments, the environment. */
static void request(const char *payload, size_t len) {
    char *text = sys_malloc(len + 1);
    if (text == NULL) leave(3);
    memcpy(text, payload, len);
    text[len] = 0;
    size_t count, nargs;
    char **field = split(text, len, &count);
    if (run.child.pid || count < 5 || (nargs = strtoul(field[3], NULL, 10)) < 1 ||
        nargs > count - 4)
        leave(2);
    const char *err = field[0], *in = field[1], *cwd = field[2];
    memmove(field, field + 4, nargs * sizeof *field); /* room for the NULL behind */
    char **env = field + 4 + nargs;
    field[nargs] = NULL;
    struct fsp_spec spec = {
        .file = field[0],
        .argv = (const char *const *)field,
        .envp = (const char *const *)env,
        .search = search(env),
        .cwd = *cwd ? cwd : NULL,
        .uid = FSP_ID_NONE,
        .gid = FSP_ID_NONE,
        .umask = -1,
#ifdef __linux__
        .death_signal = SIGKILL,
#endif
        .flags = FSP_FLAG_CLOSE_FDS | FSP_FLAG_RESTORE_SIGNALS | FSP_FLAG_SETPGROUP,
    };
    struct fsp_plan *plan = NULL;
    run.input.len = run.fed = 0;
    run.eof = strcmp(in, "pipe") != 0;
    int r = fsp_plan_new(&spec, &plan);
    if (r == 0) r = start(plan, in, err);
    if (unheard) leave(3);
    fsp_plan_unref(plan);
    free(field);
    free(text);
    if (r == 0) {
        tell_number('S', run.child.pid);
        return;
    }
    run.child = (struct fsp_child){0, -1};
    close_fd(&run.in);
    for (int i = 0; i < 2; i++) close_fd(&run.out[i]);
    tell_number('F', -r);
}

static void signal_group(const char *payload, size_t len) {
    char text[8] = {0};
    if (len >= sizeof text) leave(2);
    memcpy(text, payload, len);
    fsp_kill(&run.child, 1, atoi(text));
    fsp_kill(&run.child, 1, SIGCONT); /* one that is stopped hears it, too */
}

/* Of a request that is over there may still be some on the way: without a command it is nothing. */
static void obey(char kind, const char *payload, size_t len) {
    if (kind == 'R')
        request(payload, len);
    else if (kind == 'I' && run.child.pid) {
        append(&run.input, payload, len);
        run.eof |= len == 0;
        feed();
    } else if (kind == 'K' && run.child.pid)
        signal_group(payload, len);
    else if (kind != 'I' && kind != 'K')
        leave(2);
}

static void take(void) {
    reserve(&incoming, CHUNK);
    ssize_t n = sys_read(STDIN_FILENO, incoming.data + incoming.len, incoming.cap - incoming.len);
    if (n == -EAGAIN) return;
    if (n <= 0) leave(0);
    incoming.len += (size_t)n;
    size_t at = 0;
    while (incoming.len - at >= HEADER) {
        const unsigned char *h = (const unsigned char *)incoming.data + at;
        size_t len = (size_t)h[1] << 24 | (size_t)h[2] << 16 | (size_t)h[3] << 8 | h[4];
        if (len > FRAME_MAX) leave(2);
        if (incoming.len - at - HEADER < len) break;
        obey((char)h[0], incoming.data + at + HEADER, len);
        at += HEADER + len;
    }
    memmove(incoming.data, incoming.data + at, incoming.len - at);
    incoming.len -= at;
}

static void on_child(int sig) {
    int before = errno;
    long n = FSP_CALL("wake", write(woken[1], "", 1));
    bool wakes = n >= 0 || n == -EAGAIN; /* full: it will all the same */
    /* One that ends while it is started is not known yet: it would not go with us. */
    if (!wakes && run.child.pid > 0) leave(3);
    unheard |= !wakes;
    (void)sig;
    errno = before;
}

static void set_up(void) {
    struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART | SA_NOCLDSTOP};
    if (sys_pipe(woken) < 0 || sys_nonblock(woken[0]) < 0 || sys_nonblock(woken[1]) < 0) leave(3);
    signal(SIGPIPE, SIG_IGN);
    if (FSP_CALL("sigaction", sigaction(SIGCHLD, &action, NULL)) < 0) leave(3);
    run.child.pidfd = -1;
    tell('H', "1", 1);
}

int main(void) {
    set_up();
    for (;;) {
        char drop[64];
        bool pending = run.in >= 0 && run.input.len > run.fed;
        struct pollfd p[] = {
            {STDIN_FILENO,          POLLIN,  0},
            {woken[0],              POLLIN,  0},
            {run.out[0],            POLLIN,  0}, /* a negative number is skipped */
            {run.out[1],            POLLIN,  0},
            {pending ? run.in : -1, POLLOUT, 0},
        };
        flush();
        long n = FSP_CALL("poll", poll(p, 5, -1));
        if (n < 0 && n != -EINTR) leave(3);
        if (n < 0) continue;
        for (int i = 0; i < 2; i++)
            if (p[2 + i].revents) pump(i);
        if (p[4].revents) feed();
        if (p[1].revents) {
            while (sys_read(woken[0], drop, sizeof drop) > 0) continue;
            if (run.child.pid && fsp_has_exited(&run.child)) finish();
        }
        if (p[0].revents) take();
    }
}
