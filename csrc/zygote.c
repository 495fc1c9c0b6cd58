/*
 * zygote.c - template processes, from their spawner's side.
 *
 *   start -> HELLO -> ready: ask, FORKED, ask, FORKED ... -> dies, is killed, or is retired
 *
 * Each spawner has one process of each template, and talks to it alone: nothing is shared, and as
 * many forks go on at once as there are spawners.  A process is replaced when it dies (after a
 * while if it did so young), when it does not answer, and when a file that it came from changes.
 *
 * A fork of a template may become one itself (fastspawn_checkpoint): its process is then no job's
 * child any more but takes the place of the process that it came from, and the job waits for
 * the fork in which its program goes on.
 *
 * A job that was asked for waits for FORKED; only then has it a child.  If the process dies first,
 * the page tells whether the fork was made: it is then a child like any other, and if not the job
 * goes back to the queue, to start by exec.
 */
#include "engine.h"
#include "snapshot.h"

#ifdef __linux__
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define ANSWER_NS    5000000000u /* a process that takes longer to fork is given up */
#define HURRY_NS     100000000u  /* ... and sooner when a job that waits for it is to be killed */
#define YOUNG_NS     500000000u  /* one that dies younger is replaced after a while only */
#define BACKOFF_NS   100000000u  /* the first such while; it doubles up to 128 times */
#define LOOK_NS      100000000u  /* between two looks at the program's files, */
#define LOOK_NS_EACH 1000000u    /* and as much more for each of the files */
#define MISSES       8 /* so many forks that may checkpoint and do not, and none may any more */

struct place {
    struct fsp_zygote *zygote;
    uint64_t forked, direct; /* read by others: atomic, so that no request takes the lock */
    uint64_t retry_at;
    unsigned failures;
    unsigned misses;
    bool no_effect; /* it was tried, and cannot be */
    bool left;      /* the template was closed, and this spawner knows */
};

struct fsp_template {
    unsigned refs; /* atomic: the maker, the engine's list, zygotes, jobs */
    struct fsp_plan *plan, *start;
    char *library;
    uint64_t timeout;
    unsigned nspawners, flags;

    /* Under the engine's lock. */
    struct fsp_engine *engine; /* NULL: it has gone */
    struct fsp_template *next;
    bool closed;
    unsigned nleft;
    struct fsp_template_state state;

    struct place at[]; /* each its spawner's */
};

struct fsp_zygote {
    struct fsp_zygote *next;
    struct fsp_template *template;
    struct fsp_child child;
    uint32_t id;
    int socket;
    enum { STARTING, READY, RETIRED, DEAD } state;
    uint64_t born, due;           /* due: to be killed then; 0: not */
    struct fsp_job *asked, *last; /* in the order of the requests, and so of the answers */
    struct fsp_plan *told;        /* the plan that it has */

    bool may_checkpoint, at_checkpoint, at_effect;
    int stopped_by;
    bool unwatched;      /* the poller does not tell its end */
    struct fsp_job *own; /* whose child it was, until that has the fork */
    int64_t since;       /* by the clock of files: what it came from was read later */
    bool suspect;        /* a file changed while it started, perhaps after it was read */
    uint64_t looked;
    struct fsp_snap_identity file; /* of the program, or the script, as PATH has it */
    char *inputs;                  /* the other files that it came from: fsp_snap_input */
    size_t inputs_size, ninputs;

    struct fsp_snap_page *page;
    struct fsp_job *of[FSP_SNAP_SLOTS];
    unsigned jobs;  /* that have a slot */
    unsigned fresh; /* slots from here on were never used */
    unsigned nfree;
    uint16_t free[FSP_SNAP_SLOTS];
};

static struct place *place_of(struct fsp_template *t, const struct fsp_spawner *s) {
    return &t->at[s - s->engine->spawner];
}

