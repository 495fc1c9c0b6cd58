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

#define LOOK_NS      100000000u /* between two looks at the program's files, */
#define LOOK_NS_EACH 1000000u   /* and as much more for each of the files */

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

int fsp_files_keep(struct fsp_zygote *z, const char *data, size_t size) {
    const struct fsp_snap_input *input;
    z->inputs = sys_malloc(size + 1);
    if (z->inputs == NULL) return -ENOMEM;
    memcpy(z->inputs, data, size);
    z->inputs_size = size;
    if (is_recent(z, &z->file)) z->suspect = z->template->plan->file;
    for (size_t at = 0; (input = next_input(z, &at)); z->ninputs++)
        if (is_recent(z, &input->id)) z->suspect = (const char *)(input + 1);
    return 0;
}

static const char *changed_input(const struct fsp_zygote *z) {
    const struct fsp_snap_input *input;
    for (size_t at = 0; (input = next_input(z, &at));) {
        const char *path = (const char *)(input + 1);
        struct fsp_snap_identity now = identify(path, input->how);
        if (!fsp_snap_same(&now, &input->id)) return path;
    }
    return NULL;
}

const char *fsp_files_changed(struct fsp_zygote *z, uint64_t now) {
    if (now - z->looked < LOOK_NS + z->ninputs * LOOK_NS_EACH) return NULL;
    z->looked = now;
    if (z->suspect) return z->suspect;
    struct fsp_snap_identity file = fsp_files_program(z->template->plan);
    return fsp_snap_same(&file, &z->file) ? changed_input(z) : z->template->plan->file;
}

#endif
