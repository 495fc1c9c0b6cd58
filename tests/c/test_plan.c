/*
 * test_plan.c - a plan is a copy of its spec, in one piece, and stays as it is.
 */
#include "support.h"
#include "tap.h"

#include <stdio.h>

static bool same_list(char *const *is, const char *const *be) {
    size_t i = 0;
    for (; is[i] && be[i]; i++)
        if (strcmp(is[i], be[i]) != 0) return false;
    return is[i] == NULL && be[i] == NULL;
}

static bool same_ints(const int *is, size_t n, const int *be, size_t nbe) {
    return n == nbe && memcmp(is, be, n * sizeof *is) == 0;
}

static void everything_is_there(void) {
    const struct fsp_rlimit rlimits[] = {
        {RLIMIT_CORE,   {1, 2}},
        {RLIMIT_NOFILE, {3, 4}}
    };
    const uint32_t groups[] = {5, 6, 7};
    struct fsp_spec spec = COMMAND("prog", "one", "", "three");
    spec.envp = ARGV("A=1", "B=", "C=3");
    spec.search = "/bin:/usr/bin";
    spec.cwd = "/tmp";
    spec.keep_fds = (const int[]){9, 4};
    spec.nkeep_fds = 2;
    spec.rlimits = rlimits;
    spec.nrlimits = 2;
    spec.groups = groups;
    spec.ngroups = 3;
    spec.uid = 8;
    spec.gid = 9;
    spec.umask = 027;
    spec.pgroup = 10;
    spec.flags = FSP_FLAG_SETSID | FSP_FLAG_CLOSE_FDS;

    struct fsp_plan *p = support_plan(&spec);
    CHECK_STR(p->file, "prog");
    CHECK_STR(p->search, "/bin:/usr/bin");
    CHECK_STR(p->cwd, "/tmp");
    CHECK(same_list(p->argv, ARGV("prog", "one", "", "three")));
    CHECK(same_list(p->envp, ARGV("A=1", "B=", "C=3")));
    CHECK(same_ints(p->keep, p->nkeep, (const int[]){4, 9}, 2));
    CHECK(p->nrlimits == 2 && memcmp(p->rlimits, rlimits, sizeof rlimits) == 0);
    CHECK(p->ngroups == 3 && p->set_groups && memcmp(p->groups, groups, sizeof groups) == 0);
    CHECK_INT(p->uid, 8);
    CHECK_INT(p->gid, 9);
    CHECK_INT(p->umask, 027);
    CHECK_INT(p->pgroup, 10);
    CHECK_INT(p->flags, FSP_FLAG_SETSID | FSP_FLAG_CLOSE_FDS);
    fsp_plan_unref(p);
}

static void nothing_is_asked_for(void) {
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.envp = ARGV(NULL);
    spec.flags = 0;
    struct fsp_plan *p = support_plan(&spec);
    CHECK(p->search == NULL && p->cwd == NULL && p->nkeep == 0 && p->nrlimits == 0);
    CHECK(!p->set_groups && p->envp[0] == NULL && !fsp_plan_credentials(p));
    CHECK(same_list(p->argv, ARGV("/bin/true")));
    fsp_plan_unref(p);
}

static void no_environment_list_is_an_empty_one(void) {
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.envp = NULL;
    struct fsp_plan *p = support_plan(&spec);
    CHECK(p->envp && p->envp[0] == NULL);
    fsp_plan_unref(p);
}

static void a_slash_means_no_search(void) {
    struct fsp_spec spec = COMMAND("./prog");
    spec.search = "/bin";
    struct fsp_plan *p = support_plan(&spec);
    CHECK(p->search == NULL);
    fsp_plan_unref(p);
}

static void an_empty_group_list_is_a_request(void) {
    struct fsp_spec spec = COMMAND("/bin/true");
    const uint32_t none = 0;
    spec.groups = &none;
    spec.ngroups = 0;
    struct fsp_plan *p = support_plan(&spec);
    CHECK(p->set_groups && p->ngroups == 0 && fsp_plan_credentials(p));
    fsp_plan_unref(p);
}

