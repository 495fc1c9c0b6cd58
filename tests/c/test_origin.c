/*
 * test_origin.c - the seam of engine/origin.h, by an origin of another kind than exec or templates:
 * a process that serves one job after the other, and lives on.
 *
 * An office has one clerk, a process of its own, for each spawner.  What a job's command has for
 * its argument the clerk does; where it does nothing the command itself says it.
 */
#include "listen.h"

#ifdef __linux__
#include "os/rawsys.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct clerk {
    struct fsp_helper helper;
    struct fsp_child child;
    int socket; /* -1: it gets no more jobs */
    struct fsp_job *job;
};

struct desk {
    struct fsp_post post;
    struct clerk *clerk;
};

struct office {
    struct fsp_origin origin;
    int hired, freed; /* atomic */
    struct desk at[4];
};

static struct office office;

/* ---- the clerk's process ---- */

static void say(int fd, const char *text) {
    if (write(fd, text, strlen(text)) < 0) _exit(90);
}

/* A job: what to do, and its stdout. */
static char take_job(int socket, int *out) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    char what = 0;
    struct iovec part = {&what, 1};
    struct msghdr msg = {.msg_iov = &part,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    if (recvmsg(socket, &msg, 0) <= 0) _exit(0);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c) memcpy(out, CMSG_DATA(c), sizeof(int));
    return what;
}

static void flood(int fd) {
    static char block[4096];
    while (write(fd, block, sizeof block) > 0) continue;
    _exit(91);
}

/* Forked, where only one thread is left. */
static _Noreturn void be_clerk(int socket) {
    sigset_t urgent;
    int sig;
    sigemptyset(&urgent);
    sigaddset(&urgent, SIGURG);
    sigprocmask(SIG_SETMASK, &urgent, NULL);
    setpgid(0, 0);
    raw(close_range, 3, socket - 1, 0);
    raw(close_range, socket + 1, ~0u, 0);
    for (;;) {
        int out = -1;
        char what = take_job(socket, &out);
        say(out, "by a clerk\n");
        if (what == 'd') kill(getpid(), SIGKILL);
        if (what == 'f') flood(out);
        while (what == 'h') pause();
        if (what == 'u') sigwait(&urgent, &sig);
        if (what == 'l') { /* it goes: from here on it is the job's child */
            say(socket, "L");
            _exit(7);
        }
        close(out);
        say(socket, "D");
    }
}

/* ---- the origin ---- */

static struct desk *desk_of(struct fsp_spawner *s) {
    return &office.at[s - s->engine->spawner];
}

static void dismiss(struct fsp_spawner *s, struct clerk *c) {
    struct desk *desk = desk_of(s);
    if (c->socket < 0) return;
    fsp_poller_forget(&s->poller, c->socket, FSP_POLL_IN);
    sys_close(c->socket);
    c->socket = -1;
    if (desk->clerk != c) return;
    desk->clerk = NULL;
    fsp_post_set_due(s, &desk->post, 0);
}

static void remove_clerk(struct fsp_spawner *s, struct clerk *c) {
    dismiss(s, c);
    fsp_helper_remove(s, &c->helper);
    free(c);
}

static struct fsp_post *post(struct fsp_origin *origin, unsigned spawner) {
    return &((struct office *)origin)->at[spawner].post;
}

