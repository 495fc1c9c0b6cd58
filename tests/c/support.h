/*
 * support.h - what the tests share: plans in one line, children that tell what they see, calls
 * that fail on demand.
 */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "spawn/internal.h" /* first: it sets the feature macros */

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

/* So many times, but fewer where each takes ten times as long. */
#define TIMES(n) (UNDER_TSAN ? ((n) + 4) / 5 : (n))

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* ---- the program itself, run again as a child that tells (helper.c) ---- */

/* Never returns when this process is such a child.  To be called first in main. */
void support_begin(int argc, char **argv);
extern char support_self[PATH_MAX];

/* Be a template process that misbehaves (puppet.c); never returns. */
void support_puppet(const char *mode) __attribute__((noreturn));

/* ---- plans ---- */

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

/* A command with the flags of subprocess and the environment of the test. */
struct fsp_spec support_spec(const char *const *argv);
#define COMMAND(...)        support_spec(ARGV(__VA_ARGS__))
#define SHELL(script)       COMMAND("/bin/sh", "-c", script)
#define HELPER(mode)        COMMAND(support_self, "--helper", mode)
#define HELPER_TO(mode, fd) COMMAND(support_self, "--helper", mode, fd)

struct fsp_plan *support_plan(const struct fsp_spec *spec); /* exits when it cannot */

/* Run these tests once with each backend. */
void support_each_backend(void (*tests)(void));
/* Is it one that tells neither stages nor lets the hook see its child? */
bool support_is_posix_spawn(void);
/* Will it start this one?  What a libc's cannot do goes to fork: musl's closes no descriptors. */
bool support_by_posix_spawn(const struct fsp_spec *spec);

/* ---- spawning on this thread ---- */

struct run {
    int result;
    struct fsp_error error;
    struct fsp_status status;
    size_t len;
    char out[16384]; /* with a final NUL */
};

/* Spawn, collect stdout, wait. */
void support_run(const struct fsp_spec *spec, struct run *run);
/* The same with descriptors and a mask; nothing is collected. */
void support_run_with(const struct fsp_spec *spec, const struct fsp_stdio *io, const uint64_t *mask,
                      struct run *run);
/* Spawn only: 0 or -errno. */
int support_spawn(const struct fsp_spec *spec, const struct fsp_stdio *io, struct fsp_child *child,
                  struct fsp_error *error);

/* The value of "name=value\n" in the report of a helper ("" if there is none), until the next. */
const char *support_field(const char *report, const char *name);

/* Read to end of file; the text that came, NUL-terminated. */
size_t support_read_all(int fd, char *buf, size_t size);

/* ---- the system ---- */

int support_threads(void);       /* of this process; 1 where it cannot be told */
size_t support_heap_bytes(void); /* allocated now; 0 without ASan, which counts them */

/* A fresh directory, removed with all that is in it at exit of the process that asked. */
const char *support_dir(void);
/* A path in it.  The text lives until the 64th next call. */
const char *support_path(const char *name);
void support_write_file(const char *path, const char *text, unsigned mode);
/* Make it look as if last changed so many seconds ago. */
void support_age(const char *path, int seconds);

/* A pipe, both ends close-on-exec and numbered from `floor` on. */
void support_pipe(int fd[2], int floor);
/* A copy of fd at exactly this number, not close-on-exec. */
void support_dup_to(int fd, int number);

bool support_stopped(pid_t pid); /* a child of ours that is stopped */

/* Does a pidfd tell the status that someone else was told (Linux 6.15)? */
bool support_remembers(void);
/* waitpid(-1), once: a thread. */
void *support_reap_any(void *unused);

/* Kill this one process: never, by a number that is missing, a group or everyone. */
bool support_kill(long pid);

/* ---- calls that fail on demand ---- */

/*
 * The calls behind the seam are counted, in this process and in its children (even those with
 * memory of their own).  Those from the first-th on, `count` of them, fail with err.  `name`
 * restricts both to one call.
 */
void faults_arm(const char *name, int err, long first, long count);
void faults_spare_this_thread(void); /* from now on its own calls neither count nor fail */
void faults_off(void);
/* For a forked process: its counts are no one else's any more. */
void faults_count_anew(void);
long faults_seen(void); /* calls counted since faults_arm */
#define FAULTS_ALL  0x7fffffffL
#define FAULTS_NONE 0L /* as count: only look */
/* Names of the calls seen, in order; NULL past the last. */
const char *faults_name(long i);
long faults_count_of(const char *name);

#ifdef __linux__

/* The same for one place (sites.h), whatever it calls. */
void faults_arm_at(const struct site *site, int err, long first, long count);
/* From now on also those of what templates load, if it is sweep.so (far.h). */
void faults_also_far(void);
/* Of far.h, until the next faults_arm. */
void faults_far_wanted(unsigned flags);
/* All places that there are: the first, the one after; NULL past the last. */
const struct site *faults_site(int number);
/* How often they asked since the latest faults_arm, and for what (NULL: never). */
long faults_asked(const struct site *site);
const char *faults_call(const struct site *site);

#endif

/* Hold the children that come to this call until released; how many are held there now. */
void faults_hold(const char *name);
int faults_held(void);
void faults_release(void);

/* Raise this signal in the next child that comes to this call. */
void faults_raise(const char *name, int sig);

#endif
