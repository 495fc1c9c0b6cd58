/*
 * fuzz_hear.c - whatever a template process, its forks and residents say, or write to the page that
 * they share with the engine: each job ends once, nobody's processes but ours are signalled, and
 * nothing is left behind.
 *
 * A spawner without its thread, a template of which only the socket and the page are there, and
 * residents of it.  The input: steps, of ours and of theirs.
 */
#include "fuzz.h"

#include "reset/reset.h"

#ifdef __linux__
#include "os/rawsys.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define MOST_STEPS 60
#define NJOBS      6
#define NPEERS     4  /* ends of sockets that we speak on: the template's, and others' */
#define NLIVE      4  /* processes that run on until they are killed */
#define NFDS       96 /* numbers that are looked at */
#define LIMIT_NS   20000000000u

static struct {
    struct fsp_engine *e;
    struct fsp_spawner *s;
    struct fsp_plan *plan;
    struct fsp_template *t;
    struct fsp_reset *reset;
    struct fsp_snap_page *page; /* the first template process's */
    struct fsp_job *job[NJOBS];
    int ended[NJOBS], njobs;
    int peer[NPEERS], npeers;
    int nlive;
} w;

/* ---- processes ---- */

static int stranger = -1; /* a pidfd of one that is not our child */
static pid_t stranger_pid;

/* It has a parent that is gone, and ends when we do. */
static void make_stranger(void) {
    int told[2], life[2];
    if (stranger >= 0) return;
    FUZZ_REQUIRE(pipe2(told, O_CLOEXEC) == 0 && pipe2(life, O_CLOEXEC) == 0);
    pid_t parent = fork();
    if (parent == 0) {
        pid_t pid = fork();
        if (pid) _exit(write(told[1], &pid, sizeof pid) < 0);
        close(life[1]);
        char byte;
        ssize_t n = read(life[0], &byte, 1);
        _exit(n != 0);
    }
    FUZZ_REQUIRE(read(told[0], &stranger_pid, sizeof stranger_pid) == sizeof stranger_pid);
    FUZZ_REQUIRE(waitpid(parent, NULL, 0) == parent);
    stranger = sys_pidfd_open(stranger_pid);
    close(told[0]), close(told[1]), close(life[0]);            /* life[1] stays */
    for (int i = 0, fd[2] = {stranger, life[1]}; i < 2; i++) { /* not where numbers are looked at */
        int high = fcntl(fd[i], F_DUPFD_CLOEXEC, NFDS + 100);
        close(fd[i]);
        if (i == 0) stranger = high;
    }
}

static bool stranger_lives(void) {
    return poll(&(struct pollfd){stranger, POLLIN, 0}, 1, 0) == 0;
}

static FSP_UNINSTRUMENTED int run_on(void *unused) {
    (void)unused;
    raw6(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0);
    while (raw6(SYS_pause, 0, 0, 0, 0, 0, 0)) continue;
    return 0;
}

static FSP_UNINSTRUMENTED int end_at_once(void *unused) {
    (void)unused;
    return 7;
}

/* A child on our memory: there is nothing to copy. */
static pid_t child(int (*run)(void *), char *stack, size_t size) {
    long flags = CLONE_VM | SIGCHLD | (run == end_at_once ? CLONE_VFORK : 0);
    return (pid_t)raw_clone(SYS_clone, flags, (long)(stack + size), 0, 0, 0, run, NULL);
}

static pid_t some_process(unsigned what) {
    static _Alignas(16) char stack[NLIVE + 1][4096];
    switch (what) {
    case 0:
        return 0;
    case 1:
        return stranger_pid;
    case 2:
        return -1;
    case 3:
        if (w.nlive < NLIVE) return child(run_on, stack[w.nlive++], sizeof *stack);
        return INT_MIN;
    default:
        return child(end_at_once, stack[NLIVE], sizeof *stack);
    }
}

/* Whoever nobody has reaped. */
static void bury_all(void) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0)
        if (pid == 0) { /* those that run on */
            char path[64];
            snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
            FILE *file = fopen(path, "re");
            while (file && fscanf(file, "%d", &pid) == 1) kill(pid, SIGKILL);
            if (file) fclose(file);
            (void)waitpid(-1, NULL, 0);
        }
}