static void open_channel(int ends[2]) {
    CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

static void tend(struct fsp_spawner *s, struct fsp_post *post) {
    int ends[2];
    struct clerk *c = calloc(1, sizeof *c);
    open_channel(ends);
    fsp_helper_init(s, &c->helper, post->origin);
    c->socket = ends[0];
    c->child.pid = fork();
    if (c->child.pid == 0) be_clerk(ends[1]);
    sys_close(ends[1]);
    c->child.pidfd = sys_pidfd_open(c->child.pid);
    CHECK_INT(
        fsp_poller_watch(&s->poller, c->socket, FSP_POLL_IN, fsp_helper_token(&c->helper, false)),
        0);
    CHECK_INT(fsp_poller_watch_child(&s->poller, &c->child, fsp_helper_token(&c->helper, true)), 0);
    fsp_helper_add(s, &c->helper);
    desk_of(s)->clerk = c;
    __atomic_add_fetch(&office.hired, 1, __ATOMIC_RELAXED);
}

static void close_post(struct fsp_spawner *s, struct fsp_post *post) {
    struct desk *desk = (struct desk *)post;
    if (desk->clerk) dismiss(s, desk->clerk);
}

static void give(struct clerk *c, char what, int out) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&what, 1};
    struct msghdr msg = {.msg_iov = &part,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    *CMSG_FIRSTHDR(&msg) = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &out, sizeof out);
    CHECK_INT(sendmsg(c->socket, &msg, MSG_NOSIGNAL), 1);
}

static enum fsp_birth start(struct fsp_spawner *s, struct fsp_job *job, uint64_t now,
                            struct fsp_error *error) {
    struct clerk *c = desk_of(s)->clerk;
    const char *what = job->plan->argv[1];
    struct fsp_stdio io;
    (void)now;
    *error = (struct fsp_error){EPERM, FSP_STAGE_PREPARE, -1};
    if (strcmp(what, "-") == 0) { /* all are to look, and the command itself says it */
        fsp_origin_call(&office.origin);
        return FSP_BIRTH_NONE;
    }
    if (strcmp(what, "refuse") == 0) return FSP_BIRTH_FAILED;
    if (strcmp(what, "execute") == 0 || c == NULL || c->job) return FSP_BIRTH_NONE;
    CHECK_INT(fsp_stdio_open(s, job, &io), 0);
    give(c, *what, io.fd[1]);
    fsp_stdio_close(s, &io);
    c->job = job;
    job->from.at = c;
    job->child = c->child;
    return FSP_BIRTH_LENT;
}

/* One that was sent a signal serves no other: who knows when it comes. */
static void leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped) {
    struct clerk *c = job->from.at;
    (void)reaped;
    if (c == NULL) return;
    c->job = NULL;
    if (job->signalled) dismiss(s, c);
}

/* Its process is the job's from now on, dead or alive. */
static void hand_over(struct fsp_spawner *s, struct clerk *c) {
    struct fsp_job *job = c->job;
    fsp_poller_forget(&s->poller, c->child.pidfd, FSP_POLL_IN);
    job->from.at = NULL;
    fsp_job_has_child(s, job, c->child);
    remove_clerk(s, c);
}

static void ready(struct fsp_spawner *s, struct fsp_helper *helper, bool ended) {
    struct clerk *c = (struct clerk *)helper;
    struct fsp_status status = {.code = 3};
    char word = 0;
    if (ended && c->job == NULL) {
        CHECK_INT(fsp_wait(&c->child, 0, &status), 1);
        remove_clerk(s, c);
    } else if (ended || recv(c->socket, &word, 1, 0) <= 0 || word == 'L') {
        if (c->job) hand_over(s, c);
    } else {
        status.usage.ru_utime.tv_usec = 5;
        fsp_job_over(s, c->job, &status);
    }
}

static uint64_t look(struct fsp_spawner *s, struct fsp_helper *helper, uint64_t now) {
    (void)s, (void)helper, (void)now;
    return UINT64_MAX;
}

static void stop(struct fsp_spawner *s, struct fsp_helper *helper) {
    dismiss(s, (struct clerk *)helper);
}

static void release(struct fsp_origin *origin) {
    __atomic_add_fetch(&((struct office *)origin)->freed, 1, __ATOMIC_RELAXED);
}

static const struct fsp_origin_ops ops = {
    .start = start,
    .leave = leave,
    .post = post,
    .tend = tend,
    .close = close_post,
    .ready = ready,
    .look = look,
    .stop = stop,
    .free = release,
};

/* ---- what a caller does with it ---- */