static void unref(struct fsp_template *t) {
    if (__atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    fsp_plan_unref(t->plan);
    fsp_plan_unref(t->start);
    free(t->library);
    free(t);
}

void fsp_template_ref(struct fsp_template *t) {
    if (t) __atomic_add_fetch(&t->refs, 1, __ATOMIC_RELAXED);
}

void fsp_template_unref(struct fsp_template *t) {
    if (t) unref(t);
}

/* ---- the clock of files ---- */

/* The least time that a file which changes from now on will show. */
static int64_t files_now(void) {
    struct timespec t = {0};
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return fsp_snap_ns(&t);
}

/* So long after a change that time is a later one: a process that is started sooner would have to
 * be taken for older than the file. */
static uint64_t files_tick(void) {
    struct timespec t = {0};
    clock_getres(CLOCK_REALTIME_COARSE, &t);
    return (uint64_t)fsp_snap_ns(&t);
}

/* ---- the caller's side ---- */

/* Under the lock. */
static void call_spawners(struct fsp_engine *e) {
    for (unsigned i = 0; i < e->nstarted; i++) {
        e->spawner[i].templates = true;
        e->spawner[i].sleeping = false;
        fsp_waker_set(&e->spawner[i].waker);
    }
}

int fsp_template_new(struct fsp_engine *e, struct fsp_plan *plan, struct fsp_plan *start,
                     const char *library, uint64_t timeout, unsigned flags,
                     struct fsp_template **out) {
    if (fsp_engine_forked(e)) return -ECHILD;
    struct fsp_template *t = sys_calloc(1, sizeof *t + e->nspawners * sizeof *t->at);
    if (t == NULL) return -ENOMEM;
    *t = (struct fsp_template){
        .refs = 2, .engine = e, .timeout = timeout, .flags = flags, .nspawners = e->nspawners};
    t->state.spawners = e->nspawners;
    t->plan = fsp_plan_ref(plan);
    t->start = fsp_plan_ref(start ? start : plan);
    t->library = sys_malloc(strlen(library) + 1);
    if (t->library == NULL) {
        t->refs = 1;
        unref(t);
        return -ENOMEM;
    }
    strcpy(t->library, library);
    for (unsigned i = 0; i < t->nspawners; i++) t->at[i].retry_at = sys_now() + files_tick();
    pthread_mutex_lock(&e->lock);
    bool stopping = e->stopping;
    if (!stopping) {
        t->next = e->templates;
        e->templates = t;
        call_spawners(e);
    }
    pthread_mutex_unlock(&e->lock);
    if (stopping) {
        t->refs = 1;
        unref(t);
        return -ESHUTDOWN;
    }
    *out = t;
    return 0;
}

void fsp_template_get_state(struct fsp_template *t, struct fsp_template_state *out) {
    struct fsp_engine *e = t->engine;
    if (e) pthread_mutex_lock(&e->lock);
    *out = t->state;
    if (e) pthread_mutex_unlock(&e->lock);
    for (unsigned i = 0; i < t->nspawners; i++) {
        out->forked += __atomic_load_n(&t->at[i].forked, __ATOMIC_RELAXED);
        out->direct += __atomic_load_n(&t->at[i].direct, __ATOMIC_RELAXED);
    }
}

void fsp_template_free(struct fsp_template *t) {
    struct fsp_engine *e = t->engine;
    if (e && !fsp_engine_forked(e)) {
        pthread_mutex_lock(&e->lock);
        t->closed = true;
        call_spawners(e);
        pthread_mutex_unlock(&e->lock);
    }
    unref(t);
}

/* The threads have ended. */
void fsp_templates_orphan(struct fsp_engine *e) {
    while (e->templates) {
        struct fsp_template *t = e->templates;
        e->templates = t->next;
        t->engine = NULL;
        unref(t);
    }
}

/* ---- what the state says ---- */

static void count(struct fsp_template *t, uint64_t *counter) {
    pthread_mutex_lock(&t->engine->lock);
    ++*counter;
    pthread_mutex_unlock(&t->engine->lock);
}

static void set_ready(struct fsp_zygote *z, int change) {
    struct fsp_template *t = z->template;
    pthread_mutex_lock(&t->engine->lock);
    t->state.ready += (unsigned)change;
    if (z->at_effect) t->state.at_effect += (unsigned)change;
    if (change > 0) t->state.stopped_by = z->stopped_by;
    if (change > 0) t->state.failures = 0;
    pthread_mutex_unlock(&t->engine->lock);
    fsp_waker_set(&t->engine->waker);
}

static void set_failed(struct fsp_spawner *s, struct fsp_template *t, enum fsp_refusal why,
                       struct fsp_error error, int status) {
    struct place *place = place_of(t, s);
    unsigned doublings = place->failures < 7 ? place->failures : 7;
    place->failures++;
    place->retry_at = sys_now() + ((uint64_t)BACKOFF_NS << doublings);
    pthread_mutex_lock(&t->engine->lock);
    t->state.why = why;
    t->state.error = error;
    t->state.status = status;
    if (place->failures > t->state.failures) t->state.failures = place->failures;
    pthread_mutex_unlock(&t->engine->lock);
    fsp_waker_set(&t->engine->waker);
}

/* It ran, but not to where it was to stop: next time let it stop earlier, if that will do. */
static void set_short(struct fsp_spawner *s, struct fsp_zygote *z, enum fsp_refusal why,
                      int status) {
    struct fsp_template *t = z->template;
    if (!z->at_effect || !(t->flags & FSP_TEMPLATE_FALLBACK)) {
        set_failed(s, t, why, (struct fsp_error){0}, status);
        return;
    }
    place_of(t, s)->no_effect = true;
    pthread_mutex_lock(&t->engine->lock);
    t->state.why = why;
    t->state.status = status;
    pthread_mutex_unlock(&t->engine->lock);
}

/* ---- the files that a process came from ---- */

static struct fsp_snap_identity identify(const char *path, unsigned how) {
    struct stat st;
    int r = how & FSP_SNAP_FOLLOW ? sys_stat(path, &st) : (int)FSP_CALL("lstat", lstat(path, &st));
    return r < 0 ? (struct fsp_snap_identity){0} : fsp_snap_identity(&st, how);
}

/* The one file that the process does not know of: what the kernel was asked to execute. */
static struct fsp_snap_identity identify_program(const struct fsp_plan *plan) {
    char path[PATH_MAX];
    int r = fsp_plan_resolve(plan, LOOK_NS, path, sizeof path);
    return r > 0 ? identify(path, FSP_SNAP_FOLLOW) : (struct fsp_snap_identity){0};
}

static const struct fsp_snap_input *next_input(const struct fsp_zygote *z, size_t *at) {
    const struct fsp_snap_input *input = (const void *)(z->inputs + *at);
    if (*at + sizeof *input > z->inputs_size) return NULL;
    *at += (sizeof *input + input->path_size + 7) & ~(size_t)7;
    return *at > z->inputs_size ? NULL : input;
}

/* Changed in or after the tick in which the process was started: perhaps after it was read. */
static bool is_recent(const struct fsp_zygote *z, const struct fsp_snap_identity *id) {
    return id->changed >= z->since;
}

static int keep_inputs(struct fsp_zygote *z, const char *data, size_t size) {
    const struct fsp_snap_input *input;
    z->inputs = sys_malloc(size + 1);
    if (z->inputs == NULL) return -ENOMEM;
    memcpy(z->inputs, data, size);
    z->inputs_size = size;
    z->suspect = is_recent(z, &z->file);
    for (size_t at = 0; (input = next_input(z, &at)); z->ninputs++)
        z->suspect |= is_recent(z, &input->id);
    return 0;
}

static bool inputs_changed(const struct fsp_zygote *z) {
    const struct fsp_snap_input *input;
    for (size_t at = 0; (input = next_input(z, &at));) {
        struct fsp_snap_identity now = identify((const char *)(input + 1), input->how);
        if (!fsp_snap_same(&now, &input->id)) return true;
    }
    return false;
}

/* Did one of them change since?  The answer may be LOOK_NS old, and older for many files. */
static bool is_stale(struct fsp_zygote *z, uint64_t now) {
    if (now - z->looked < LOOK_NS + z->ninputs * LOOK_NS_EACH) return false;
    z->looked = now;
    if (z->suspect) return true;
    struct fsp_snap_identity file = identify_program(z->template->plan);
    return !fsp_snap_same(&file, &z->file) || inputs_changed(z);
}

/* ---- a process begins ---- */

/* Its descriptor, or -errno. */
static int open_page(struct fsp_zygote *z) {
    int fd = (int)FSP_CALL("memfd_create", memfd_create("fastspawn", MFD_CLOEXEC));
    if (fd < 0) return fd;
    int r = (int)FSP_CALL("ftruncate", ftruncate(fd, sizeof *z->page));
    if (r == 0 && fsp_fault("mmap")) r = -ENOMEM;
    void *page =
        r < 0 ? MAP_FAILED : mmap(NULL, sizeof *z->page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        sys_close(fd);
        return r < 0 ? r : -ENOMEM;
    }
    z->page = page;
    return fd;
}

static int open_channel(struct fsp_zygote *z, int fd[3], const char *library) {
    int ends[2];
    fd[0] = fd[1] = fd[2] = -1;
    int r =
        (int)FSP_CALL("socketpair", socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    if (r < 0) return r;
    z->socket = ends[0];
    fd[0] = ends[1];
    r = sys_nonblock(z->socket);
    if (r == 0) r = fd[1] = open_page(z);
    if (r >= 0) r = fd[2] = sys_open(library, O_RDONLY);
    return r < 0 ? r : 0;
}

static size_t length(char *const *list) {
    size_t n = 0;
    while (list[n]) n++;
    return n;
}

/* The program's own plan, with the preload object reached by its descriptor: the loader's list has
 * no way to quote a path. */
static int plan_with(const struct fsp_template *t, const int fd[3], int effect,
                     struct fsp_plan **out) {
    const struct fsp_plan *plan = t->start;
    size_t n = length(plan->envp), kept = 0;
    const char **envp = sys_malloc((n + 3) * sizeof *envp);
    char variable[80], preload[PATH_MAX];
    const char *others = "";
    if (envp == NULL) return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (strncmp(plan->envp[i], "LD_PRELOAD=", 11) == 0)
            others = plan->envp[i] + 11;
        else
            envp[kept++] = plan->envp[i];
    snprintf(variable, sizeof variable, FSP_SNAP_VARIABLE "=%d,%d,%d,%zu,%d", fd[0], fd[1], fd[2],
             length(t->plan->argv), effect);
    int len = snprintf(preload, sizeof preload, "LD_PRELOAD=/proc/self/fd/%d%s%s", fd[2],
                       *others ? ":" : "", others);
    envp[kept++] = variable;
    envp[kept++] = preload;
    envp[kept] = NULL;
    struct fsp_spec spec = {
        .file = plan->file,
        .argv = (const char *const *)plan->argv,
        .envp = envp,
        .search = plan->search,
        .cwd = plan->cwd,
        .keep_fds = fd,
        .nkeep_fds = 3,
        .uid = FSP_ID_NONE,
        .gid = FSP_ID_NONE,
        .umask = effect ? plan->umask : -1, /* the program may ask before it is forked */
        .rlimits = plan->rlimits,
        .nrlimits = effect ? plan->nrlimits : 0,
        .death_signal = plan->death_signal,
        .flags = FSP_FLAG_CLOSE_FDS | FSP_FLAG_SETPGROUP | (plan->flags & FSP_FLAG_RESTORE_SIGNALS),
    };
    int r = len < (int)sizeof preload ? fsp_plan_new(&spec, out) : -ENAMETOOLONG;
    free(envp);
    return r;
}

/* As snapshot.h has it. */
static int effect_of(const struct fsp_zygote *z) {
    unsigned flags = z->template->flags;
    if (!z->at_effect) return 0;
    return flags & FSP_TEMPLATE_FALLBACK && !(flags & FSP_TEMPLATE_PYTHON) ? 2 : 1;
}

static int spawn(struct fsp_spawner *s, struct fsp_zygote *z, const int fd[3],
                 struct fsp_error *error) {
    struct fsp_plan *plan;
    struct fsp_stdio io = {
        {s->devnull, s->devnull, -1}
    };
    int r = plan_with(z->template, fd, effect_of(z), &plan);
    if (r < 0) return r;
    r = fsp_spawn(plan, &io, s->private ? FSP_SPAWN_PRIVATE : 0, &s->engine->mask, &z->child,
                  error);
    fsp_plan_unref(plan);
    return r;
}

static void close_channel(struct fsp_spawner *s, struct fsp_zygote *z) {
    if (z->socket < 0) return;
    fsp_poller_forget(&s->poller, z->socket, FSP_POLL_IN);
    sys_close(z->socket);
    z->socket = -1;
}

/* Not while it lives, nor while a job reads its page. */
static void free_zygote(struct fsp_zygote *z) {
    if (z->page) munmap(z->page, sizeof *z->page);
    fsp_plan_unref(z->told);
    unref(z->template);
    free(z->inputs);
    free(z);
}

static uint64_t token(const struct fsp_zygote *z, bool child) {
    return (uint64_t)z->id << 1 | child; /* no job's: its generation would be 0 */
}

/* Something is to be done about it at this time. */
static void set_due(struct fsp_spawner *s, struct fsp_zygote *z, uint64_t at) {
    z->due = at;
    if (at < s->tend_at) s->tend_at = at;
}

static int watch(struct fsp_spawner *s, struct fsp_zygote *z) {
    int r = fsp_poller_watch(&s->poller, z->socket, FSP_POLL_IN, token(z, false));
    return r < 0 ? r : fsp_poller_watch_child(&s->poller, &z->child, token(z, true));
}

/* Without its pidfd and its place in the poller it is of no use. */
static void discard(struct fsp_spawner *s, struct fsp_zygote *z) {
    struct fsp_status status;
    if (z->child.pid > 0) {
        fsp_kill(&z->child, 0, SIGKILL);
        if (fsp_wait(&z->child, 1, &status) < 0) sys_close(z->child.pidfd);
    }
    close_channel(s, z);
    free_zygote(z);
}

static struct fsp_zygote *new_zygote(struct fsp_spawner *s, struct fsp_template *t) {
    struct fsp_zygote *z = sys_calloc(1, sizeof *z);
    if (z == NULL) return NULL;
    fsp_template_ref(t);
    z->template = t;
    z->socket = -1;
    z->child = (struct fsp_child){-1, -1};
    z->born = sys_now();
    z->since = files_now();
    z->id = ++s->last_zygote;
    return z;
}

static void take_place(struct fsp_spawner *s, struct fsp_zygote *z) {
    z->next = s->zygotes;
    s->zygotes = z;
    place_of(z->template, s)->zygote = z;
}

static void start(struct fsp_spawner *s, struct fsp_template *t) {
    struct fsp_error error = {0};
    struct fsp_zygote *z = new_zygote(s, t);
    int fd[3] = {-1, -1, -1}, r = -ENOMEM;
    if (z) {
        z->file = identify_program(t->plan);
        z->at_effect = t->flags & FSP_TEMPLATE_EFFECT && !place_of(t, s)->no_effect &&
                       !fsp_plan_credentials(t->plan);
        r = open_channel(z, fd, t->library);
        if (r == 0) r = spawn(s, z, fd, &error);
        if (r == 0) r = watch(s, z);
        for (int i = 0; i < 3; i++) sys_close(fd[i]);
    }
    if (r < 0) {
        if (error.err == 0) error = (struct fsp_error){-r, FSP_STAGE_PREPARE, -1};
        if (z) discard(s, z);
        set_failed(s, t, FSP_REFUSED_SPAWN, error, 0);
        return;
    }
    z->due = z->born + t->timeout;
    take_place(s, z);
}

/* ---- a process ends ---- */

/* It hears that nobody wants it any more; one that does not listen is killed. */
static void let_go(struct fsp_spawner *s, struct fsp_zygote *z) {
    close_channel(s, z);
    set_due(s, z, sys_now() + ANSWER_NS);
}

/* No more requests: another one takes its place, and it leaves when it has answered those it has.
 */
static void retire(struct fsp_spawner *s, struct fsp_zygote *z) {
    struct place *place = place_of(z->template, s);
    if (place->zygote == z) {
        place->zygote = NULL;
        place->retry_at = sys_now() + files_tick();
        s->tend_at = 0;
        if (z->state == READY) set_ready(z, -1);
    }
    z->state = RETIRED;
    if (z->asked == NULL) let_go(s, z);
}

static void put_down(struct fsp_zygote *z) {
    z->due = 0;
    fsp_kill(&z->child, 0, SIGKILL);
}

static void unlink_zygote(struct fsp_spawner *s, struct fsp_zygote *z) {
    struct fsp_zygote **at = &s->zygotes;
    while (*at != z) at = &(*at)->next;
    *at = z->next;
}

static struct fsp_job *next_asked(struct fsp_zygote *z) {
    struct fsp_job *job = z->asked;
    if (job) z->asked = job->next;
    return job;
}

static bool hear(struct fsp_spawner *s, struct fsp_zygote *z, bool all);

static int pid_of(const struct fsp_zygote *z, const struct fsp_job *job) {
    return z->page->slot[job->zygote_slot].pid;
}

/* It was a job's child and did not come to fork: it is that job's again, dead or alive.  Its
 * program has begun, so nothing else could take over. */
static void give_back(struct fsp_spawner *s, struct fsp_zygote *z) {
    struct fsp_job *job = next_asked(z);
    struct fsp_child child = z->child;
    fsp_poller_forget(&s->poller, child.pidfd, FSP_POLL_IN);
    z->child = (struct fsp_child){-1, -1};
    z->own = NULL;
    fsp_zygote_leave(s, job, true);
    fsp_job_rejoin(s, job, child);
}

/* It has no process any more. */
static void bury(struct fsp_spawner *s, struct fsp_zygote *z, int status) {
    struct fsp_template *t = z->template;
    struct fsp_job *job;
    bool was_starting = z->state == STARTING, was_ready = z->state == READY;
    uint64_t now = sys_now(), age = now - z->born;
    retire(s, z);
    if (was_ready) count(t, &t->state.restarted);
    if (was_starting) set_short(s, z, FSP_REFUSED_EXIT, status);
    if (was_ready && age < YOUNG_NS) place_of(t, s)->retry_at = now + BACKOFF_NS;
    if (was_ready && age >= YOUNG_NS) place_of(t, s)->failures = 0;
    while ((job = next_asked(z))) fsp_job_forked(s, job, pid_of(z, job));
    close_channel(s, z);
    unlink_zygote(s, z);
    z->state = DEAD;
    if (z->jobs == 0) free_zygote(z);
}

static void died(struct fsp_spawner *s, struct fsp_zygote *z) {
    struct fsp_status status = {0};
    int r = 1;
    if (!hear(s, z, true)) return;
    if (z->own && !pid_of(z, z->own))
        give_back(s, z);
    else
        r = fsp_wait(&z->child, 0, &status);
    if (r == 0) { /* not waitable yet: traced */
        z->unwatched = true;
        s->tend_at = 0;
        return;
    }
    if (r < 0) sys_close(z->child.pidfd);
    bury(s, z, status.code);
}

/* ---- requests ---- */

static int take_slot(struct fsp_zygote *z) {
    if (z->nfree) return z->free[--z->nfree];
    return z->fresh < FSP_SNAP_SLOTS ? (int)z->fresh++ : -1;
}

void fsp_zygote_leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped) {
    struct fsp_zygote *z = job->zygote;
    if (z == NULL) return;
    struct fsp_snap_slot *slot = &z->page->slot[job->zygote_slot];
    if (job->may_checkpoint && slot->pid) place_of(z->template, s)->misses++;
    job->zygote = NULL;
    z->of[job->zygote_slot] = NULL;
    if (slot->pid && slot->error.err)
        job->outcome.error =
            (struct fsp_error){slot->error.err, slot->error.stage, slot->error.index};
    if (reaped) { /* else the child may still write there */
        *slot = (struct fsp_snap_slot){0};
        z->free[z->nfree++] = (uint16_t)job->zygote_slot;
    }
    if (--z->jobs == 0 && z->state == DEAD) free_zygote(z);
}

/* The job shall end: a process that does not answer will not be waited for much longer. */
void fsp_zygote_hurry(struct fsp_spawner *s, struct fsp_zygote *z) {
    uint64_t soon = sys_now() + HURRY_NS;
    if (z->due > soon) set_due(s, z, soon);
}

/* Let descriptors travel with a message. */
static void add_fds(struct msghdr *msg, char *control, const int *fd, size_t n) {
    msg->msg_control = control;
    msg->msg_controllen = CMSG_SPACE(n * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    *c = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n * sizeof(int))};
    memcpy(CMSG_DATA(c), fd, n * sizeof(int));
}

