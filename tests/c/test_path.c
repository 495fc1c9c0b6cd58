/*
 * test_path.c - a program is found where a child would find it, and what is remembered is never
 * wrong.  What was looked at is counted at the seam.
 */
#include "support.h"
#include "tap.h"

#include <stdio.h>

static char found[PATH_MAX];

static int look(const char *search, const char *file, uint64_t max_age) {
    found[0] = '\0';
    return fsp_path_lookup(search, file, max_age, found, sizeof found);
}

static void expect_found(const char *search, const char *file, uint64_t max_age, const char *path) {
    CHECK_INT(look(search, file, max_age), strlen(path));
    CHECK_STR(found, path);
}

/* A directory of this test's own, with a time long past. */
static const char *make_dir(const char *name) {
    const char *path = support_path(name);
    CHECK(mkdir(path, 0755) == 0 || errno == EEXIST);
    support_age(path, 1000);
    return path;
}

/* dir/name, executable or not; the directory keeps an old time, but not the one it had. */
static const char *make_file(const char *dir, const char *name, unsigned mode) {
    static int age = 900;
    char relative[NAME_MAX];
    snprintf(relative, sizeof relative, "%s/%s", dir, name);
    const char *path = support_path(relative);
    support_write_file(path, "#!/bin/sh\n", mode);
    support_age(support_path(dir), age--);
    return path;
}

static const char *join(const char *a, const char *b) {
    static char lists[4][2 * PATH_MAX];
    static unsigned next;
    char *list = lists[next++ % 4];
    snprintf(list, sizeof lists[0], "%s:%s", support_path(a), support_path(b));
    return list;
}

static int resolve(struct fsp_spec spec, size_t size) {
    struct fsp_plan *plan = support_plan(&spec);
    found[0] = '\0';
    int r = fsp_plan_resolve(plan, 0, found, size);
    fsp_plan_unref(plan);
    return r;
}

static int resolve_in(const char *cwd, const char *search, const char *file) {
    struct fsp_spec spec = COMMAND(file);
    spec.search = search;
    spec.cwd = cwd;
    return resolve(spec, sizeof found);
}

/* ---- the list ---- */

static void entries_are_joined_in_order(void) {
    static const struct {
        const char *search, *joined[4];
    } cases[] = {
        {"/a",     {"/a/f"}             },
        {"/a/",    {"/a/f"}             },
        {"/",      {"/f"}               },
        {"/a:/b",  {"/a/f", "/b/f"}     },
        {"a:b/",   {"a/f", "b/f"}       },
        {"",       {"f"}                },
        {":/b",    {"f", "/b/f"}        },
        {"/a:",    {"/a/f", "f"}        },
        {"/a::/b", {"/a/f", "f", "/b/f"}},
        {":",      {"f", "f"}           },
    };
    char buf[PATH_MAX];
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const char *rest = cases[i].search;
        for (int j = 0; j < 4 && cases[i].joined[j]; j++) {
            CHECK_INT(fsp_path_next(&rest, "f", buf, sizeof buf), strlen(cases[i].joined[j]));
            CHECK_STR(buf, cases[i].joined[j]);
        }
        CHECK_INT(fsp_path_next(&rest, "f", buf, sizeof buf), 0);
    }
}

static void an_entry_too_long_is_passed_over(void) {
    char buf[8];
    const char *rest = "/abc:/abcd:/ab";
    CHECK_INT(fsp_path_next(&rest, "xyz", buf, sizeof buf), -ENAMETOOLONG); /* 8 and the NUL */
    CHECK_INT(fsp_path_next(&rest, "xyz", buf, sizeof buf), -ENAMETOOLONG);
    CHECK_INT(fsp_path_next(&rest, "xyz", buf, sizeof buf), 7);
    CHECK_STR(buf, "/ab/xyz");
    CHECK_INT(fsp_path_next(&rest, "xyz", buf, sizeof buf), 0);
}

/* ---- the search ---- */

static void the_first_match_wins(void) {
    make_dir("first");
    make_dir("second");
    const char *second = make_file("second", "order", 0755);
    expect_found(join("first", "second"), "order", 0, second);
    const char *first = make_file("first", "order", 0755);
    expect_found(join("first", "second"), "order", 0, first);
    expect_found(join("second", "first"), "order", 0, second);
}