static struct fsp_engine *open_office(unsigned spawners) {
    struct fsp_engine *e = listen_engine(spawners);
    office = (struct office){
        .origin = {.ops = &ops, .refs = 1}
    };
    CHECK_INT(fsp_origin_open(e, &office.origin), 0);
    CHECK(WAIT_UNTIL(__atomic_load_n(&office.hired, __ATOMIC_RELAXED) == (int)spawners));
    return e;
}

static uint64_t running(struct fsp_engine *e) {
    struct fsp_engine_stats stats;
    fsp_engine_stats(e, &stats);
    return stats.running;
}

static void close_office(struct fsp_engine *e) {
    struct fsp_engine_stats stats;
    fsp_engine_stats(e, &stats);
    CHECK_INT(stats.running, 0);
    CHECK_INT(stats.started, stats.finished);
    fsp_origin_close(&office.origin);
    fsp_engine_free(e);
    CHECK_INT(office.freed, 1);
}

static struct fsp_job_options served(void) {
    struct fsp_job_options options = listen_options();
    options.snapshot = (struct fsp_template *)&office.origin;
    return options;
}

static void ask(struct fsp_engine *e, const char *what, struct heard *heard) {
    listen_submit(e, COMMAND("/bin/echo", what), served(), heard);
    CHECK(listen_to_end(e, heard, 1));
}

/* One that has begun, and does not end by itself. */
static void begin(struct fsp_engine *e, const char *what, struct heard *heard) {
    struct fsp_job_options options = served();
    options.flags = FSP_JOB_STREAM;
    listen_submit(e, COMMAND("/bin/echo", what), options, heard);
    CHECK(LISTEN_UNTIL(e, heard->chunks));
}

static pid_t pid_of(const struct heard *heard) {
    return heard->outcome ? heard->outcome->pid : -1;
}

static void check(const struct heard *heard, const char *text, int code) {
    REQUIRE(heard->outcome);
    CHECK_INT(heard->outcome->error.err, 0);
    CHECK_INT(heard->outcome->status.code, code);
    CHECK_INT(heard->outcome->status.lost, 0);
    CHECK_STR(heard->all[0].data, text);
}

static void one_serves_many(void) {
    struct fsp_engine *e = open_office(1);
    static struct heard heard[3];
    for (int i = 0; i < 3; i++) {
        ask(e, "serve", &heard[i]);
        check(&heard[i], "by a clerk\n", 3);
        CHECK_INT(heard[i].outcome->status.usage.ru_utime.tv_usec, 5);
        CHECK_INT(pid_of(&heard[i]), pid_of(&heard[0]));
    }
    CHECK_INT(office.hired, 1);
    listen_free(heard, 3);
    close_office(e);
}

/* At once: the second does not find it free, and is executed. */
static void one_serves_one_at_a_time(void) {
    struct fsp_engine *e = open_office(1);
    static struct heard heard[2];
    begin(e, "hang", &heard[0]);
    ask(e, "serve", &heard[1]);
    check(&heard[1], "serve\n", 0);
    fsp_job_cancel(heard[0].job);
    CHECK(listen_to_end(e, heard, 2));
    check(&heard[0], "by a clerk\n", -SIGTERM);
    listen_free(heard, 2);
    close_office(e);
}

/* Its process ends as any child, with what the kernel says of it; the next job has another. */
static void becoming_an_ordinary_child(void) {
    struct fsp_engine *e = open_office(1);
    static const char *const how[] = {"leave", "die"};
    static const int code[] = {7, -SIGKILL};
    static struct heard heard[2];
    for (int i = 0; i < 2; i++) {
        ask(e, how[i], &heard[0]);
        check(&heard[0], "by a clerk\n", code[i]);
        CHECK(WAIT_UNTIL(__atomic_load_n(&office.hired, __ATOMIC_RELAXED) == i + 2));
        ask(e, "serve", &heard[1]);
        check(&heard[1], "by a clerk\n", 3);
        CHECK(pid_of(&heard[0]) != pid_of(&heard[1]));
        listen_free(heard, 2);
    }
    close_office(e);
}

