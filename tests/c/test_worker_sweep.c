/*
 * test_worker_sweep.c - the worker of a pool (csrc/worker/worker.c) where a call of its own is
 * refused: each place there that makes one, once and for good (sweep.h, far.h).
 *
 * Whatever is refused, a request is answered as it should be, or with the error that was refused,
 * or the worker ends and has said no more: nothing of its command is left, and the next request
 * has its answer, from it or from another worker.
 */
#include "sweep.h"
#include "tap.h"

#ifdef __linux__
#include <libgen.h>
#include <stdio.h>
#include <sys/prctl.h>

#define MUCH 60000 /* of input: no more than may be on its way */

struct request {
    const char *err, *in; /* as the protocol has them (docs/strategies.md) */
    const char *file, *script;
    const char *input;       /* with in "pipe" */
    int signal;              /* sent when it runs; 0: none */
    const char *out, *error; /* what it writes, */
    int failure, code;       /* and how it ends */
};

static struct {
    struct fsp_child child; /* pid 0: none */
    int to, from;
} worker;

static struct {
    size_t len[2];
    char text[2][MUCH + 1];
    long consumed, pid;
} heard;

static const struct refusal *now;
static char much[MUCH + 1];

/* ---- the worker ---- */

static bool receive(void *at, size_t size) {
    for (ssize_t n; size; size -= (size_t)n, at = (char *)at + n)
        if ((n = read(worker.from, at, size)) <= 0) return false;
    return true;
}

/* The kind of the next frame, with its text; 0: there is no worker any more. */
static char next_frame(char *text, size_t size, size_t *len) {
    unsigned char head[5];
    if (!receive(head, sizeof head)) return 0;
    *len = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
    if (!CHECK(*len < size) || !receive(text, *len)) return 0;
    text[*len] = '\0';
    return (char)head[0];
}

static void tell(char kind, const void *text, size_t len) {
    char frame[5 + MUCH] = {kind, (char)(len >> 24), (char)(len >> 16), (char)(len >> 8),
                            (char)len};
    memcpy(frame + 5, text, len);
    ssize_t n = write(worker.to, frame, 5 + len);
    if (!now->site) CHECK_INT(n, 5 + len);
}

/* What the worker has left of its commands, which comes to us. */
static bool all_have_gone(void) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) continue;
    return pid < 0;
}

/* It has ended, or does because its stdin has; and with it all that it started. */
static void end_worker(void) {
    struct fsp_status status;
    close(worker.to);
    CHECK_INT(fsp_wait(&worker.child, 1, &status), 1);
    CHECK(status.code == 0 || (now->site && status.code == 3));
    close(worker.from);
    worker.child.pid = 0;
    CHECK(WAIT_UNTIL(all_have_gone()));
}

static bool start_worker(void) {
    char path[PATH_MAX], copy[PATH_MAX], text[64];
    size_t len;
    snprintf(copy, sizeof copy, "%s", support_self);
    snprintf(path, sizeof path, "%s/worker_sweep", dirname(dirname(dirname(copy))));
    struct fsp_spec spec = COMMAND(path);
    struct fsp_error error;
    int to[2], from[2];
    support_pipe(to, 10);
    support_pipe(from, 10);
    int r = support_spawn(&spec,
                          &(struct fsp_stdio){
                              {to[0], from[1], -1}
    },
                          &worker.child, &error);
    close(to[0]);
    close(from[1]);
    worker.to = to[1];
    worker.from = from[0];
    if (CHECK_INT(r, 0) && next_frame(text, sizeof text, &len) == 'H') return CHECK_STR(text, "1");
    CHECK(now->site != NULL);
    end_worker();
    return false;
}

/* ---- a request ---- */

static void ask(const struct request *q) {
    char text[1000];
    int len = snprintf(text, sizeof text, "%s%c%s%c%c3%c%s%c-c%c%s%cPATH=/bin:/usr/bin", q->err, 0,
                       q->in, 0, 0, 0, q->file, 0, 0, q->script, 0);
    tell('R', text, (size_t)len);
    if (strcmp(q->in, "pipe") != 0) return;
    tell('I', q->input, strlen(q->input));
    tell('I', "", 0);
}

static void keep(int stream, const char *text, size_t len) {
    if (!CHECK(heard.len[stream] + len <= MUCH)) return;
    memcpy(heard.text[stream] + heard.len[stream], text, len);
    heard.len[stream] += len;
    heard.text[stream][heard.len[stream]] = '\0';
}