/* ---- a spawner without its thread ---- */

static void open_engine(void) {
    struct fsp_engine *e = calloc(1, sizeof *e + sizeof *e->spawner);
    struct fsp_spawner *s = &e->spawner[0];
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->ready, NULL);
    e->news_last = &e->news;
    e->nspawners = e->nstarted = 1;
    e->born = fsp_fork_generation();
    s->engine = e;
    s->tend_at = UINT64_MAX;
    s->low[0] = s->low[1] = s->low[2] = -1;
    s->batch = true; /* as it is already */
    s->scratch = malloc(FSP_SCRATCH);
    s->devnull = open("/dev/null", O_RDWR | O_CLOEXEC);
    FUZZ_REQUIRE(fsp_waker_init(&e->waker) == 0 && fsp_waker_init(&s->waker) == 0);
    FUZZ_REQUIRE(fsp_poller_init(&s->poller) == 0);
    w.e = e;
    w.s = s;
}

static void close_engine(void) {
    fsp_spawner_close(w.s);
    fsp_origins_orphan(w.e);
    fsp_waker_close(&w.e->waker);
    fsp_waker_close(&w.s->waker);
    pthread_cond_destroy(&w.e->ready);
    pthread_mutex_destroy(&w.e->lock);
    free(w.e);
}

/* No process is started where there is none. */
static void tend(void) {
    struct fsp_place *place = &w.t->at[0];
    if (place->zygote == NULL) place->post.due = UINT64_MAX;
    fsp_origins_tend(w.s);
    if (place->zygote == NULL) place->post.due = UINT64_MAX;
}

static void take_news(void) {
    for (struct fsp_job *job = fsp_engine_take(w.e), *next; job; job = next) {
        next = fsp_job_next(job);
        int *ended = fsp_job_user(job);
        *ended += fsp_job_news(job)->ended;
    }
}

/* A turn of spawner.c's loop, without what starts pending jobs. */
static void turn(void) {
    uint64_t tokens[16];
    int n = fsp_poller_wait(&w.s->poller, tokens, 16, 0);
    for (int i = 0; i < n; i++) {
        enum fsp_source source;
        if (FSP_IS_HELPER(tokens[i]))
            fsp_helper_ready(w.s, tokens[i]);
        else {
            struct fsp_job *job = fsp_slots_find(&w.s->slots, tokens[i], &source);
            if (job) fsp_job_ready(w.s, job, source);
        }
    }
    for (struct fsp_job *job; (job = fsp_spawner_next_mail(w.s));) fsp_job_read_mail(w.s, job);
    uint64_t now = sys_now();
    while (w.s->heap.n && w.s->heap.jobs[0]->next_due <= now)
        fsp_job_due(w.s, w.s->heap.jobs[0], now);
    take_news();
}

/* ---- a template without its process ---- */

static void add_peer(int fd) {
    if (w.npeers < NPEERS)
        w.peer[w.npeers++] = fd;
    else
        close(fd);
}

static void pair(int ends[2]) {
    FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
}

static void open_template(unsigned flags) {
    struct fsp_spec spec = COMMAND("/bin/true");
    int ends[2];
    spec.flags |= FSP_FLAG_SETSID;
    spec.envp = ARGV("A=1");
    w.plan = support_plan(&spec);
    FUZZ_REQUIRE(fsp_template_new(w.e, w.plan, NULL, "/dev/null", 1, flags, &w.t) == 0);
    FUZZ_REQUIRE(fsp_reset_new(w.e, w.t, &w.reset) == 0);
    struct fsp_zygote *z = fsp_zygote_new(w.s, w.t);
    pair(ends);
    z->socket = ends[0];
    z->at_effect = flags & FSP_TEMPLATE_EFFECT;
    z->due = UINT64_MAX;
    close(fsp_zygote_open_page(z));
    fsp_poller_watch(&w.s->poller, z->socket, FSP_POLL_IN, fsp_helper_token(&z->helper, false));
    fsp_zygote_take_place(w.s, z);
    w.page = mmap(NULL, sizeof *w.page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    /* The one of the process and ours are the same memory. */
    FUZZ_REQUIRE(mremap(z->page, 0, sizeof *z->page, MREMAP_MAYMOVE | MREMAP_FIXED, w.page) ==
                 w.page);
    add_peer(ends[1]);
    tend();
}

/* Sockets of residents that it is asked for come along with requests. */
static void drain(int peer) {
    static char data[65536];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))];
    for (;;) {
        struct iovec part = {data, sizeof data};
        struct msghdr msg = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
        if (recvmsg(peer, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0) return;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        for (size_t i = 0; c && CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++) {
            struct stat st;
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode))
                add_peer(fd);
            else
                close(fd);
        }
    }
}