static void limits_hold(void) {
    struct fsp_engine *e = open_office(1);
    static struct heard heard;
    struct fsp_job_options slow = served(), large = served();
    slow.limits.timeout = 1;
    large.limits.max_output = 10000;
    listen_submit(e, COMMAND("/bin/echo", "hang"), slow, &heard);
    CHECK(listen_to_end(e, &heard, 1));
    if (CHECK(heard.outcome)) CHECK_INT(heard.outcome->status.code, -SIGTERM);
    if (heard.outcome) CHECK_INT(heard.outcome->timed_out, 1);
    listen_free(&heard, 1);
    CHECK(WAIT_UNTIL(__atomic_load_n(&office.hired, __ATOMIC_RELAXED) == 2));
    listen_submit(e, COMMAND("/bin/echo", "flood"), large, &heard);
    CHECK(listen_to_end(e, &heard, 1));
    if (CHECK(heard.outcome)) CHECK_INT(heard.outcome->truncated, 1);
    if (heard.outcome) CHECK_INT(heard.outcome->status.code, -SIGTERM);
    CHECK_INT(heard.all[0].len, 10000);
    listen_free(&heard, 1);
    close_office(e);
}

/* A signal that came too late for its job is not to end the next one. */
static void a_signal_ends_its_service(void) {
    struct fsp_engine *e = open_office(1);
    static struct heard heard[2];
    begin(e, "until", &heard[0]);
    fsp_job_signal(heard[0].job, 0, SIGURG);
    CHECK(listen_to_end(e, heard, 1));
    check(&heard[0], "by a clerk\n", 3);
    CHECK(WAIT_UNTIL(__atomic_load_n(&office.hired, __ATOMIC_RELAXED) == 2));
    ask(e, "serve", &heard[1]);
    check(&heard[1], "by a clerk\n", 3);
    CHECK(pid_of(&heard[0]) != pid_of(&heard[1]));
    listen_free(heard, 2);
    close_office(e);
}

static void none_to_be_had(void) {
    struct fsp_engine *e = open_office(1);
    static struct heard heard;
    ask(e, "execute", &heard);
    check(&heard, "execute\n", 0);
    listen_free(&heard, 1);
    ask(e, "refuse", &heard);
    if (CHECK(heard.outcome)) CHECK_INT(heard.outcome->error.err, EPERM);
    listen_free(&heard, 1);
    fsp_origin_close(&office.origin);
    fsp_engine_free(e);
    CHECK_INT(office.freed, 1);
}

/* Each spawner has a table of descriptors of its own, where the others' wakers must not be the
 * pipes of jobs: what is written to wake would be input. */
static void one_spawner_calls_the_others(void) {
    enum { N = 24, BELOW = 20 };
    static struct heard heard[N];
    int below[BELOW];
    for (int i = 0; i < BELOW; i++) below[i] = dup(0);
    struct fsp_engine *e = open_office(4); /* its wakers are above those */
    for (int i = 0; i < BELOW; i++) close(below[i]);
    struct fsp_job_options options = served();
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_FEED;
    for (int i = 0; i < N; i++) listen_submit(e, COMMAND("/bin/cat", "-"), options, &heard[i]);
    CHECK(WAIT_UNTIL(running(e) == N));
    for (int i = 0; i < N; i++) {
        CHECK_INT(fsp_job_write(heard[i].job, "line\n", 5), 0);
        fsp_job_write_eof(heard[i].job);
    }
    CHECK(listen_to_end(e, heard, N));
    for (int i = 0; i < N; i++) {
        check(&heard[i], "line\n", 0);
        CHECK_INT(heard[i].all[0].len, 5);
    }
    listen_free(heard, N);
    close_office(e);
}