/* 'X' or 'F', with its number, or 0. */
static char hear(const struct request *q, long *number) {
    static char text[(1 << 16) + 1], signal[8];
    size_t len;
    memset(&heard, 0, sizeof heard);
    for (char kind; (kind = next_frame(text, sizeof text, &len));) {
        *number = strtol(text, NULL, 10);
        if (kind == 'X' || kind == 'F') return kind;
        if (kind == 'O' || kind == 'E') keep(kind == 'E', text, len);
        if (kind == 'C') heard.consumed += *number;
        if (kind == 'S') heard.pid = *number;
        if (kind == 'S' && q->signal)
            tell('K', signal, (size_t)snprintf(signal, sizeof signal, "%d", q->signal));
    }
    return 0;
}

/* Its whole group. */
static bool has_gone(void) {
    if (heard.pid > 1) waitpid((pid_t)-heard.pid, NULL, WNOHANG);
    return heard.pid < 2 || (kill((pid_t)-heard.pid, 0) < 0 && errno == ESRCH);
}

static void judge(const struct request *q, char kind, long number) {
    if (kind == 'F' && now->site && number != q->failure) {
        CHECK_INT(number, now->err);
        return;
    }
    CHECK_INT(kind, q->failure ? 'F' : 'X');
    CHECK_INT(number, q->failure ? q->failure : q->code);
    CHECK_STR(heard.text[0], q->out);
    CHECK_STR(heard.text[1], q->error);
}

static void serve(const struct request *q) {
    long number = 0;
    if (worker.child.pid == 0 && !start_worker()) return;
    ask(q);
    char kind = hear(q, &number);
    if (kind)
        judge(q, kind, number);
    else
        CHECK(now->site != NULL);
    CHECK(WAIT_UNTIL(has_gone()));
    if (!kind) end_worker();
}

/* ---- scenes ---- */

static void some_requests(void) {
    /* The fourth ends, and its pipes do not. */
    const struct request all[] = {
        {"pipe",    "pipe", "/bin/sh",  "cat; echo e >&2; exit 3", "text\n", 0,       "text\n", "e\n", 0,      3       },
        {"discard", "null", "/bin/sh",  "echo a; echo b >&2",      NULL,     0,       "a\n",    "",    0,      0       },
        {"merge",   "null", "/bin/sh",  "echo a; echo b >&2",      NULL,     0,       "a\nb\n", "",    0,      0       },
        {"pipe",    "null", "/bin/sh",  "sleep 1000 & echo a",     NULL,     0,       "a\n",    "",    0,      0       },
        {"discard", "null", "/nowhere", "",                        NULL,     0,       "",       "",    ENOENT, 0       },
        {"discard", "null", "/bin/sh",  "exec sleep 1000",         NULL,     SIGTERM, "",       "",    0,      -SIGTERM},
        {"pipe",    "pipe", "/bin/sh",  "exec cat",                much,     0,       much,     "",    0,      0       },
        {"pipe",    "pipe", "/bin/sh",  "exec <&-; echo x",        much,     0,       "x\n",    "",    0,      0       },
    };
    for (size_t i = 0; i < LENGTH(all); i++) serve(&all[i]);
}

/* With the end of its stdin it ends, and its command. */
static void an_end(void) {
    const struct request q = {
        .err = "discard", .in = "null", .file = "/bin/sh", .script = "sleep 1000"};
    static char text[64];
    size_t len;
    if (worker.child.pid == 0 && !start_worker()) return;
    ask(&q);
    heard.pid = 0;
    if (next_frame(text, sizeof text, &len) == 'S') heard.pid = strtol(text, NULL, 10);
    CHECK(heard.pid > 1 || now->site);
    end_worker();
    CHECK(WAIT_UNTIL(has_gone()));
}

static void a_worker(const struct refusal *refusal) {
    static const struct refusal none;
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    now = refusal;
    sweep_arm(refusal);
    some_requests();
    an_end();
    if (worker.child.pid == 0) (void)start_worker();
    faults_off();
    some_requests(); /* the one that there is, if it lives */
    now = &none;
    if (worker.child.pid) end_worker();
    some_requests();
    an_end();
}

static const struct scene scenes[] = {
    {"a_worker", a_worker}
};

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    memset(much, 'm', MUCH);
    faults_also_far();
    sweep_look(scenes, LENGTH(scenes));
    sweep_places("csrc/worker/", true);
    sweep_tell();
    return tap_end();
}

#else

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    return tap_end();
}

#endif