static void drain_all(void) {
    for (int i = 0; i < w.npeers; i++) drain(w.peer[i]);
}

/* ---- what they say ---- */

static int some_file(struct bytes *b) {
    int ends[2], fd = -1;
    unsigned what = take_below(b, 5);
    if (what == 0) return open("/dev/null", O_RDWR | O_CLOEXEC);
    if (what == 1) {
        pair(ends);
        add_peer(ends[1]);
        return ends[0];
    }
    if (what == 2) {
        FUZZ_REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
        close(ends[1]);
        return ends[0];
    }
    char text[200];
    size_t n = take_some(b, text, take_below(b, sizeof text));
    fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    FUZZ_REQUIRE(fd >= 0 && write(fd, text, n) == (ssize_t)n);
    if (what == 3) FUZZ_REQUIRE(fcntl(fd, F_ADD_SEALS, FSP_SNAP_SEALS) == 0);
    return fd;
}

/* Small numbers most of the time. */
static uint32_t some_number(struct bytes *b) {
    unsigned n = take(b);
    return n < 250 ? n % 16 : n < 253 ? (uint32_t)-(int)(255 - n) : take_32(b);
}

static void send_with(int peer, const void *head, size_t size, struct bytes *b) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {0};
    char more[300];
    int fd[3], nfds = (int)take_below(b, 4);
    struct iovec parts[2] = {
        {(void *)head, size},
        {more, take_some(b, more, take(b))}
    };
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 2};
    for (int i = 0; i < nfds; i++) fd[i] = some_file(b);
    if (nfds) fsp_zygote_add_fds(&msg, control, fd, (size_t)nfds);
    (void)!sendmsg(peer, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    for (int i = 0; i < nfds; i++) close(fd[i]);
}

/* As a template process, or as a fork that asks to be one. */
static void say(struct bytes *b, int peer) {
    struct fsp_snap_reply reply = {.kind = take_below(b, 7), .version = FSP_SNAP_VERSION};
    unsigned odd = take(b);
    reply.slot = some_number(b);
    reply.value = (int32_t)some_number(b);
    if (odd == 255) reply.version++;
    send_with(peer, &reply, odd == 254 ? odd % sizeof reply : sizeof reply, b);
}

/* As a resident. */
static void say_as_resident(struct bytes *b, int peer) {
    struct fsp_resident_reply reply = {.kind = take_below(b, 6), .version = FSP_SNAP_VERSION};
    unsigned odd = take(b);
    reply.number = some_number(b);
    reply.value = (int32_t)some_number(b);
    reply.calls = some_number(b);
    reply.pages = some_number(b);
    if (odd == 255) reply.version++;
    send_with(peer, &reply, odd == 254 ? odd % sizeof reply : sizeof reply, b);
}

static void write_slot(struct bytes *b) {
    struct fsp_snap_slot *slot = &w.page->slot[take_below(b, 8)];
    unsigned what = take_below(b, 12);
    slot->pid = some_process(what);
    if (take_below(b, 4)) return;
    slot->error.err = (int)some_number(b);
    slot->error.stage = (enum fsp_stage)some_number(b);
    slot->error.index = (int)some_number(b);
}

static int64_t some_time(struct bytes *b) {
    return take_below(b, 8) ? (int64_t)take_32(b) : (int64_t)take_64(b);
}