/* Which of the three the fork has already, and which go along. */
static int choose_fds(const struct fsp_spawner *s, const struct fsp_stdio *io, int32_t from[3],
                      int send[3]) {
    int n = 0;
    for (int i = 0; i < 3; i++) {
        int fd = io->fd[i] < 0 ? i : io->fd[i];
        if (i < 2 ? fd == s->devnull : fd == 2)
            from[i] = FSP_SNAP_OWN; /* as it was started: see spawn() */
        else if (fd == s->devnull)
            from[i] = FSP_SNAP_NULL;
        else {
            int k = 0;
            while (k < n && send[k] != fd) k++;
            if (k == n) send[n++] = fd;
            from[i] = k;
        }
    }
    return n;
}

/* May this fork ask to become a template process?  Not with other rights than it would need. */
static bool may_checkpoint(struct fsp_spawner *s, const struct fsp_zygote *z,
                           const struct fsp_job *job) {
    return z->may_checkpoint && place_of(z->template, s)->misses < MISSES &&
           !fsp_plan_credentials(job->plan);
}

static int request(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job,
                   const struct fsp_stdio *io) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {0};
    struct fsp_snap_request request = {.slot = job->zygote_slot, .mask = s->engine->mask};
    struct iovec parts[2] = {
        {&request,                               sizeof request                      },
        {(char *)job->plan + FSP_SNAP_PLAN_FROM, job->plan->size - FSP_SNAP_PLAN_FROM}
    };
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 1};
    int send[3], nsend = choose_fds(s, io, request.fd, send);
    if (!(job->plan->flags & (FSP_FLAG_SETSID | FSP_FLAG_SETPGROUP))) request.group = getpgrp();
    if (job->plan->death_signal) request.parent = getpid();
    if (z->told != job->plan) {
        request.plan_size = (uint32_t)job->plan->size;
        request.plan_at = (uint64_t)(uintptr_t)job->plan;
        msg.msg_iovlen = 2;
    }
    job->may_checkpoint = may_checkpoint(s, z, job);
    if (job->may_checkpoint) request.flags |= FSP_SNAP_MAY_CHECKPOINT;
    if (nsend) add_fds(&msg, control, send, (size_t)nsend);
    return (int)FSP_CALL("sendmsg", sendmsg(z->socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void remember(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job) {
    if (z->told != job->plan) {
        fsp_plan_unref(z->told);
        z->told = fsp_plan_ref(job->plan);
    }
    job->next = NULL;
    if (z->asked)
        z->last->next = job;
    else
        z->asked = job;
    z->last = job;
    if (z->due == 0) set_due(s, z, sys_now() + ANSWER_NS);
}

static bool ask(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job) {
    struct fsp_stdio io;
    int slot = take_slot(z);
    if (slot < 0) return false;
    job->zygote = z;
    job->zygote_slot = (uint32_t)slot;
    z->of[slot] = job;
    z->jobs++;
    int r = fsp_stdio_open(s, job, &io);
    if (r == 0) r = request(s, z, job, &io);
    fsp_stdio_close(s, &io);
    if (r >= 0) {
        remember(s, z, job);
        return true;
    }
    fsp_zygote_leave(s, job, true);
    return false;
}

static bool is_usable(struct fsp_spawner *s, struct fsp_zygote *z, const struct fsp_job *job,
                      uint64_t now) {
    if (z == NULL || z->state != READY || job->plan->nkeep) return false;
    if (z->at_effect && job->plan != z->template->plan) return false;
    if (!is_stale(z, now)) return true;
    retire(s, z);
    return false;
}

/* False: by exec, with whatever stdio was opened still to be closed. */
bool fsp_zygote_ask(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    struct fsp_template *t = job->options.snapshot;
    if (t == NULL || job->by_exec) return false;
    struct place *place = place_of(t, s);
    struct fsp_zygote *z = place->zygote;
    bool asked = is_usable(s, z, job, now) && ask(s, z, job);
    __atomic_add_fetch(asked ? &place->forked : &place->direct, 1, __ATOMIC_RELAXED);
    return asked;
}

/* ---- answers ---- */

static bool may_ever_checkpoint(const struct fsp_template *t, bool by_itself) {
    if (t->flags & FSP_TEMPLATE_NO_CHECKPOINT) return false;
    return by_itself || t->flags & FSP_TEMPLATE_CHECKPOINT;
}

static void refused(struct fsp_spawner *s, struct fsp_zygote *z, enum fsp_refusal why) {
    z->due = 0;
    retire(s, z);
    set_short(s, z, why, 0);
}

static void greeted(struct fsp_spawner *s, struct fsp_zygote *z, const struct fsp_snap_reply *reply,
                    const char *inputs, size_t size) {
    if (z->state != STARTING) return;
    if (reply->kind == FSP_SNAP_REFUSED) {
        refused(s, z, (enum fsp_refusal)reply->value);
        return;
    }
    if (reply->kind != FSP_SNAP_HELLO || reply->version != FSP_SNAP_VERSION ||
        keep_inputs(z, inputs, size) < 0) {
        refused(s, z, FSP_REFUSED_BUILD);
        return;
    }
    z->at_effect = reply->slot != 0;
    z->stopped_by = z->at_effect ? reply->value : 0;
    z->may_checkpoint = may_ever_checkpoint(z->template, !z->at_effect && reply->value);
    z->state = READY;
    z->due = 0;
    z->looked = z->born; /* it has read them since */
    place_of(z->template, s)->failures = place_of(z->template, s)->misses = 0;
    set_ready(z, 1);
}

/* False: it is no template process any more. */
static bool forked(struct fsp_spawner *s, struct fsp_zygote *z) {
    if (z->own && !pid_of(z, z->own)) { /* it could not fork, and goes on as it was */
        give_back(s, z);
        bury(s, z, 0);
        return false;
    }
    struct fsp_job *job = next_asked(z);
    if (job == NULL) return true;
    z->own = NULL;
    z->due = z->asked ? sys_now() + ANSWER_NS : 0;
    fsp_job_forked(s, job, pid_of(z, job));
    if (z->state == RETIRED && z->asked == NULL) let_go(s, z);
    return true;
}

/* ---- a fork becomes a template process ---- */

/* `fd`: a page and stderr, or none. */
static int send_go(int socket, int32_t yes, const int *fd) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {0};
    struct fsp_snap_reply reply = {.kind = FSP_SNAP_GO, .value = yes};
    struct iovec part = {&reply, sizeof reply};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
    if (yes) add_fds(&msg, control, fd, 2);
    return (int)FSP_CALL("sendmsg", sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
}

/* Everything that can fail, before anything changes. */
static int adopt(struct fsp_spawner *s, struct fsp_zygote *z, const struct fsp_zygote *old,
                 const char *inputs, size_t size) {
    int fd[2] = {open_page(z), 2};
    if (fd[0] < 0) return fd[0];
    z->file = old->file;
    z->since = old->since;
    int r = keep_inputs(z, inputs, size);
    if (r == 0) r = sys_nonblock(z->socket);
    if (r == 0) r = fsp_poller_watch(&s->poller, z->socket, FSP_POLL_IN, token(z, false));
    if (r == 0) r = send_go(z->socket, 1, fd);
    sys_close(fd[0]);
    return r < 0 ? r : 0;
}

/* The job's process is the template's from now on, and the job waits for the fork of it. */
static void exchange(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job) {
    struct place *place = place_of(z->template, s);
    z->child = fsp_job_part(s, job);
    z->own = job;
    if (place->zygote) retire(s, place->zygote);
    place->misses = 0;
    z->state = READY;
    z->at_checkpoint = true;
    count(z->template, &z->template->state.checkpoints);
    z->looked = z->born;
    take_place(s, z);
    set_ready(z, 1);
    job->zygote = z;
    job->zygote_slot = (uint32_t)take_slot(z);
    z->of[job->zygote_slot] = job;
    z->jobs++;
    remember(s, z, job);
    /* What the program made of its strings is not what the next request shall find. */
    fsp_plan_unref(z->told);
    z->told = NULL;
    z->unwatched = fsp_poller_watch_child(&s->poller, &z->child, token(z, true)) < 0;
    if (z->unwatched) s->tend_at = 0;
}

static bool may_exchange(struct fsp_spawner *s, const struct fsp_zygote *z,
                         const struct fsp_job *job, const struct fsp_snap_reply *reply) {
    const struct place *place = place_of(z->template, s);
    if (reply->version != FSP_SNAP_VERSION || reply->value != FSP_REFUSED_NOT) return false;
    if (place->left || job == NULL || job->child.pidfd < 0) return false;
    if (job->exited || job->terminating) return false;
    return place->zygote == NULL || !place->zygote->at_checkpoint;
}

/* It is not what it could be: the caller may tell its user. */
static void refused_to_exchange(struct fsp_spawner *s, struct fsp_zygote *z,
                                const struct fsp_snap_reply *reply) {
    place_of(z->template, s)->misses = MISSES;
    pthread_mutex_lock(&s->engine->lock);
    z->template->state.no_checkpoint = (enum fsp_refusal)reply->value;
    pthread_mutex_unlock(&s->engine->lock);
    fsp_waker_set(&s->engine->waker);
}

static void asked_to_exchange(struct fsp_spawner *s, struct fsp_zygote *old,
                              const struct fsp_snap_reply *reply, const char *inputs, size_t size,
                              int socket) {
    struct fsp_job *job = reply->slot < FSP_SNAP_SLOTS ? old->of[reply->slot] : NULL;
    if (reply->value) refused_to_exchange(s, old, reply);
    if (job) job->may_checkpoint = false; /* it did ask: no miss */
    struct fsp_zygote *z = may_exchange(s, old, job, reply) ? new_zygote(s, old->template) : NULL;
    if (z == NULL) {
        if (!reply->value) (void)send_go(socket, 0, NULL);
        sys_close(socket);
        return;
    }
    z->socket = socket;
    if (adopt(s, z, old, inputs, size) == 0) {
        exchange(s, z, job);
        return;
    }
    (void)send_go(socket, 0, NULL);
    close_channel(s, z);
    free_zygote(z);
}

/* ---- all that it says ---- */

static long receive(struct fsp_zygote *z, struct fsp_snap_reply *reply, char *more, size_t room,
                    int *fd) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec parts[2] = {
        {reply, sizeof *reply},
        {more,  room         }
    };
    struct msghdr msg = {.msg_iov = parts,
                         .msg_iovlen = 2,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    long n;
    *fd = -1;
    do n = FSP_CALL("recvmsg", recvmsg(z->socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
    while (n == -EINTR);
    struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS) memcpy(fd, CMSG_DATA(c), sizeof *fd);
    return n;
}

/* False: it is no template process any more. */
static bool hear(struct fsp_spawner *s, struct fsp_zygote *z, bool all) {
    struct fsp_snap_reply reply;
    int fd;
    while (z->socket >= 0) {
        long n = receive(z, &reply, s->scratch, FSP_SCRATCH, &fd);
        if (n == -EAGAIN || n == -ENOMEM) break;
        if (n < (long)sizeof reply) { /* it has gone, or is about to */
            fsp_poller_forget(&s->poller, z->socket, FSP_POLL_IN);
            break;
        }
        if (reply.kind == FSP_SNAP_FORKED) {
            if (!forked(s, z)) return false;
            if (!all && z->asked == NULL) break; /* what else there may be the poller tells again */
        } else if (reply.kind == FSP_SNAP_CHECKPOINT)
            asked_to_exchange(s, z, &reply, s->scratch, (size_t)n - sizeof reply, fd);
        else
            greeted(s, z, &reply, s->scratch, (size_t)n - sizeof reply);
    }
    return true;
}

void fsp_zygote_ready(struct fsp_spawner *s, uint64_t event) {
    struct fsp_zygote *z = s->zygotes;
    while (z && z->id != (uint32_t)(event >> 1)) z = z->next;
    if (z == NULL) return;
    if (event & 1)
        died(s, z);
    else
        (void)hear(s, z, false);
}

/* ---- what is due ---- */

static void expire(struct fsp_spawner *s, struct fsp_zygote *z) {
    z->due = 0;
    if (z->state == STARTING) {
        retire(s, z);
        set_short(s, z, FSP_REFUSED_TIME, 0);
    } else
        retire(s, z);
    put_down(z);
}

/* Under the lock.  The last spawner to leave a closed template takes it off the list. */
static void leave(struct fsp_spawner *s, struct fsp_template *t) {
    struct fsp_template **at = &s->engine->templates;
    place_of(t, s)->left = true;
    if (++t->nleft < t->nspawners) return;
    while (*at != t) at = &(*at)->next;
    *at = t->next;
    unref(t);
}

/* The next template that this spawner has to do something about, with a reference; or NULL. */
static struct fsp_template *next_task(struct fsp_spawner *s, uint64_t now, bool *close) {
    struct fsp_engine *e = s->engine;
    struct fsp_template *t;
    pthread_mutex_lock(&e->lock);
    s->templates = false;
    for (t = e->templates; t; t = t->next) {
        struct place *place = place_of(t, s);
        *close = t->closed;
        if (t->closed ? !place->left : !e->stopping && !place->zygote && place->retry_at <= now)
            break;
    }
    if (t) fsp_template_ref(t);
    if (t && t->closed) leave(s, t);
    pthread_mutex_unlock(&e->lock);
    return t;
}

static uint64_t sooner(uint64_t due, uint64_t other) {
    return other && other < due ? other : due;
}

static uint64_t next_due(struct fsp_spawner *s) {
    uint64_t due = UINT64_MAX;
    for (struct fsp_zygote *z = s->zygotes; z; z = z->next)
        due = sooner(sooner(due, z->due), z->unwatched ? sys_now() + FSP_WATCH_NS : 0);
    pthread_mutex_lock(&s->engine->lock);
    for (struct fsp_template *t = s->engine->templates; t; t = t->next) {
        struct place *place = place_of(t, s);
        if (!t->closed && !s->engine->stopping && !place->zygote && place->retry_at < due)
            due = place->retry_at;
    }
    pthread_mutex_unlock(&s->engine->lock);
    return due;
}

void fsp_zygotes_tend(struct fsp_spawner *s) {
    uint64_t now = sys_now();
    struct fsp_template *t;
    bool close;
    for (struct fsp_zygote *z = s->zygotes, *next; z; z = next) {
        next = z->next;
        if (z->due && z->due <= now) expire(s, z);
        if (z->unwatched && fsp_has_exited(&z->child)) died(s, z);
    }
    while ((t = next_task(s, now, &close))) {
        struct fsp_zygote *z = place_of(t, s)->zygote;
        if (!close)
            start(s, t);
        else if (z)
            retire(s, z);
        unref(t);
    }
    s->tend_at = next_due(s);
}

void fsp_zygotes_stop(struct fsp_spawner *s) {
    for (struct fsp_zygote *z = s->zygotes; z; z = z->next) {
        if (z->state != RETIRED) retire(s, z);
        put_down(z);
    }
}

#else

int fsp_template_new(struct fsp_engine *e, struct fsp_plan *plan, struct fsp_plan *start,
                     const char *library, uint64_t timeout, unsigned flags,
                     struct fsp_template **out) {
    (void)e, (void)plan, (void)start, (void)library, (void)timeout, (void)flags, (void)out;
    return -ENOTSUP;
}

void fsp_template_get_state(struct fsp_template *t, struct fsp_template_state *out) {
    (void)t;
    *out = (struct fsp_template_state){0};
}

void fsp_template_free(struct fsp_template *t) {
    (void)t;
}

void fsp_template_ref(struct fsp_template *t) {
    (void)t;
}

void fsp_template_unref(struct fsp_template *t) {
    (void)t;
}

void fsp_templates_orphan(struct fsp_engine *e) {
    (void)e;
}

bool fsp_zygote_ask(struct fsp_spawner *s, struct fsp_job *job, uint64_t now) {
    (void)s, (void)job, (void)now;
    return false;
}

void fsp_zygote_leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped) {
    (void)s, (void)job, (void)reaped;
}

void fsp_zygote_ready(struct fsp_spawner *s, uint64_t event) {
    (void)s, (void)event;
}

void fsp_zygote_hurry(struct fsp_spawner *s, struct fsp_zygote *z) {
    (void)s, (void)z;
}

void fsp_zygotes_tend(struct fsp_spawner *s) {
    s->tend_at = UINT64_MAX;
}

void fsp_zygotes_stop(struct fsp_spawner *s) {
    (void)s;
}

#endif
