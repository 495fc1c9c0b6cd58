/*
 * sweep.c - see sweep.h.
 *
 * In the short form each answer is given once, and one of them to each of the first calls, and each
 * for good, in the first scene that comes to the place.  FSP_SWEEP=all: in each that does.
 */
#include "sweep.h"

#ifdef __linux__
#include <stdio.h>

#include "tap.h"

#define MOST       1024 /* places */
#define MOST_CALLS TIMES(6)
#define MOST_SIDE  8 /* at a time: they wait more than they do */

/* What a call may answer, by its man page; what passes is no answer for good.  None at all: it
 * cannot fail as it is called here, or says with it that what it names has gone. */
static const struct answers {
    const char *call;
    int err[8], passes[4];
} all_answers[] = {
    {"malloc",             {ENOMEM},                                            {0}                    },
    {"realloc",            {ENOMEM},                                            {0}                    },
    {"mmap",               {ENOMEM},                                            {0}                    },
    {"mprotect",           {ENOMEM},                                            {0}                    },
    {"thread",             {EAGAIN},                                            {0}                    },
    {"fdopendir",          {ENOMEM},                                            {0}                    },
    /* Processes: */
    {"clone3",             {EAGAIN, ENOMEM, ENOSYS, EPERM, EINVAL, ENOSPC},     {0}                    },
    {"clone",              {EAGAIN, ENOMEM, ENOSYS, EPERM, EINVAL, ENOSPC},     {0}                    },
    {"vfork",              {EAGAIN, ENOMEM, ENOSYS},                            {0}                    },
    {"posix_spawn",        {EAGAIN, ENOMEM, ENOSYS, ENOENT, EACCES, E2BIG},     {0}                    },
    {"execve",             {E2BIG, EACCES, EIO, ELOOP, ENOEXEC, ENOMEM, EPERM}, {ENOENT, ETXTBSY}      },
    {"pidfd_open",         {EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM},             {0}                    },
    {"pidfd_getfd",        {EMFILE, ENFILE, EPERM, ENOSYS, ESRCH},              {0}                    },
    {"pidfd_send_signal",  {EPERM, ENOSYS},                                     {0}                    },
    {"pidfd_info",         {ENOTTY, EINVAL, EPERM},                             {0}                    },
    {"kill",               {EPERM},                                             {0}                    },
    {"waitid",             {0},                                                 {EINTR}                },
    {"getppid",            {0},                                                 {0}                    },
    /* What a process is: */
    {"setsid",             {EPERM},                                             {0}                    },
    {"setpgid",            {EPERM, EACCES, ESRCH},                              {0}                    },
    {"prctl",              {EINVAL, EPERM, ENOSYS},                             {0}                    },
    {"prlimit64",          {EPERM, EINVAL, ENOSYS},                             {0}                    },
    {"fsp_setgroups",      {EPERM, ENOMEM, EINVAL},                             {0}                    },
    {"fsp_setresgid",      {EPERM, EINVAL},                                     {0}                    },
    {"fsp_setresuid",      {EPERM, EAGAIN, EINVAL},                             {0}                    },
    {"chdir",              {EACCES, EIO, ELOOP, ENOENT, ENOMEM, ENOTDIR},       {0}                    },
    {"umask",              {0},                                                 {0}                    },
    {"rt_sigaction",       {0},                                                 {0}                    },
    {"rt_sigprocmask",     {0},                                                 {0}                    },
    {"sigprocmask",        {0},                                                 {0}                    },
    {"sched_getaffinity",  {ESRCH},                                             {0}                    },
    {"uname",              {EFAULT},                                            {0}                    },
    {"sched_getscheduler", {EPERM, ENOSYS},                                     {0}                    },
    {"sched_setscheduler", {EPERM, ENOSYS},                                     {0}                    },
    /* Descriptors: */
    {"open",               {EMFILE, ENFILE, EACCES, ENOENT, ENOMEM},            {0}                    },
    {"openat",             {EMFILE, ENFILE, EACCES, ENOENT, ENOMEM},            {0}                    },
    {"close",              {0},                                                 {0}                    },
    {"close_range",        {EMFILE, ENOMEM, ENOSYS, EPERM},                     {0}                    },
    {"dup3",               {EMFILE},                                            {EINTR, EBUSY}         },
    {"fcntl",              {EMFILE, EPERM},                                     {0}                    },
    {"pipe2",              {EMFILE, ENFILE},                                    {0}                    },
    {"socketpair",         {EMFILE, ENFILE, ENOMEM, EPERM},                     {0}                    },
    {"memfd_create",       {EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM},             {0}                    },
    {"ftruncate",          {ENOSPC, EPERM},                                     {EINTR}                },
    {"eventfd",            {EMFILE, ENFILE, ENOMEM},                            {0}                    },
    {"epoll_create1",      {EMFILE, ENFILE, ENOMEM},                            {0}                    },
    {"epoll_ctl",          {ENOSPC, ENOMEM},                                    {0}                    },
    {"epoll_wait",         {0},                                                 {EINTR}                },
    {"poll",               {ENOMEM},                                            {EINTR}                },
    {"futex",              {0},                                                 {EINTR, EAGAIN}        },
    {"sigaction",          {EINVAL},                                            {0}                    },
    {"wake",               {EIO},                                               {0}                    },
    {"nanosleep",          {0},                                                 {EINTR}                },
    /* Files: */
    {"stat",               {ENOENT, EACCES, ENOMEM},                            {0}                    },
    {"lstat",              {ENOENT, EACCES, ENOMEM},                            {0}                    },
    {"fstat",              {ENOMEM},                                            {0}                    },
    {"access",             {EACCES, ENOENT, ELOOP, ENOMEM},                     {0}                    },
    {"getdents64",         {ENOENT},                                            {0}                    },
    {"pread",              {EIO},                                               {EINTR}                },
    {"pread64",            {EIO},                                               {EINTR}                },
    {"read",               {EIO},                                               {EINTR, EAGAIN}        },
    {"write",              {EIO, ENOSPC, EPERM},                                {EINTR, EAGAIN}        },
    {"ioctl",              {ENOTTY, EINVAL, EIO, EPERM},                        {0}                    },
    {"sendmsg",            {ENOBUFS, ENOMEM, EPIPE, ECONNRESET, ETOOMANYREFS},  {EAGAIN}               },
    {"recvmsg",            {0},                                                 {EAGAIN, EINTR, ENOMEM}},
    {"recv",               {ENOMEM, ECONNRESET},                                {EAGAIN, EINTR}        },
};

