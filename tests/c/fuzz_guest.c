/*
 * fuzz_guest.c - what the engine asks of a template process and of a resident is what they read:
 * the plan, the numbers, and the three descriptors, whatever these are; and what is cut short is no
 * request.
 *
 * The guest's files are part of this program, without what forks, maps or puts back.  The input:
 * which of them reads, then what is said.
 */
#include "fuzz.h"

#ifdef __linux__
#include "template/zygote.h"

#include "guest/word.c"

#include "guest/own.c"
#ifdef FSP_HAVE_RESIDENTS
#define take_fds resident_take_fds
#include "guest/resident.c"
#undef take_fds
#endif

#define NFDS 96 /* numbers that are looked at */

/* ---- what is left out ---- */

bool inputs_pack(struct inputs_packed *out) {
    *out = (struct inputs_packed){"", 0, -1};
    return true;
}

#ifdef FSP_HAVE_RESIDENTS
int image_take(void) {
    return 0;
}
int rerun_watch(void) {
    return 0;
}
int state_freeze(void) {
    return 0;
}
int pages_freeze(void) {
    return 0;
}
int compare_freeze(void) {
    return 0;
}
void compare_all(void) {}
void mapped_freeze(void) {}
void mapped_restore(void) {}
void frozen_restore(void) {}
void pages_restore(void) {}
void pages_begin(void) {}
void state_let_go(void) {}
void state_restore(void) {}
static size_t plan_told;
void pages_plan(size_t size) {
    plan_told = size;
}
#endif

/* ---- a plan ---- */

static struct fsp_plan *some_plan(struct bytes *b) {
    static char text[4][40];
    static const char *argv[4], *envp[3];
    for (int i = 0; i < 4; i++) text[i][take_some(b, text[i], take_below(b, 39))] = '\0';
    unsigned how = take(b);
    argv[0] = "/bin/true";
    argv[1] = how & 1 ? text[0] : NULL;
    argv[2] = how & 2 ? text[1] : NULL;
    envp[0] = how & 4 ? text[2] : NULL;
    struct fsp_spec spec = {
        .file = argv[0],
        .argv = argv,
        .envp = envp,
        .cwd = how & 8 ? text[3] : NULL,
        .uid = FSP_ID_NONE,
        .gid = FSP_ID_NONE,
        .umask = how & 16 ? 022 : -1,
        .death_signal = how & 32 ? 9 : 0,
        .flags = how & 64 ? FSP_FLAG_SETSID : 0,
    };
    return support_plan(&spec);
}

static void same_text(const char *is, const char *be) {
    FUZZ_REQUIRE((is == NULL) == (be == NULL) && (is == NULL || strcmp(is, be) == 0));
}

static void same_plan(const struct fsp_plan *is, const struct fsp_plan *be) {
    size_t n = 0;
    FUZZ_REQUIRE(is != be && is->size == be->size);
    same_text(is->file, be->file);
    same_text(is->cwd, be->cwd);
    for (; be->argv[n]; n++) same_text(is->argv[n], be->argv[n]);
    FUZZ_REQUIRE(is->argv[n] == NULL);
    for (n = 0; be->envp[n]; n++) same_text(is->envp[n], be->envp[n]);
    FUZZ_REQUIRE(is->envp[n] == NULL);
    FUZZ_REQUIRE(is->umask == be->umask && is->flags == be->flags);
    FUZZ_REQUIRE(is->death_signal == be->death_signal);
}

/* ---- descriptors ---- */

static ino_t inode(int fd) {
    struct stat st;
    FUZZ_REQUIRE(fstat(fd, &st) == 0);
    return st.st_ino;
}

/* A spawner as far as a request needs one, and what a job gets: each of its own kind. */
static struct fsp_engine *engine;
static int files[3];

static void make_engine(void) {
    if (engine) return;
    engine = calloc(1, sizeof *engine + sizeof *engine->spawner);
    struct fsp_spawner *s = &engine->spawner[0];
    s->engine = engine;
    s->devnull = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3; i++) files[i] = memfd_create("fuzz", MFD_CLOEXEC);
}

static struct fsp_stdio some_files(struct bytes *b) {
    struct fsp_stdio io;
    for (int i = 0; i < 3; i++) {
        unsigned what = take_below(b, 5);
        io.fd[i] = what < 3 ? files[what] : what == 3 ? engine->spawner[0].devnull : -1;
    }
    return io;
}