static void what_is_nowhere_is_not_found(void) {
    make_dir("empty");
    CHECK_INT(look(support_path("empty"), "nowhere", 0), -ENOENT);
    CHECK_INT(look(join("empty", "no-such-directory"), "nowhere", 0), -ENOENT);
}

static void an_entry_that_is_a_file_is_passed_over(void) {
    make_dir("with-file");
    make_file("with-file", "a-file", 0644);
    const char *match = make_file("with-file", "after-file", 0755);
    /* As exec tells it, of the last entry. */
    CHECK_INT(look(support_path("with-file/a-file"), "after-file", 0), -ENOTDIR);
    expect_found(join("with-file/a-file", "with-file"), "after-file", 0, match);
}

static void what_may_not_be_executed_is_remembered(void) {
    make_dir("refused");
    make_dir("allowed");
    make_file("refused", "perm", 0644);
    CHECK_INT(look(support_path("refused"), "perm", 0), -EACCES);
    CHECK_INT(look(join("refused", "allowed"), "perm", 0), -EACCES);
    CHECK_INT(look(join("allowed", "refused"), "perm", 0), -EACCES);
    const char *match = make_file("allowed", "perm", 0755);
    expect_found(join("refused", "allowed"), "perm", 0, match);
}

static void a_directory_is_no_program(void) {
    make_dir("dirs");
    make_dir("dirs/thing");
    make_dir("behind");
    CHECK_INT(look(support_path("dirs"), "thing", 0), -EACCES);
    const char *match = make_file("behind", "thing", 0755);
    expect_found(join("dirs", "behind"), "thing", 0, match);
}

static void a_directory_that_cannot_be_searched_is_passed_over(void) {
    make_dir("locked");
    make_dir("open");
    make_file("locked", "door", 0755);
    const char *match = make_file("open", "door", 0755);
    faults_arm("access", EACCES, 0, 1);
    expect_found(join("locked", "open"), "door", 0, match);
    faults_off();
}

/* ---- relative lists: the child's to search ---- */

static void a_relative_list_is_left_to_the_child(void) {
    static const char *const lists[] = {"",      ".",      "bin",     ":/bin",
                                        "/bin:", "/a::/b", "/a:b:/c", "/bin:."};
    for (size_t i = 0; i < LENGTH(lists); i++) CHECK_INT(look(lists[i], "sh", 0), -ENOENT);
}

static void resolving_goes_by_the_childs_directory(void) {
    make_dir("work");
    make_dir("work/bin");
    make_file("work", "here", 0755);
    make_file("work/bin", "there", 0755);
    const char *work = support_path("work");
    CHECK_INT(resolve_in(work, ":/nowhere", "here"), 4);
    CHECK_STR(found, "here");
    CHECK_INT(resolve_in(work, "/nowhere:bin", "there"), 9);
    CHECK_STR(found, "bin/there");
    CHECK_INT(resolve_in(work, NULL, "./here"), 6);
    CHECK_STR(found, "./here");
    CHECK_INT(resolve_in(NULL, "bin", "there"), -ENOENT);
    CHECK_INT(resolve_in(work, "bin", "here"), -ENOENT);
}

static void resolving_a_path_looks_at_nothing_else(void) {
    make_dir("plain");
    const char *program = make_file("plain", "program", 0755);
    const char *data = make_file("plain", "data", 0644);
    CHECK_INT(resolve_in(NULL, "/nowhere", program), strlen(program));
    CHECK_STR(found, program);
    CHECK_INT(resolve_in("/", NULL, program), strlen(program));
    CHECK_INT(resolve_in(NULL, NULL, data), -EACCES);
    CHECK_INT(resolve_in(NULL, NULL, support_path("plain/nothing")), -ENOENT);
}

static void resolving_searches_an_absolute_list(void) {
    make_dir("list");
    const char *program = make_file("list", "listed", 0755);
    CHECK_INT(resolve_in("/", support_path("list"), "listed"), strlen(program));
    CHECK_STR(found, program);
}

/* ---- the memory ---- */

static void a_remembered_answer_costs_a_stat_for_each_directory(void) {
    make_dir("m1");
    make_dir("m2");
    const char *match = make_file("m2", "cheap", 0755), *list = join("m1", "m2");
    expect_found(list, "cheap", 0, match);
    faults_arm(NULL, 0, 0, FAULTS_NONE);
    expect_found(list, "cheap", 0, match);
    CHECK_INT(faults_count_of("stat"), 2);
    CHECK_INT(faults_seen(), 2);
    faults_off();
}