/* Which scene came to a place first, how often it asked there, and for what. */
static struct {
    const struct scene *scene;
    long asked;
    const char *call;
    bool may_be_left_out;
} seen[MOST];

static const struct scene *all_scenes;
static size_t nscenes;
static long *asked_in; /* [scene][place] */
static long places, answers_given;

static const struct answers *answers_to(const char *call) {
    for (size_t i = 0; call && i < LENGTH(all_answers); i++)
        if (strcmp(all_answers[i].call, call) == 0) return &all_answers[i];
    return NULL;
}

/* ---- undisturbed ---- */

void sweep_arm(const struct refusal *refusal) {
    if (refusal->site)
        faults_arm_at(refusal->site, refusal->err, refusal->first, refusal->count);
    else
        faults_arm(NULL, 0, 0, FAULTS_NONE);
}

static const struct scene *next_scene;

static void live(void *refusal) {
    next_scene->live(refusal);
}

static void look_at_next(void) {
    struct refusal none = {0};
    long *asked = asked_in + (next_scene - all_scenes) * MOST;
    faults_arm(NULL, 0, 0, FAULTS_NONE); /* what is noted is shared from here on */
    faults_off();
    tap_fork(live, &none);
    for (int i = 0; faults_site(i); i++) {
        asked[i] = faults_asked(faults_site(i));
        if (asked[i] == 0 || seen[i].scene) continue;
        seen[i].scene = next_scene;
        seen[i].asked = asked[i];
        seen[i].call = faults_call(faults_site(i));
    }
}

void sweep_look(const struct scene *scenes, size_t n) {
    all_scenes = scenes;
    nscenes = n;
    asked_in = mmap(NULL, n * MOST * sizeof *asked_in, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < n; i++) {
        next_scene = &scenes[i];
        tap_run(scenes[i].name, look_at_next);
    }
}

/* ---- refused ---- */

static struct {
    int pid;
    struct refusal refusal;
} running[MOST_SIDE];
static size_t nrunning;

static void live_anew(void *refusal) {
    faults_count_anew(); /* others do so beside us */
    live(refusal);
}