static void write_record(struct bytes *b) {
    struct fsp_resident_record *r = &w.page->resident[take_below(b, 4)];
    unsigned what = take(b);
    if (what & 1) r->begun = some_number(b);
    if (what & 2) r->done = some_number(b);
    if (what & 4) r->status = (int32_t)take_32(b);
    if (what & 8)
        r->usage = (struct fsp_resident_usage){.user = some_time(b),
                                               .system = some_time(b),
                                               .minor_faults = some_time(b),
                                               .max_rss = some_time(b)};
    if (what & 16)
        r->before = (struct fsp_resident_usage){.user = some_time(b), .system = some_time(b)};
}

/* ---- what we do ---- */

static void begin(struct fsp_job *job) {
    fsp_unqueue(w.e, job);
    job->owner = w.s;
    fsp_job_begin(w.s, job, sys_now(), false);
}

static void submit(struct bytes *b) {
    unsigned how = take(b);
    struct fsp_job_options options = {
        .in = how & 1 ? FSP_IO_PIPE : FSP_IO_NULL,
        .out = how & 2 ? FSP_IO_PIPE : FSP_IO_NULL,
        .err = FSP_IO_NULL,
        .flags = (how & 4 ? FSP_JOB_FEED : 0u) | (how & 8 ? FSP_JOB_STREAM : 0u),
        .limits = {.drain = 1},
        .snapshot = w.t,
        .reset = how & 16 ? NULL : w.reset,
        .user = &w.ended[w.njobs],
    };
    if (w.njobs == NJOBS) return;
    struct fsp_job **job = &w.job[w.njobs++];
    FUZZ_REQUIRE(fsp_engine_submit(w.e, w.plan, &options, job) == 0);
    begin(*job);
    if (how & 32) (void)fsp_job_write(*job, "text", 4);
}

/* One that was turned away by one origin asks the next; but nothing is executed here. */
static void begin_again(void) {
    struct fsp_job *job = w.e->pending;
    if (job && job->turn) begin(job);
}

static void cancel(struct bytes *b) {
    unsigned i = take_below(b, NJOBS);
    if (i < (unsigned)w.njobs && !w.ended[i]) fsp_job_cancel(w.job[i]);
}

/* The time of one helper has come. */
static void hurry(struct bytes *b) {
    unsigned i = take_below(b, 4);
    for (struct fsp_helper *helper = w.s->helpers; helper; helper = helper->next, i--) {
        if (i) continue;
        if (helper->origin == &w.t->origin)
            ((struct fsp_zygote *)helper)->due = 1;
        else
            ((struct fsp_resident *)helper)->due = 1;
        break;
    }
    tend();
}

/* The poller tells of the end of template processes that have none. */
static void end_templates(void) {
    for (struct fsp_helper *helper = w.s->helpers, *next; helper; helper = next) {
        next = helper->next;
        struct fsp_zygote *z = (struct fsp_zygote *)helper;
        if (helper->origin != &w.t->origin || z->child.pid > 0) continue;
        fsp_helper_ready(w.s, fsp_helper_token(helper, true));
        return;
    }
}

static void hang_up(struct bytes *b) {
    int i = (int)take_below(b, NPEERS);
    if (i >= w.npeers) return;
    close(w.peer[i]);
    w.peer[i] = w.peer[--w.npeers];
}

static void step(struct bytes *b) {
    unsigned what = take_below(b, 16), i = take_below(b, NPEERS);
    int peer = w.npeers ? w.peer[(int)i < w.npeers ? i : 0] : -1;
    switch (what) {
    case 0:
    case 1:
    case 2:
        say(b, peer);
        break;
    case 3:
    case 4:
        say_as_resident(b, peer);
        break;
    case 5:
    case 6:
        write_slot(b);
        break;
    case 7:
        write_record(b);
        break;
    case 8:
    case 9:
        submit(b);
        break;
    case 10:
        begin_again();
        break;
    case 11:
        cancel(b);
        break;
    case 12:
        hurry(b);
        break;
    case 13:
        end_templates();
        break;
    case 14:
        hang_up(b);
        break;
    default:
        tend();
    }
    turn();
    drain_all();
}

