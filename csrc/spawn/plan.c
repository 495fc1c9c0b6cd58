/*
 * plan.c - what to run, flattened once into one allocation.
 *
 * A plan is measured first and then laid out: the struct, the pointer arrays, the numbers, the
 * strings.  It never changes afterwards, so any number of threads may spawn from it, and a child
 * that shares our memory may read it without a lock.
 *
 * Pure code: nothing here looks at the system.
 */
#include "internal.h"

/* A cursor over the allocation: with base == NULL it only measures. */
struct layout {
    char *base;
    size_t used;
};

static void *place(struct layout *at, size_t size, size_t align) {
    at->used = (at->used + align - 1) & ~(align - 1);
    void *p = at->base ? at->base + at->used : NULL;
    at->used += size;
    return p;
}

static void *place_copy(struct layout *at, const void *from, size_t size, size_t align) {
    if (from == NULL) return NULL;
    void *p = place(at, size, align);
    if (p && size) memcpy(p, from, size);
    return p;
}

static char *place_string(struct layout *at, const char *s) {
    return place_copy(at, s, s ? strlen(s) + 1 : 0, 1);
}

static size_t count(const char *const *list) {
    size_t n = 0;
    while (list && list[n]) n++;
    return n;
}

static char **place_array(struct layout *at, const char *const *list) {
    size_t n = count(list);
    return place(at, (n + 1) * sizeof(char *), _Alignof(char *));
}

static void place_strings(struct layout *at, char **array, const char *const *list) {
    size_t n = count(list);
    for (size_t i = 0; i < n; i++) {
        char *s = place_string(at, list[i]);
        if (array) array[i] = s;
    }
    if (array) array[n] = NULL;
}

static void sort_unique(int *v, size_t *n) {
    size_t kept = 0;
    for (size_t i = 1; i < *n; i++)
        for (size_t j = i; j > 0 && v[j - 1] > v[j]; j--) {
            int swap = v[j];
            v[j] = v[j - 1];
            v[j - 1] = swap;
        }
    for (size_t i = 0; i < *n; i++)
        if (kept == 0 || v[kept - 1] != v[i]) v[kept++] = v[i];
    *n = kept;
}

/* Run twice: to measure, then to fill. */
static struct fsp_plan *lay_out(struct layout *at, const struct fsp_spec *spec) {
    struct fsp_plan *plan = place(at, sizeof *plan, _Alignof(struct fsp_plan));
    char **argv = place_array(at, spec->argv);
    char **envp = place_array(at, spec->envp);
    void *rlimits = place_copy(at, spec->rlimits, spec->nrlimits * sizeof *spec->rlimits,
                               _Alignof(struct fsp_rlimit));
    int *keep = place_copy(at, spec->keep_fds, spec->nkeep_fds * sizeof(int), _Alignof(int));
    uint32_t *groups =
        place_copy(at, spec->groups, spec->ngroups * sizeof(uint32_t), _Alignof(uint32_t));
    const char *file = place_string(at, spec->file);
    const char *search = place_string(at, spec->search);
    const char *cwd = place_string(at, spec->cwd);
    const char *cgroup = place_string(at, spec->cgroup);
    place_strings(at, argv, spec->argv);
    place_strings(at, envp, spec->envp);
    if (plan == NULL) return NULL;

    *plan = (struct fsp_plan){
        .refs = 1,
        .size = at->used,
        .file = file,
        .search = strchr(spec->file, '/') ? NULL : search,
        .argv = argv,
        .envp = envp,
        .cwd = cwd,
        .cgroup = cgroup,
        .keep = keep,
        .nkeep = spec->nkeep_fds,
        .rlimits = rlimits,
        .nrlimits = spec->nrlimits,
        .groups = groups,
        .ngroups = spec->ngroups,
        .set_groups = spec->groups != NULL,
        .uid = spec->uid,
        .gid = spec->gid,
        .umask = spec->umask,
        .pgroup = spec->pgroup,
        .death_signal = spec->death_signal,
        .flags = spec->flags,
    };
    sort_unique(keep, &plan->nkeep);
    return plan;
}

int fsp_plan_new(const struct fsp_spec *spec, struct fsp_plan **out) {
    if (spec->file == NULL || spec->argv == NULL || spec->argv[0] == NULL) return -EINVAL;
#ifndef __linux__
    if (spec->cgroup || spec->death_signal || spec->flags & FSP_FLAG_NO_NEW_PRIVS) return -ENOTSUP;
#endif
    struct layout at = {0};
    (void)lay_out(&at, spec);
    at.base = sys_malloc(at.used);
    if (at.base == NULL) return -ENOMEM;
    at.used = 0;
    *out = lay_out(&at, spec);
    return 0;
}

/* By address and not by difference: the two allocations are of different processes. */
#define MOVED(p)    ((void *)((char *)plan + ((uint64_t)(uintptr_t)(p) - from)))
#define RELOCATE(p) ((p) ? MOVED(p) : NULL)

void fsp_plan_relocate(struct fsp_plan *plan, uint64_t from) {
    char **argv = MOVED(plan->argv), **envp = MOVED(plan->envp);
    for (char **s = argv; *s; s++) *s = MOVED(*s);
    for (char **s = envp; *s; s++) *s = MOVED(*s);
    plan->argv = argv;
    plan->envp = envp;
    plan->file = RELOCATE(plan->file);
    plan->search = RELOCATE(plan->search);
    plan->cwd = RELOCATE(plan->cwd);
    plan->cgroup = RELOCATE(plan->cgroup);
    plan->keep = RELOCATE(plan->keep);
    plan->rlimits = RELOCATE(plan->rlimits);
    plan->groups = RELOCATE(plan->groups);
}

struct fsp_plan *fsp_plan_ref(struct fsp_plan *plan) {
    __atomic_add_fetch(&plan->refs, 1, __ATOMIC_RELAXED);
    return plan;
}

void fsp_plan_unref(struct fsp_plan *plan) {
    if (plan && __atomic_sub_fetch(&plan->refs, 1, __ATOMIC_ACQ_REL) == 0) free(plan);
}

char *const *fsp_plan_environment(const struct fsp_plan *plan) {
    return plan->envp;
}