static void wait_for(size_t i) {
    const struct refusal *r = &running[i].refusal;
    if (running[i].pid && !tap_fork_end(running[i].pid))
        tap_note("%s, from call %ld on %ld", strerror(r->err), r->first, r->count);
    running[i].pid = 0;
}

static void refuse(const struct site *site, int err, long first, long count) {
    size_t i = nrunning++ % LENGTH(running);
    wait_for(i);
    running[i].refusal = (struct refusal){site, err, first, count};
    running[i].pid = tap_fork_start(live_anew, &running[i].refusal);
    answers_given++;
}

/* Each answer once, and one of them to each of the first calls. */
static void refuse_once(const struct site *site, const int *errors, long asked) {
    long n = 0;
    while (errors[n]) n++;
    for (long k = 0; n && (k < n || (k < asked && k < MOST_CALLS)); k++)
        refuse(site, errors[k % n], k % asked, 1);
}

static void refuse_in(const struct scene *scene, const struct site *site, long asked) {
    const struct answers *a = answers_to(seen[site->number].call);
    next_scene = scene;
    refuse_once(site, a->err, asked);
    refuse_once(site, a->passes, asked);
    for (const int *err = a->err; *err; err++) refuse(site, *err, 0, FAULTS_ALL);
    for (size_t i = 0; i < LENGTH(running); i++) wait_for(i);
}

static const struct site *next;

static void refuse_at_next(void) {
    const char *form = getenv("FSP_SWEEP");
    bool all = form && strcmp(form, "all") == 0;
    REQUIRE(seen[next->number].scene != NULL);
    REQUIRE(answers_to(seen[next->number].call) != NULL);
    places++;
    for (size_t i = 0; i < nscenes; i++) {
        long asked = asked_in[i * MOST + (size_t)next->number];
        if (asked && (all || &all_scenes[i] == seen[next->number].scene))
            refuse_in(&all_scenes[i], next, asked);
    }
}

static bool is_of(const struct site *site, const char *path) {
    return strncmp(site->file, path, strlen(path)) == 0;
}

void sweep_places(const char *path, bool all) {
    for (int i = 0; (next = faults_site(i)); i++) {
        const char *call = seen[i].call ? seen[i].call : "never asked";
        char name[200];
        if (!is_of(next, path) || (!all && !answers_to(seen[i].call))) continue;
        if (seen[i].may_be_left_out && seen[i].scene == NULL) continue;
        snprintf(name, sizeof name, "%s:%d, %s", next->file, next->line, call);
        tap_run(name, refuse_at_next);
    }
}

void each_place_is_in_a_room_that_is_swept(void) {
    static const char *const rooms[] = {"csrc/os/",       "csrc/spawn/", "csrc/engine/",
                                        "csrc/template/", "csrc/reset/", "csrc/log/"};
    const struct site *site;
    for (int i = 0; (site = faults_site(i)); i++) {
        bool swept = false;
        for (size_t k = 0; k < LENGTH(rooms); k++) swept |= is_of(site, rooms[k]);
        /* This program's own, which a test may ask for. */
        if (!swept && !is_of(site, "tests/")) CHECK_STR(site->file, "one of csrc's");
    }
}

void sweep_may_leave_out(const char *path) {
    for (int i = 0; faults_site(i); i++) seen[i].may_be_left_out |= is_of(faults_site(i), path);
}

void sweep_never_refuses(const char *path, const char *call) {
    for (int i = 0; faults_site(i); i++) {
        if (!is_of(faults_site(i), path) || !seen[i].call || strcmp(seen[i].call, call) != 0)
            continue;
        seen[i].scene = NULL;
        seen[i].may_be_left_out = true;
    }
}

size_t sweep_come_to(const char *path, size_t *all) {
    const struct site *site;
    char left[8000] = "";
    size_t n = 0, len = 0;
    *all = 0;
    for (int i = 0; (site = faults_site(i)); i++) {
        if (!is_of(site, path)) continue;
        ++*all;
        n += seen[i].asked > 0;
        if (seen[i].asked == 0 && len + 60 < sizeof left)
            len += (size_t)snprintf(left + len, sizeof left - len, " %s:%d",
                                    site->file + strlen(path), site->line);
    }
    tap_note("no scene comes to:%s", left);
    return n;
}

void sweep_tell(void) {
    tap_note("%ld places that call out, %ld answers instead of what they ask for", places,
             answers_given);
}

#endif