/* Where it comes from is what the job was to get. */
static void same_file(const struct fsp_stdio *io, int i, int from, const int *came, int ncame) {
    int devnull = engine->spawner[0].devnull, fd = io->fd[i];
    if (from == FSP_SNAP_NULL)
        FUZZ_REQUIRE(i == 2 && fd == devnull);
    else if (from == FSP_SNAP_OWN)
        FUZZ_REQUIRE(fd == (i < 2 ? devnull : -1));
    else {
        FUZZ_REQUIRE(from >= 0 && from < ncame);
        FUZZ_REQUIRE(inode(came[from]) == inode(fd < 0 ? i : fd));
    }
}

static void pair(int ends[2]) {
    FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
}

/* ---- a template process ---- */

static void a_request(struct bytes *b) {
    struct fsp_zygote z = {0};
    struct fsp_spawner *s = &engine->spawner[0];
    struct fsp_snap_request request = {.slot = take_32(b), .flags = take_32(b)};
    struct fsp_plan *plan = some_plan(b);
    struct fsp_stdio io = some_files(b);
    int ends[2], send[3], nsend = fsp_zygote_choose_fds(s, &io, request.fd, send);
    uint32_t slot = request.slot, flags = request.flags;
    engine->mask = take_64(b);
    pair(ends);
    z.socket = ends[0];
    self.socket = ends[1];
    self.running = false;
    for (int times = 0; times < 2; times++) { /* once with the plan, and once without */
        struct parcel p;
        FUZZ_REQUIRE(fsp_zygote_request(s, &z, &request, plan, send, (size_t)nsend) == 0);
        FUZZ_REQUIRE(word_request(&p));
        FUZZ_REQUIRE((p.request.plan_size != 0) == (times == 0));
        FUZZ_REQUIRE(p.request.slot == slot && p.request.flags == flags);
        FUZZ_REQUIRE(p.request.mask == engine->mask && p.nfds == nsend);
        same_plan(self_plan(), plan);
        for (int i = 0; i < 3; i++) same_file(&io, i, p.request.fd[i], p.fd, p.nfds);
        word_close(&p);
        request.plan_size = 0;
    }
    fsp_plan_unref(z.told);
    fsp_plan_unref(plan);
    close(ends[0]), close(ends[1]);
}

/* Any message, with any number of descriptors. */
static void any_message(struct bytes *b) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(5 * sizeof(int))] = {0};
    char data[200];
    int ends[2], fd[5], nfds = (int)take_below(b, 6);
    struct parcel p;
    struct iovec part = {data, take_some(b, data, take(b) % sizeof data)};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
    size_t at = offsetof(struct fsp_snap_request, plan_size); /* it believes the engine's */
    if (part.iov_len >= at + 4) memset(data + at, 0, 4);
    for (int i = 0; i < nfds; i++) fd[i] = files[i % 3];
    if (nfds) fsp_zygote_add_fds(&msg, control, fd, (size_t)nfds);
    pair(ends);
    self.socket = ends[1];
    FUZZ_REQUIRE(sendmsg(ends[0], &msg, 0) == (ssize_t)part.iov_len);
    close(ends[0]);
    bool whole = part.iov_len >= sizeof p.request;
    FUZZ_REQUIRE(word_request(&p) == whole);
    if (whole) {
        FUZZ_REQUIRE(memcmp(&p.request, data, sizeof p.request) == 0);
        FUZZ_REQUIRE(p.nfds == (nfds < 3 ? nfds : 3));
        for (int i = 0; i < p.nfds; i++) FUZZ_REQUIRE(inode(p.fd[i]) == inode(fd[i]));
        word_close(&p);
        FUZZ_REQUIRE(!word_request(&p)); /* nobody is there any more */
    }
    close(ends[1]);
}

/* ---- a resident ---- */

#ifdef FSP_HAVE_RESIDENTS

/* As lend.c sends it. */
static void send_job(int socket, uint64_t number, struct fsp_plan *plan, bool with_plan,
                     const struct fsp_stdio *io) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {0};
    struct fsp_resident_job job = {.number = number};
    struct iovec parts[2] = {
        {&job,                              sizeof job                     },
        {(char *)plan + FSP_SNAP_PLAN_FROM, plan->size - FSP_SNAP_PLAN_FROM}
    };
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = with_plan ? 2 : 1};
    int fd[3], nfds = fsp_zygote_choose_fds(&engine->spawner[0], io, job.fd, fd);
    if (with_plan) {
        job.plan_size = (uint32_t)plan->size;
        job.plan_at = (uint64_t)(uintptr_t)plan;
    }
    if (nfds) fsp_zygote_add_fds(&msg, control, fd, (size_t)nfds);
    FUZZ_REQUIRE(sendmsg(socket, &msg, 0) > 0);
}