static void each_identity_counts_as_credentials(void) {
    struct fsp_spec spec = COMMAND("/bin/true");
    spec.uid = 0;
    struct fsp_plan *p = support_plan(&spec);
    CHECK(fsp_plan_credentials(p));
    fsp_plan_unref(p);
    spec.uid = FSP_ID_NONE;
    spec.gid = 0;
    p = support_plan(&spec);
    CHECK(fsp_plan_credentials(p));
    fsp_plan_unref(p);
}

static void the_spec_may_change_afterwards(void) {
    char file[] = "file", arg[] = "arg", env[] = "K=v", search[] = "/a:/b", cwd[] = "/c";
    const char *argv[] = {arg, NULL}, *envp[] = {env, NULL};
    int keep[] = {7, 3};
    uint32_t groups[] = {1};
    struct fsp_rlimit rlimits[] = {
        {RLIMIT_CORE, {1, 1}}
    };
    struct fsp_spec spec = support_spec(argv);
    spec.file = file;
    spec.envp = envp;
    spec.search = search;
    spec.cwd = cwd;
    spec.keep_fds = keep;
    spec.nkeep_fds = 2;
    spec.groups = groups;
    spec.ngroups = 1;
    spec.rlimits = rlimits;
    spec.nrlimits = 1;
    struct fsp_plan *p = support_plan(&spec);
    CHECK(same_ints(keep, 2, (const int[]){7, 3}, 2)); /* borrowed, not sorted in place */

    memset(file, 'x', 4);
    memset(arg, 'x', 3);
    memset(env, 'x', 3);
    memset(search, 'x', 5);
    memset(cwd, 'x', 2);
    memset(keep, 0x55, sizeof keep);
    memset(groups, 0x55, sizeof groups);
    memset(rlimits, 0x55, sizeof rlimits);
    argv[0] = envp[0] = NULL;
    memset(&spec, 0x55, sizeof spec);

    CHECK_STR(p->file, "file");
    CHECK(same_list(p->argv, ARGV("arg")));
    CHECK(same_list(p->envp, ARGV("K=v")));
    CHECK_STR(p->search, "/a:/b");
    CHECK_STR(p->cwd, "/c");
    CHECK(same_ints(p->keep, p->nkeep, (const int[]){3, 7}, 2));
    CHECK_INT(p->groups[0], 1);
    CHECK_INT(p->rlimits[0].resource, RLIMIT_CORE);
    fsp_plan_unref(p);
}

static void kept_descriptors_are_sorted_and_unique(void) {
    static const struct {
        int given[8], kept[8];
        size_t ngiven, nkept;
    } cases[] = {
        {{0},                      {0},                      0, 0},
        {{5},                      {5},                      1, 1},
        {{5, 5, 5},                {5},                      3, 1},
        {{9, 8, 7, 6, 5, 4, 3, 2}, {2, 3, 4, 5, 6, 7, 8, 9}, 8, 8},
        {{1, 2, 1, 2, 0, 3, 0, 3}, {0, 1, 2, 3},             8, 4},
        {{1000000, 0, 1000000},    {0, 1000000},             3, 2},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct fsp_spec spec = COMMAND("/bin/true");
        spec.keep_fds = cases[i].given;
        spec.nkeep_fds = cases[i].ngiven;
        struct fsp_plan *p = support_plan(&spec);
        CHECK(same_ints(p->keep, p->nkeep, cases[i].kept, cases[i].nkept));
        fsp_plan_unref(p);
    }
}

static void long_lists(void) {
    enum { MANY = 20000 };
    static char strings[MANY][24];
    static const char *list[MANY + 1];
    for (int i = 0; i < MANY; i++) {
        snprintf(strings[i], sizeof strings[i], "N%d=%d", i, i % 7);
        list[i] = strings[i];
    }
    struct fsp_spec spec = support_spec(list);
    spec.envp = list;
    struct fsp_plan *p = support_plan(&spec);
    CHECK(same_list(p->argv, list));
    CHECK(same_list(p->envp, list));
    fsp_plan_unref(p);
}

static void one_large_string(void) {
    size_t size = 4 << 20;
    char *large = malloc(size);
    memset(large, 'y', size - 1);
    large[size - 1] = '\0';
    struct fsp_spec spec = COMMAND("prog", large, "after");
    struct fsp_plan *p = support_plan(&spec);
    CHECK(same_list(p->argv, ARGV("prog", large, "after")));
    fsp_plan_unref(p);
    free(large);
}

