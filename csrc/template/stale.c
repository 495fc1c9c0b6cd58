/*
 * stale.c - the files that a template process came from, and whether they have changed since.
 *
 * The process names those that it read, as they were then (inputs.c); the program itself is
 * looked up here.  A change is told from none by the status change time, whose clock moves in
 * ticks: what was written in the tick in which the process started may be older or newer than
 * what it read, and counts as newer.
 */
#include "zygote.h"

#ifdef __linux__
#include "os/rawsys.h"

#include <sys/utsname.h>

/* Each file is looked at once in LOOK_NS and LOOK_NS_EACH for each of them, in turn: all at once
 * where there are few, a hundred at a time where there are many.  A request that comes after a time
 * without any waits for as many as fell due meanwhile.  So that these are not thousands, those of a
 * process that came from more than fall due in IDLE_NS are looked at without a request, too. */
#define LOOK_NS      100000000u
#define LOOK_NS_EACH 1000000u
#define IDLE_NS      1000000000u

/* ---- the clock of files ---- */

int64_t fsp_files_now(void) {
    struct timespec t = {0};
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return fsp_snap_ns(&t);
}

uint64_t fsp_files_tick(void) {
    struct timespec t = {0};
    clock_getres(CLOCK_REALTIME_COARSE, &t);
    return (uint64_t)fsp_snap_ns(&t);
}

/* ---- the files that a process came from ---- */

static struct fsp_snap_identity identify(const char *path, unsigned how) {
    struct stat st;
    int r = how & FSP_SNAP_FOLLOW ? sys_stat(path, &st) : (int)FSP_CALL("lstat", lstat(path, &st));
    return r < 0 ? (struct fsp_snap_identity){0} : fsp_snap_identity(&st, how);
}

struct fsp_snap_identity fsp_files_program(const struct fsp_plan *plan) {
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

/* Memory, so that no read waits; of a size that stays. */
static int size_of(int fd) {
    struct stat st;
    int seals = (int)FSP_CALL("fcntl", fcntl(fd, F_GET_SEALS));
    int r = seals < 0 ? seals : sys_fstat(fd, &st);
    if (r < 0) return r;
    bool sealed = (seals & FSP_SNAP_SEALS) == FSP_SNAP_SEALS;
    return sealed && st.st_size <= FSP_SNAP_FILES_MAX ? (int)st.st_size : -E2BIG;
}

static int read_all(int fd, char *to, size_t size) {
    for (size_t at = 0; at < size;) {
        long n = FSP_CALL("pread", pread(fd, to + at, size - at, (off_t)at));
        if (n == -EINTR) continue;
        if (n <= 0) return n < 0 ? (int)n : -EIO;
        at += (size_t)n;
    }
    return 0;
}

static void judge_all(struct fsp_zygote *z) {
    const struct fsp_snap_input *input;
    if (is_recent(z, &z->file)) z->suspect = z->template->plan->file;
    for (size_t at = 0; (input = next_input(z, &at)); z->ninputs++)
        if (is_recent(z, &input->id)) z->suspect = (const char *)(input + 1);
}

int fsp_files_keep(struct fsp_zygote *z, const struct fsp_said *said) {
    int r = 0, size = said->fd < 0 ? (int)said->size : size_of(said->fd);
    if (size < 0) return size;
    z->inputs = sys_malloc((size_t)size + 1);
    if (z->inputs == NULL) return -ENOMEM;
    if (said->fd < 0)
        memcpy(z->inputs, said->data, said->size);
    else
        r = read_all(said->fd, z->inputs, (size_t)size);
    if (r < 0) return r; /* what is there is freed with the rest */
    z->inputs[size] = 0; /* so that every name in it ends */
    z->inputs_size = (size_t)size;
    judge_all(z);
    return 0;
}

static struct fsp_snap_identity processors_of(const struct fsp_zygote *z) {
    unsigned long mask[1024] = {0};
    int size = (int)raw(sched_getaffinity, z->child.pid, sizeof mask, mask);
    return fsp_snap_told(mask, size < 0 ? 0 : (size_t)size);
}

static struct fsp_snap_identity names(void) {
    struct utsname names = {0};
    raw(uname, &names);
    return fsp_snap_told(&names, sizeof names);
}

static struct fsp_snap_identity look(const struct fsp_zygote *z,
                                     const struct fsp_snap_input *input) {
    if (input->how & FSP_SNAP_PROCESSORS) return processors_of(z);
    if (input->how & FSP_SNAP_NAMES) return names();
    return identify((const char *)(input + 1), input->how);
}

/* The next so many, and from the first again after the last. */
static const char *changed_input(struct fsp_zygote *z, size_t n) {
    for (; n; n--) {
        const struct fsp_snap_input *input = next_input(z, &z->next_input);
        if (input == NULL) {
            z->next_input = 0;
            input = next_input(z, &z->next_input);
            if (input == NULL) break;
        }
        struct fsp_snap_identity now = look(z, input);
        if (!fsp_snap_same(&now, &input->id)) return (const char *)(input + 1);
    }
    return NULL;
}

const char *fsp_files_changed(struct fsp_zygote *z, uint64_t now) {
    if (now - z->looked < LOOK_NS) return NULL;
    uint64_t n = (now - z->looked) / LOOK_NS_EACH;
    z->looked += n * LOOK_NS_EACH; /* what is left counts for the next time */
    if (z->suspect) return z->suspect;
    struct fsp_snap_identity file = fsp_files_program(z->template->plan);
    if (!fsp_snap_same(&file, &z->file)) return z->template->plan->file;
    return changed_input(z, n < z->ninputs ? (size_t)n : z->ninputs);
}

uint64_t fsp_files_idle(struct fsp_zygote *z, uint64_t now) {
    if (z->ninputs * LOOK_NS_EACH <= IDLE_NS || z->suspect) return UINT64_MAX;
    if (now - z->looked < IDLE_NS) return z->looked + IDLE_NS;
    z->suspect = fsp_files_changed(z, now); /* for the next request, which then starts by exec */
    return now + IDLE_NS;
}

#endif