/* ---- and at the end ---- */

static bool is_over(void) {
    return w.s->heap.n == 0 && w.s->helpers == NULL && w.e->pending == NULL;
}

static void stop_all(void) {
    uint64_t end = sys_now() + LIMIT_NS;
    fsp_reset_free(w.reset);
    fsp_template_free(w.t);
    for (int i = 0; i < w.njobs; i++)
        if (!w.ended[i]) fsp_job_cancel(w.job[i]);
    w.e->stopping = true;
    while (!is_over()) {
        FUZZ_REQUIRE(sys_now() < end);
        turn();
        for (uint32_t i = 0; i < w.s->slots.cap; i++)
            if (w.s->slots.slot[i].job) fsp_job_abort(w.s, w.s->slots.slot[i].job);
        fsp_origins_stop(w.s);
        fsp_origins_tend(w.s);
        end_templates();
        if (w.e->pending) fsp_job_cancel(w.e->pending);
    }
    turn();
    fsp_origins_tend(w.s);
}

static void judge_state(const struct fsp_template_state *t, const struct fsp_reset_state *r) {
    FUZZ_REQUIRE(t->ready == 0 && t->at_effect == 0);
    FUZZ_REQUIRE((unsigned)t->why <= FSP_REFUSED_PIDFD);
    FUZZ_REQUIRE((unsigned)t->no_checkpoint <= FSP_REFUSED_PIDFD);
    FUZZ_REQUIRE(t->failures == 0 || t->why != FSP_REFUSED_NOT);
    FUZZ_REQUIRE(r->residents == 0);
    FUZZ_REQUIRE(r->error >= 0 && r->error < 4096);
}

static void judge_job(struct fsp_job *job) {
    const struct fsp_outcome *o = fsp_job_outcome(job);
    FUZZ_REQUIRE(o->status.usage.ru_utime.tv_sec >= 0 && o->status.usage.ru_utime.tv_usec >= 0);
    FUZZ_REQUIRE(o->status.usage.ru_stime.tv_sec >= 0 && o->status.usage.ru_stime.tv_usec >= 0);
}

static void judge(void) {
    FUZZ_REQUIRE(stranger_lives());
    FUZZ_REQUIRE(w.e->stats.running == 0 && w.e->stats.finished == (uint64_t)w.njobs);
    for (int i = 0; i < w.njobs; i++) {
        FUZZ_REQUIRE(w.ended[i] == 1);
        judge_job(w.job[i]);
        fsp_job_free(w.job[i]);
    }
}

static void open_numbers(bool open[NFDS]) {
    for (int fd = 0; fd < NFDS; fd++) open[fd] = fcntl(fd, F_GETFD) >= 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct bytes b = {data, size};
    bool before[NFDS], after[NFDS];
    struct fsp_template_state t;
    struct fsp_reset_state r;
    signal(SIGPIPE, SIG_IGN);
    make_stranger();
    memset(&w, 0, sizeof w);
    open_numbers(before);
    open_engine();
    open_template(take(&b) & (FSP_TEMPLATE_CHECKPOINT | FSP_TEMPLATE_NO_CHECKPOINT |
                              FSP_TEMPLATE_EFFECT | FSP_TEMPLATE_FALLBACK));
    for (int n = 0; b.left && n < MOST_STEPS; n++) step(&b);
    fsp_origin_ref(&w.t->origin);
    fsp_origin_ref(&w.reset->origin);
    stop_all();
    fsp_template_get_state(w.t, &t);
    fsp_reset_get_state(w.reset, &r);
    judge_state(&t, &r);
    judge();
    fsp_origin_unref(&w.reset->origin);
    fsp_origin_unref(&w.t->origin);
    fsp_plan_unref(w.plan);
    close_engine();
    munmap(w.page, sizeof *w.page);
    while (w.npeers) close(w.peer[--w.npeers]);
    bury_all();
    open_numbers(after);
    FUZZ_REQUIRE(memcmp(before, after, sizeof before) == 0);
    return 0;
}

#else

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    (void)data, (void)size;
    return 0;
}

#endif