static void what_cannot_be_run_is_refused(void) {
    struct fsp_plan *p = NULL;
    struct fsp_spec spec = COMMAND("prog");
    spec.file = NULL;
    CHECK_INT(fsp_plan_new(&spec, &p), -EINVAL);
    spec = COMMAND("prog");
    spec.argv = NULL;
    CHECK_INT(fsp_plan_new(&spec, &p), -EINVAL);
    spec.argv = ARGV(NULL);
    CHECK_INT(fsp_plan_new(&spec, &p), -EINVAL);
    CHECK(p == NULL);
}

static void no_memory(void) {
    struct fsp_plan *p = NULL;
    struct fsp_spec spec = COMMAND("prog");
    faults_arm("malloc", ENOMEM, 0, 1);
    CHECK_INT(fsp_plan_new(&spec, &p), -ENOMEM);
    CHECK(p == NULL);
    CHECK_INT(fsp_plan_new(&spec, &p), 0);
    CHECK_INT(faults_seen(), 2); /* one allocation each */
    fsp_plan_unref(p);
}

/* Aligned whatever the lengths before it: UBSan looks at the accesses. */
static void every_length_is_aligned(void) {
    char name[40];
    for (size_t len = 1; len + 1 < sizeof name; len++) {
        memset(name, 'n', len);
        name[len] = '\0';
        const int keep[] = {3, 4, 5};
        struct fsp_spec spec = COMMAND(name, name + len / 2);
        spec.keep_fds = keep;
        spec.nkeep_fds = len % 4;
        spec.cwd = name;
        struct fsp_plan *p = support_plan(&spec);
        CHECK(same_ints(p->keep, p->nkeep, keep, len % 4));
        CHECK_STR(p->cwd, name);
        fsp_plan_unref(p);
    }
}

static void unref_of_nothing(void) {
    size_t before = support_heap_bytes();
    fsp_plan_unref(NULL);
    CHECK_INT(support_heap_bytes(), before);
}

static void *take_and_drop(void *plan) {
    for (int i = 0; i < 20000; i++) fsp_plan_unref(fsp_plan_ref(plan));
    return NULL;
}

static void counted_from_many_threads(void) {
    pthread_t threads[8];
    size_t before = support_heap_bytes();
    struct fsp_spec spec = COMMAND("prog");
    struct fsp_plan *p = support_plan(&spec);
    for (size_t i = 0; i < LENGTH(threads); i++)
        CHECK_INT(pthread_create(&threads[i], NULL, take_and_drop, p), 0);
    for (size_t i = 0; i < LENGTH(threads); i++) pthread_join(threads[i], NULL);
    CHECK_INT(p->refs, 1);
    CHECK_STR(p->argv[0], "prog");
    fsp_plan_unref(p);
    /* The threads' own records may stay cached; the plan may not. */
    CHECK(support_heap_bytes() <= before + 65536);
}

static void freed_with_the_last_reference(void) {
    struct fsp_spec spec = COMMAND("prog");
    size_t before = support_heap_bytes();
    struct fsp_plan *p = support_plan(&spec);
    CHECK(fsp_plan_ref(p) == p);
    fsp_plan_unref(p);
    CHECK_STR(p->file, "prog"); /* ASan looks */
    fsp_plan_unref(p);
    CHECK_INT(support_heap_bytes(), before);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    RUN(everything_is_there);
    RUN(nothing_is_asked_for);
    RUN(no_environment_list_is_an_empty_one);
    RUN(a_slash_means_no_search);
    RUN(an_empty_group_list_is_a_request);
    RUN(each_identity_counts_as_credentials);
    RUN(the_spec_may_change_afterwards);
    RUN(kept_descriptors_are_sorted_and_unique);
    RUN(long_lists);
    RUN(one_large_string);
    RUN(what_cannot_be_run_is_refused);
    RUN(no_memory);
    RUN(every_length_is_aligned);
    RUN(unref_of_nothing);
    RUN(counted_from_many_threads);
    RUN(freed_with_the_last_reference);
    return tap_end();
}