static void a_young_answer_costs_nothing(void) {
    make_dir("y1");
    const char *match = make_file("y1", "young", 0755), *list = support_path("y1");
    expect_found(list, "young", 0, match);
    faults_arm(NULL, 0, 0, FAULTS_NONE);
    expect_found(list, "young", UINT64_MAX, match);
    CHECK_INT(faults_seen(), 0);
    faults_off();
    CHECK(unlink(match) == 0);
    expect_found(list, "young", UINT64_MAX, match); /* as old as the caller allows */
    CHECK_INT(look(list, "young", 0), -ENOENT);
}

/* Someone may change it again without a new time. */
static void a_directory_just_changed_is_not_remembered(void) {
    make_dir("racy");
    const char *match = make_file("racy", "fresh", 0755), *list = support_path("racy");
    support_age(list, -1);
    expect_found(list, "fresh", UINT64_MAX, match);
    faults_arm("access", 0, 0, FAULTS_NONE);
    expect_found(list, "fresh", UINT64_MAX, match);
    CHECK_INT(faults_seen(), 1);
    faults_off();
}

static void a_new_match_earlier_on_the_list_is_seen(void) {
    make_dir("n1");
    make_dir("n2");
    const char *late = make_file("n2", "new", 0755), *list = join("n1", "n2");
    expect_found(list, "new", 0, late);
    const char *early = make_file("n1", "new", 0755);
    expect_found(list, "new", 0, early);
}

static void a_directory_that_appears_is_seen(void) {
    make_dir("late");
    const char *late = make_file("late", "appear", 0755), *list = join("later-made", "late");
    expect_found(list, "appear", 0, late);
    expect_found(list, "appear", 0, late);
    make_dir("later-made");
    const char *early = make_file("later-made", "appear", 0755);
    expect_found(list, "appear", 0, early);
}

static void a_match_that_is_gone_is_seen(void) {
    make_dir("g1");
    make_dir("g2");
    const char *early = make_file("g1", "gone", 0755), *list = join("g1", "g2");
    expect_found(list, "gone", 0, early);
    CHECK(unlink(early) == 0);
    CHECK_INT(look(list, "gone", 0), -ENOENT);
    const char *late = make_file("g2", "gone", 0755);
    expect_found(list, "gone", 0, late);
}

static void lists_and_names_are_told_apart(void) {
    make_dir("k1");
    make_dir("k2");
    const char *a1 = make_file("k1", "a", 0755), *a2 = make_file("k2", "a", 0755);
    const char *b2 = make_file("k2", "b", 0755);
    for (int i = 0; i < 3; i++) {
        expect_found(join("k1", "k2"), "a", UINT64_MAX, a1);
        expect_found(join("k2", "k1"), "a", UINT64_MAX, a2);
        expect_found(join("k1", "k2"), "b", UINT64_MAX, b2);
        expect_found(support_path("k2"), "b", UINT64_MAX, b2);
    }
}

static void more_names_than_are_remembered(void) {
    char name[16], path[PATH_MAX];
    make_dir("many");
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "p%d", i);
        make_file("many", name, 0755);
    }
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 200; i++) {
            snprintf(name, sizeof name, "p%d", i);
            snprintf(path, sizeof path, "%s/%s", support_path("many"), name);
            expect_found(support_path("many"), name, round ? UINT64_MAX : 0, path);
        }
}

static void a_list_too_long_to_remember(void) {
    char list[40 * 128] = "";
    make_dir("long");
    for (int i = 0; i < 39; i++) strcat(strcat(list, support_path("no-such-directory")), ":");
    strcat(list, support_path("long"));
    const char *match = make_file("long", "far", 0755);
    expect_found(list, "far", UINT64_MAX, match);
    CHECK(unlink(match) == 0);
    CHECK_INT(look(list, "far", UINT64_MAX), -ENOENT);
}

