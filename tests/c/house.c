/*
 * house.c - see house.h.
 */
#include "house.h"

#ifdef __linux__
#include <dirent.h>
#include <libgen.h>
#include <stdio.h>

const char *house_object = "preload.so";

const char *library(void) {
    static char path[PATH_MAX];
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", support_self);
    snprintf(path, sizeof path, "%s/%s", dirname(dirname(dirname(copy))), house_object);
    return path;
}

struct fsp_reset_state state_of(const struct house *h) {
    struct fsp_reset_state state;
    fsp_reset_get_state(h->r, &state);
    return state;
}

struct fsp_template_state template_of(const struct house *h) {
    struct fsp_template_state state;
    fsp_template_get_state(h->t, &state);
    return state;
}

struct fsp_job_options options_for(const struct house *h) {
    struct fsp_job_options options = listen_options();
    options.snapshot = h->t;
    options.reset = h->r;
    return options;
}

int furnish_house(struct house *h) {
    struct fsp_spec spec = SHELL(":");
    spec.flags |= FSP_FLAG_SETSID; /* as listen.c has it */
    struct fsp_plan *plan = support_plan(&spec);
    int r = fsp_template_new(h->e, plan, NULL, library(), 20 * SECOND, 0, &h->t);
    fsp_plan_unref(plan);
    if (r < 0) return r;
    r = fsp_reset_new(h->e, h->t, &h->r);
    if (r < 0) fsp_template_free(h->t);
    return r;
}

struct house open_house(unsigned spawners) {
    struct house h = {.e = listen_engine(spawners)};
    if (!CHECK_INT(furnish_house(&h), 0)) _exit(1);
    CHECK(WAIT_UNTIL(template_of(&h).ready == spawners));
    return h;
}

/* ---- what is there ---- */

/* For each of our threads, with the path of its folder in proc(5). */
static size_t sum_over_threads(size_t (*count)(const char *folder, void *arg), void *arg) {
    size_t n = 0;
    char path[300];
    struct dirent *entry;
    DIR *tasks = opendir("/proc/self/task");
    while (tasks && (entry = readdir(tasks))) {
        snprintf(path, sizeof path, "/proc/self/task/%s", entry->d_name);
        if (entry->d_name[0] != '.') n += count(path, arg);
    }
    if (tasks) closedir(tasks);
    return n;
}

struct listed {
    pid_t *pid;
    size_t n, max;
};

static size_t children_of(const char *folder, void *arg) {
    char path[320];
    struct listed *l = arg;
    size_t before = l->n;
    snprintf(path, sizeof path, "%s/children", folder);
    FILE *file = fopen(path, "re");
    while (file && l->n < l->max && fscanf(file, "%d", &l->pid[l->n]) == 1) l->n++;
    if (file) fclose(file);
    return l->n - before;
}

size_t children(pid_t *pid, size_t max) {
    struct listed l = {pid, 0, max};
    return sum_over_threads(children_of, &l);
}

/* A spawner's descriptors are its own: no census sees them (tap.c). */
static size_t descriptors_of(const char *folder, void *unused) {
    char path[320], to[300];
    size_t n = 0;
    struct dirent *entry;
    (void)unused;
    snprintf(path, sizeof path, "%s/fd", folder);
    DIR *fds = opendir(path);
    while (fds && (entry = readdir(fds))) {
        ssize_t len = readlinkat(dirfd(fds), entry->d_name, to, sizeof to - 1);
        to[len < 0 ? 0 : len] = '\0';
        n += strncmp(to, "socket:", 7) == 0 || strstr(to, "pidfd") || strstr(to, "memfd:");
    }
    if (fds) closedir(fds);
    return n;
}

void close_house(struct house *h) {
    pid_t pid[1];
    fsp_reset_free(h->r);
    fsp_template_free(h->t);
    CHECK(WAIT_UNTIL(children(pid, 1) == 0));
    CHECK(WAIT_UNTIL(sum_over_threads(descriptors_of, NULL) == 0));
    fsp_engine_free(h->e);
}

/* ---- jobs ---- */

void answers(const struct heard *one, const char *out, int code) {
    if (CHECK(one->outcome != NULL)) {
        CHECK_INT(one->outcome->error.err, 0);
        CHECK_INT(one->outcome->status.code, code);
    }
    CHECK_STR(one->all[0].data ? one->all[0].data : "", out);
}

pid_t run(const struct house *h, const char *script, struct fsp_job_options options,
          const char *out, int code) {
    static struct heard one;
    listen_submit(h->e, SHELL(script), options, &one);
    CHECK(listen_to_end(h->e, &one, 1));
    answers(&one, out, code);
    pid_t pid = one.outcome ? one.outcome->pid : 0;
    listen_free(&one, 1);
    return pid;
}

pid_t first_resident(const struct house *h) {
    uint64_t before = state_of(h).resets, end = sys_now() + TAP_PATIENCE_MS * 1000000ull;
    pid_t pid = 0;
    while (state_of(h).resets == before && sys_now() < end)
        pid = run(h, "echo x", options_for(h), "x\n", 0);
    CHECK(state_of(h).resets == before + 1);
    return pid;
}

#endif
