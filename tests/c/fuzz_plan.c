/*
 * fuzz_plan.c - a plan is what its spec says, here and after its bytes were told to another place.
 *
 * The input: flags that say what the spec has, then its numbers and strings.
 */
#include "fuzz.h"

#include "template/snapshot.h"

#define MOST 24 /* of each list */

static char text[8192];
static size_t used;

/* Up to 15 bytes without a NUL. */
static const char *take_string(struct bytes *b) {
    char *s = text + used;
    for (unsigned n = take(b) & 15; n && b->left; n--) {
        char c = (char)take(b);
        if (c) text[used++] = c;
    }
    text[used++] = '\0';
    return s;
}

static size_t take_list(struct bytes *b, const char **list, size_t least) {
    size_t n = least + take_below(b, MOST - 2);
    for (size_t i = 0; i < n; i++) list[i] = take_string(b);
    list[n] = NULL;
    return n;
}

/* ---- is it what the spec says? ---- */

static const struct fsp_plan *whole;

static void lies_in_it(const void *at, size_t size) {
    const char *from = (const char *)whole, *start = at;
    FUZZ_REQUIRE(start >= from && start + size <= from + whole->size);
}

static void same_string(const char *is, const char *be) {
    FUZZ_REQUIRE((is == NULL) == (be == NULL));
    if (is == NULL) return;
    lies_in_it(is, strlen(be) + 1);
    FUZZ_REQUIRE(strcmp(is, be) == 0);
}

static void same_list(char *const *is, const char *const *be) {
    size_t n = 0;
    for (; be[n]; n++) same_string(is[n], be[n]);
    lies_in_it(is, (n + 1) * sizeof *is);
    FUZZ_REQUIRE(is[n] == NULL);
}

static void same_bytes(const void *is, const void *be, size_t size) {
    FUZZ_REQUIRE((is == NULL) == (be == NULL));
    if (be == NULL) return;
    lies_in_it(is, size);
    FUZZ_REQUIRE(size == 0 || memcmp(is, be, size) == 0);
}

static bool has(const int *list, size_t n, int fd) {
    for (size_t i = 0; i < n; i++)
        if (list[i] == fd) return true;
    return false;
}

/* Those of the spec, ascending, each once. */
static void keeps(const struct fsp_plan *plan, const struct fsp_spec *spec) {
    FUZZ_REQUIRE(plan->nkeep <= spec->nkeep_fds);
    if (plan->nkeep) lies_in_it(plan->keep, plan->nkeep * sizeof *plan->keep);
    for (size_t i = 0; i < plan->nkeep; i++) {
        FUZZ_REQUIRE(i == 0 || plan->keep[i - 1] < plan->keep[i]);
        FUZZ_REQUIRE(has(spec->keep_fds, spec->nkeep_fds, plan->keep[i]));
    }
    for (size_t i = 0; i < spec->nkeep_fds; i++)
        FUZZ_REQUIRE(has(plan->keep, plan->nkeep, spec->keep_fds[i]));
}

static void is_as_said(const struct fsp_plan *plan, const struct fsp_spec *spec) {
    whole = plan;
    same_string(plan->file, spec->file);
    same_string(plan->search, strchr(spec->file, '/') ? NULL : spec->search);
    same_string(plan->cwd, spec->cwd);
    same_string(plan->cgroup, spec->cgroup);
    same_list(plan->argv, spec->argv);
    same_list(plan->envp, spec->envp);
    keeps(plan, spec);
    FUZZ_REQUIRE(plan->nrlimits == spec->nrlimits && plan->ngroups == spec->ngroups);
    same_bytes(plan->rlimits, spec->rlimits, spec->nrlimits * sizeof *spec->rlimits);
    same_bytes(plan->groups, spec->groups, spec->ngroups * sizeof *spec->groups);
    FUZZ_REQUIRE(plan->set_groups == (spec->groups != NULL));
    FUZZ_REQUIRE(plan->uid == spec->uid && plan->gid == spec->gid);
    FUZZ_REQUIRE(plan->umask == spec->umask && plan->pgroup == spec->pgroup);
    FUZZ_REQUIRE(plan->death_signal == spec->death_signal && plan->flags == spec->flags);
}

/* As a template process gets it (word.c): without the count of references, at another address. */
static void told(const struct fsp_plan *plan, const struct fsp_spec *spec) {
    struct fsp_plan *copy = malloc(plan->size);
    size_t from = FSP_SNAP_PLAN_FROM;
    memcpy((char *)copy + from, (const char *)plan + from, plan->size - from);
    fsp_plan_relocate(copy, (uint64_t)(uintptr_t)plan);
    is_as_said(copy, spec);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *argv[MOST + 1], *envp[MOST + 1];
    static struct fsp_rlimit limits[MOST];
    static uint32_t groups[MOST];
    static int keep[MOST];
    struct bytes b = {data, size};
    unsigned which = take(&b);
    used = 0;
    size_t nargs = take_list(&b, argv, 0), nlimits = take_below(&b, MOST);
    take_list(&b, envp, 0);
    struct fsp_spec spec = {
        .file = which & 1 ? take_string(&b) : argv[0],
        .argv = argv,
        .envp = envp,
        .search = which & 2 ? take_string(&b) : NULL,
        .cwd = which & 4 ? take_string(&b) : NULL,
        .rlimits = which & 8 ? limits : NULL,
        .groups = which & 16 ? groups : NULL,
        .keep_fds = which & 32 ? keep : NULL,
        .uid = take_32(&b),
        .gid = take_32(&b),
        .umask = (int)take_32(&b),
        .pgroup = (pid_t)take_32(&b),
        .flags = take_32(&b),
    };
#ifdef __linux__
    spec.cgroup = which & 64 ? take_string(&b) : NULL;
    spec.death_signal = (int)take(&b);
#else
    spec.flags &= ~FSP_FLAG_NO_NEW_PRIVS;
#endif
    for (size_t i = 0; i < nlimits; i++)
        limits[i] = (struct fsp_rlimit){
            (int)take(&b), {take_64(&b), take_64(&b)}
        };
    if (spec.rlimits) spec.nrlimits = nlimits;
    if (spec.groups) spec.ngroups = take_below(&b, MOST);
    for (size_t i = 0; i < spec.ngroups; i++) groups[i] = take_32(&b);
    if (spec.keep_fds) spec.nkeep_fds = take_below(&b, MOST);
    for (size_t i = 0; i < spec.nkeep_fds; i++) keep[i] = (int)take_32(&b) & 0x3f;

    struct fsp_plan *plan = NULL;
    int r = fsp_plan_new(&spec, &plan);
    FUZZ_REQUIRE(r == (nargs && spec.file ? 0 : -EINVAL));
    if (r < 0) return 0;
    is_as_said(plan, &spec);
    told(plan, &spec);
    fsp_plan_unref(plan);
    return 0;
}