static void what_does_not_fit_is_said_and_not_lost(void) {
    make_dir("fit");
    const char *match = make_file("fit", "fits", 0755), *list = support_path("fit");
    size_t size = strlen(match) + 1;
    char *exact = malloc(size); /* ASan stands behind it */
    CHECK_INT(fsp_path_lookup(list, "fits", 0, exact, size), size - 1);
    CHECK_STR(exact, match);
    CHECK_INT(fsp_path_lookup(list, "fits", 0, exact, size), size - 1);
    CHECK_INT(fsp_path_lookup(list, "fits", 0, exact, size - 1), -ENAMETOOLONG);
    CHECK_INT(fsp_path_lookup(list, "fits", UINT64_MAX, exact, size - 1), -ENAMETOOLONG);
    CHECK_INT(fsp_path_lookup(list, "fits", 0, exact, size), size - 1);
    CHECK_INT(resolve(COMMAND(match), size), size - 1);
    CHECK_INT(resolve(COMMAND(match), size - 1), -ENAMETOOLONG);
    free(exact);
}

static void no_memory_to_remember(void) {
    make_dir("poor");
    const char *match = make_file("poor", "beggar", 0755), *list = support_path("poor");
    faults_arm("malloc", ENOMEM, 0, FAULTS_ALL);
    expect_found(list, "beggar", UINT64_MAX, match);
    expect_found(list, "beggar", UINT64_MAX, match);
    CHECK_INT(faults_seen(), 2); /* it tried */
    faults_off();
}

/* ---- threads and forks ---- */

static void *look_often(void *wrong) {
    char path[PATH_MAX], name[16];
    for (int i = 0; i < 500; i++) {
        const char *be = i % 2 ? "/bin/sh" : "/bin/cat";
        snprintf(name, sizeof name, "%s", be + 5);
        int r = fsp_path_lookup(i % 3 ? "/bin" : "/nowhere:/bin", name, i % 5 ? 0 : 1000000, path,
                                sizeof path);
        if (r != (int)strlen(be) || strcmp(path, be) != 0)
            __atomic_add_fetch((int *)wrong, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void many_threads_look(void) {
    pthread_t threads[4];
    int wrong = 0;
    for (size_t i = 0; i < LENGTH(threads); i++)
        CHECK_INT(pthread_create(&threads[i], NULL, look_often, &wrong), 0);
    for (size_t i = 0; i < LENGTH(threads); i++) pthread_join(threads[i], NULL);
    CHECK_INT(wrong, 0);
}

static int forked_look;

/* Called while the cache is in use. */
static int fork_in_the_middle(const char *call) {
    if (strcmp(call, "access") != 0 || forked_look) return 0;
    forked_look = fork();
    if (forked_look == 0) {
        char path[PATH_MAX];
        alarm(10); /* with a handler that fails */
        forked_look = 1;
        _exit(fsp_path_lookup("/bin", "cat", 0, path, sizeof path) == 8 ? 0 : 1);
    }
    return 0;
}

static void a_fork_during_a_look_leaves_one_that_works(void) {
    int status = -1;
    forked_look = 0;
    fsp_fault_set(fork_in_the_middle);
    expect_found("/nowhere:/bin", "ls", 0, "/bin/ls");
    fsp_fault_set(NULL);
    REQUIRE(forked_look > 0);
    CHECK_INT(waitpid(forked_look, &status, 0), forked_look);
    CHECK_INT(status, 0);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    RUN(entries_are_joined_in_order);
    RUN(an_entry_too_long_is_passed_over);
    RUN(the_first_match_wins);
    RUN(what_is_nowhere_is_not_found);
    RUN(an_entry_that_is_a_file_is_passed_over);
    RUN(what_may_not_be_executed_is_remembered);
    RUN(a_directory_is_no_program);
    RUN(a_directory_that_cannot_be_searched_is_passed_over);
    RUN(a_relative_list_is_left_to_the_child);
    RUN(resolving_goes_by_the_childs_directory);
    RUN(resolving_a_path_looks_at_nothing_else);
    RUN(resolving_searches_an_absolute_list);
    RUN(a_remembered_answer_costs_a_stat_for_each_directory);
    RUN(a_young_answer_costs_nothing);
    RUN(a_directory_just_changed_is_not_remembered);
    RUN(a_new_match_earlier_on_the_list_is_seen);
    RUN(a_directory_that_appears_is_seen);
    RUN(a_match_that_is_gone_is_seen);
    RUN(lists_and_names_are_told_apart);
    RUN(more_names_than_are_remembered);
    RUN(a_list_too_long_to_remember);
    RUN(what_does_not_fit_is_said_and_not_lost);
    RUN(no_memory_to_remember);
    RUN(many_threads_look);
    RUN(a_fork_during_a_look_leaves_one_that_works);
    return tap_end();
}