/* Each order of the three: who still has a reference frees it last. */
static void whoever_goes_first(void) {
    static struct heard heard;
    for (int first = 0; first < 2; first++) {
        struct fsp_engine *e = open_office(2);
        begin(e, "hang", &heard);
        if (first) fsp_origin_close(&office.origin);
        fsp_engine_stop(e);
        CHECK(listen_to_end(e, &heard, 1));
        check(&heard, "by a clerk\n", -SIGKILL);
        fsp_engine_free(e);
        CHECK_INT(office.freed, 0);
        listen_free(&heard, 1);
        CHECK_INT(office.freed, first);
        if (!first) fsp_origin_close(&office.origin);
        CHECK_INT(office.freed, 1);
    }
}

static void the_engine_goes_on_without_it(void) {
    struct fsp_engine *e = open_office(2);
    static struct heard heard;
    ask(e, "serve", &heard);
    check(&heard, "by a clerk\n", 3);
    fsp_origin_close(&office.origin);
    listen_free(&heard, 1);
    CHECK(WAIT_UNTIL(__atomic_load_n(&office.freed, __ATOMIC_RELAXED)));
    listen_submit(e, COMMAND("/bin/echo", "alone"), listen_options(), &heard);
    CHECK(listen_to_end(e, &heard, 1));
    check(&heard, "alone\n", 0);
    listen_free(&heard, 1);
    fsp_engine_free(e);
}

static void an_engine_that_stops_takes_no_origin(void) {
    struct fsp_engine *e = listen_engine(1);
    office = (struct office){
        .origin = {.ops = &ops, .refs = 1}
    };
    fsp_engine_stop(e);
    CHECK_INT(fsp_origin_open(e, &office.origin), -ESHUTDOWN);
    fsp_origin_close(&office.origin);
    CHECK_INT(office.freed, 1);
    fsp_engine_free(e);
}

/* ---- names for the poller ---- */

/* 4,294,967,295 jobs later: it does not become a helper. */
static void the_generations_of_a_slot_begin_anew(void) {
    struct fsp_slots slots = {0};
    static struct fsp_job job;
    enum fsp_source source;
    REQUIRE(fsp_slots_reserve(&slots) == 0);
    fsp_slots_add(&slots, &job);
    slots.slot[job.slot].generation = UINT32_MAX;
    uint64_t last = fsp_slots_token(&slots, &job, FSP_SOURCE_CHILD);
    fsp_slots_remove(&slots, &job);
    fsp_slots_add(&slots, &job);
    uint64_t token = fsp_slots_token(&slots, &job, FSP_SOURCE_CHILD);
    CHECK(!FSP_IS_HELPER(token));
    CHECK(fsp_slots_find(&slots, token, &source) == &job);
    CHECK(fsp_slots_find(&slots, last, &source) == NULL);
    free(slots.slot);
}

/* Nor does a helper become a job, or one that there is already. */
static void the_names_of_helpers_begin_anew(void) {
    struct fsp_spawner s = {.last_helper = FSP_HELPER_LAST - 1};
    struct fsp_helper first = {.id = 1}, helper[2];
    fsp_helper_add(&s, &first);
    fsp_helper_init(&s, &helper[0], NULL);
    CHECK_INT(helper[0].id, FSP_HELPER_LAST);
    CHECK(FSP_IS_HELPER(fsp_helper_token(&helper[0], true)));
    fsp_helper_init(&s, &helper[1], NULL);
    CHECK_INT(helper[1].id, 2);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    RUN(the_generations_of_a_slot_begin_anew);
    RUN(the_names_of_helpers_begin_anew);
    RUN(one_serves_many);
    RUN(one_serves_one_at_a_time);
    RUN(becoming_an_ordinary_child);
    RUN(limits_hold);
    RUN(a_signal_ends_its_service);
    RUN(none_to_be_had);
    RUN(one_spawner_calls_the_others);
    RUN(whoever_goes_first);
    RUN(the_engine_goes_on_without_it);
    RUN(an_engine_that_stops_takes_no_origin);
    return tap_end();
}

#else

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    return tap_end();
}

#endif