/* 0 to 2 are the job's, or /dev/null, or what they were. */
static void placed(const struct job *job, const struct fsp_stdio *io, const int before[3]) {
    ino_t be[3], is[3];
    for (int i = 0; i < 3; i++) {
        int from = job->told.fd[i];
        same_file(io, i, from, job->fd, job->nfds);
        be[i] = from >= 0               ? inode(job->fd[from])
                : from == FSP_SNAP_NULL ? inode(resident->null)
                                        : inode(i);
    }
    place(job);
    for (int i = 0; i < 3; i++) is[i] = inode(i);
    for (int i = 0; i < 3; i++) dup3(before[i], i, 0);
    for (int i = 0; i < 3; i++) FUZZ_REQUIRE(is[i] == be[i]);
    for (int i = 0; i < 3; i++)
        FUZZ_REQUIRE(resident->touched[i] == (job->told.fd[i] != FSP_SNAP_OWN));
}

static void some_jobs(struct bytes *b) {
    struct fsp_plan *plan = some_plan(b);
    int ends[2], before[3];
    pair(ends);
    if (resident == NULL) resident = reset_map(sizeof *resident);
    for (int i = 0; i < 3; i++) before[i] = fcntl(i, F_DUPFD_CLOEXEC, NFDS);
    resident->socket = ends[1];
    resident->null = engine->spawner[0].devnull;
    resident->plan = self.plan;
    resident->told_size = 0;
    for (uint64_t number = 1; number < 4 && b->left; number++) {
        struct fsp_stdio io = some_files(b);
        struct job job;
        bool with_plan = number == 1 || take_below(b, 2);
        if (with_plan && number > 1) {
            fsp_plan_unref(plan);
            plan = some_plan(b);
        }
        send_job(ends[0], number, plan, with_plan, &io);
        FUZZ_REQUIRE(receive(&job) && job.told.number == number);
        placed(&job, &io, before);
        memset(resident->plan, 0x55, 64); /* the program may write over it */
        give_plan(&job.told);
        FUZZ_REQUIRE(plan_told == plan->size);
        same_plan((struct fsp_plan *)resident->plan, plan);
    }
    char cut[sizeof(struct fsp_resident_job)] = {0};
    FUZZ_REQUIRE(send(ends[0], cut, take_below(b, sizeof cut), 0) >= 0);
    FUZZ_REQUIRE(!receive(&(struct job){0}));
    for (int i = 0; i < 3; i++) close(before[i]);
    fsp_plan_unref(plan);
    close(ends[0]), close(ends[1]);
}

/* What it used is never negative, nor more than the kernel says, however that is divided. */
static void some_use(struct bytes *b) {
    static struct fsp_resident_record record;
    struct rusage now;
    if (resident == NULL) resident = reset_map(sizeof *resident);
    resident->record = &record;
    getrusage(RUSAGE_SELF, &resident->base);
    int64_t user = (int64_t)take(b) * 1000, system = (int64_t)take(b) * 1000;
    int64_t all = US_OF(resident->base.ru_utime) + US_OF(resident->base.ru_stime);
    if (user + system > all) return;
    /* As if it had been divided so when the job began. */
    resident->base.ru_utime = (struct timeval){(all - system) / 1000000, (all - system) % 1000000};
    resident->base.ru_stime = (struct timeval){system / 1000000, system % 1000000};
    note_use();
    getrusage(RUSAGE_SELF, &now);
    FUZZ_REQUIRE(record.usage.user >= 0 && record.usage.system >= 0);
    FUZZ_REQUIRE(record.usage.user + record.usage.system <=
                 US_OF(now.ru_utime) + US_OF(now.ru_stime) - all);
}

#else

static void some_jobs(struct bytes *b) {
    (void)b;
}

static void some_use(struct bytes *b) {
    (void)b;
}

#endif

static void open_numbers(bool open[NFDS]) {
    for (int fd = 0; fd < NFDS; fd++) open[fd] = fcntl(fd, F_GETFD) >= 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct bytes b = {data, size};
    bool before[NFDS], after[NFDS];
    make_engine();
    if (self.plan == NULL) self.plan = (char *)word_map_plan();
    open_numbers(before);
    switch (take_below(&b, 4)) {
    case 0:
        a_request(&b);
        break;
    case 1:
        any_message(&b);
        break;
    case 2:
        some_jobs(&b);
        break;
    default:
        some_use(&b);
    }
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
