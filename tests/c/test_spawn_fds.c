/*
 * test_spawn_fds.c - a child has exactly the descriptors it should, and its parent keeps its own.
 *
 * Each test runs with each backend, the parts that rearrange 0 to 2 in a forked process.  Files
 * are told apart by device and inode, in the child by `test -ef` or by the helper's report.
 */
#include "support.h"
#include "tap.h"

#include <stdio.h>

#define NFILES 6
#define CLOSED (-1) /* as a file: the number is not open */

static const char *name_of(int file) {
    char name[16];
    snprintf(name, sizeof name, "file%d", file);
    return support_path(name);
}

static int open_file(int file) {
    int fd = open(name_of(file), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    CHECK(fd >= 0);
    return fd;
}

/* The file at this very number. */
static void place_file(int file, int number, bool cloexec) {
    int fd = open_file(file);
    if (fd != number) {
        support_dup_to(fd, number);
        close(fd);
    }
    CHECK_INT(fcntl(number, F_SETFD, cloexec ? FD_CLOEXEC : 0), 0);
}

static const char see_stdio[] = "for fd in 0 1 2; do\n"
                                "  if [ -z \"$1\" ]; then [ ! -e /dev/fd/$fd ] || exit 1\n"
                                "  else [ /dev/fd/$fd -ef \"$1\" ] || exit 1; fi\n"
                                "  shift\n"
                                "done\n";

/* Spawn with these sources: are these files on 0 to 2? */
static bool sees(const int source[3], const int file[3]) {
    struct run run;
    const struct fsp_stdio io = {
        {source[0], source[1], source[2]}
    };
    const char *name[3];
    for (int i = 0; i < 3; i++) name[i] = file[i] == CLOSED ? "" : name_of(file[i]);
    struct fsp_spec spec = COMMAND("/bin/sh", "-c", see_stdio, "sh", name[0], name[1], name[2]);
    support_run_with(&spec, &io, NULL, &run);
    return run.result == 0 && run.status.code == 0;
}

static bool expect_stdio(const int source[3], const int file[3]) {
    bool ok = sees(source, file);
    if (!ok)
        tap_note("sources %d %d %d: not files %d %d %d", source[0], source[1], source[2], file[0],
                 file[1], file[2]);
    return CHECK(ok);
}

/* ---- stdio ---- */

/* Files 0 to 2 on 0 to 2, 3 and 4 on 10 and 11: every choice of sources among them. */
static void try_every_choice(void *unused) {
    static const int sources[] = {-1, 0, 1, 2, 10, 11}, files[] = {CLOSED, 0, 1, 2, 3, 4};
    (void)unused;
    for (int i = 0; i < 3; i++) place_file(i, i, false);
    place_file(3, 10, true);
    place_file(4, 11, false);
    for (int choice = 0; choice < 6 * 6 * 6; choice++) {
        int source[3], file[3];
        for (int i = 0, rest = choice; i < 3; i++, rest /= 6) {
            source[i] = sources[rest % 6];
            file[i] = source[i] < 0 ? i : files[rest % 6];
        }
        if (!expect_stdio(source, file)) return;
    }
}

/* The same on 0 to 2 alone, which close on exec: a number placed onto itself has to stay. */
static void try_close_on_exec(void *unused) {
    (void)unused;
    for (int i = 0; i < 3; i++) place_file(i, i, true);
    for (int choice = 0; choice < 4 * 4 * 4; choice++) {
        int source[3];
        for (int i = 0, rest = choice; i < 3; i++, rest /= 4) source[i] = rest % 4 - 1;
        if (!expect_stdio(source, source)) return; /* file n is on n, and -1 is CLOSED */
        for (int i = 0; i < 3; i++) CHECK_INT(fcntl(i, F_GETFD), FD_CLOEXEC);
    }
}

/* Some of 0 to 2 are closed in the parent, and what it opens lands there. */
static void try_closed(void *subset) {
    static const int orders[][3] = {
        {0,  1,  2 },
        {0,  2,  1 },
        {1,  0,  2 },
        {1,  2,  0 },
        {2,  0,  1 },
        {2,  1,  0 },
        {-1, -1, -1},
        {0,  0,  0 },
        {-1, 1,  1 },
        {2,  -1, -1}
    };
    int fd[3];
    for (int i = 0; i < 3; i++)
        if (*(int *)subset & 1 << i)
            close(i);
        else
            place_file(i, i, false);
    for (int i = 0; i < 3; i++) fd[i] = open_file(3 + i);
    for (size_t order = 0; order < LENGTH(orders); order++) {
        int source[3], file[3];
        for (int i = 0; i < 3; i++) {
            int which = orders[order][i];
            source[i] = which < 0 ? -1 : fd[which];
            file[i] = which >= 0 ? 3 + which : *(int *)subset & 1 << i ? CLOSED : i;
        }
        if (!expect_stdio(source, file)) break;
    }
    for (int i = 0; i < 3; i++) close(fd[i]);
}

/* Leave 0 to 2 as they were, so that the census of the forked process holds. */
static void with_stdio_restored(void *part) {
    int saved[3];
    for (int i = 0; i < 3; i++) saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 500);
    (*(void (**)(void *))part)(NULL);
    for (int i = 0; i < 3; i++) {
        support_dup_to(saved[i], i);
        close(saved[i]);
    }
    for (int i = 10; i < 12; i++) close(i);
}

static void every_choice_of_sources(void) {
    void (*part)(void *) = try_every_choice;
    tap_fork(with_stdio_restored, &part);
}

static void close_on_exec_is_lifted_from_what_stays(void) {
    void (*part)(void *) = try_close_on_exec;
    tap_fork(with_stdio_restored, &part);
}

static void try_closed_restored(void *subset) {
    int saved[3];
    for (int i = 0; i < 3; i++) saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 500);
    try_closed(subset);
    for (int i = 0; i < 3; i++) {
        support_dup_to(saved[i], i);
        close(saved[i]);
    }
}

static void any_of_stdio_may_be_closed(void) {
    for (int subset = 0; subset < 8; subset++) tap_fork(try_closed_restored, &subset);
}

/* ---- the rest of the table ---- */

/* What the child should have: a number, and a descriptor of ours for the same file. */
struct has {
    int number, like;
};

/* Report from a child whose stdout is a file; `expected` besides stdout, ascending. */
static void expect_table(struct fsp_spec spec, struct fsp_stdio io, const struct has *expected,
                         size_t n) {
    static char report[65536];
    char wanted[32768] = "";
    size_t len = 0;
    struct run run;
    struct stat st;
    /* Out of the way: a low number may be closed here on purpose. */
    int low = io.fd[1] >= 0 ? dup(io.fd[1]) : open_file(5);
    int out = fcntl(low, F_DUPFD_CLOEXEC, 30);
    close(low);
    CHECK(out >= 0 && ftruncate(out, 0) == 0);
    if (io.fd[1] < 0) io.fd[1] = out;
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(fstat(expected[i].like < 0 ? out : expected[i].like, &st), 0);
        len +=
            (size_t)snprintf(wanted + len, sizeof wanted - len, "%d:%lx.%lx ", expected[i].number,
                             (unsigned long)st.st_dev, (unsigned long)st.st_ino);
    }
    support_run_with(&spec, &io, NULL, &run);
    CHECK_INT(run.result, 0);
    CHECK_INT(run.status.code, 0);
    ssize_t got = pread(out, report, sizeof report - 1, 0);
    report[got < 0 ? 0 : got] = '\0';
    char *fds = strstr(report, "fds="), *end = fds ? strchr(fds, '\n') : NULL;
    if (CHECK(end)) {
        *end = '\0';
        CHECK_STR(fds + 4, wanted);
    }
    close(out);
}

static const struct fsp_stdio inherit = {
    {-1, -1, -1}
};

static struct fsp_spec keeping(const int *keep, size_t n) {
    static const char *const argv[] = {support_self, "--helper", "report", NULL};
    struct fsp_spec spec = support_spec(argv);
    spec.keep_fds = keep;
    spec.nkeep_fds = n;
    return spec;
}

static void stdio_and_nothing_else(void) {
    place_file(0, 20, false);
    place_file(1, 21, true);
    expect_table(HELPER("report"), inherit,
                 (struct has[]){
                     {0, 0 },
                     {1, -1},
                     {2, 2 }
    },
                 3);
    close(20);
    close(21);
}

static void kept_numbers_stay(void) {
    const int keep[] = {7, 800, 20};
    place_file(0, 7, true);
    place_file(1, 20, false);
    place_file(2, 800, true);
    place_file(3, 21, false);
    expect_table(keeping(keep, 3), inherit,
                 (struct has[]){
                     {0,   0  },
                     {1,   -1 },
                     {2,   2  },
                     {7,   7  },
                     {20,  20 },
                     {800, 800}
    },
                 6);
    CHECK_INT(fcntl(7, F_GETFD), FD_CLOEXEC);
    CHECK_INT(fcntl(800, F_GETFD), FD_CLOEXEC);
    close(7);
    close(20);
    close(21);
    close(800);
}

/* They are sources of stdio, or below 3, or both: stdio wins its numbers. */
static void kept_numbers_and_stdio_collide(void) {
    const int keep[] = {0, 1, 2, 7, 8};
    place_file(0, 7, true);
    place_file(1, 8, true);
    expect_table(keeping(keep, 5),
                 (struct fsp_stdio){
                     {7, -1, 8}
    },
                 (struct has[]){{0, 7}, {1, -1}, {2, 8}, {7, 7}, {8, 8}}, 5);
    expect_table(keeping(keep, 5),
                 (struct fsp_stdio){
                     {8, -1, -1}
    },
                 (struct has[]){{0, 8}, {1, -1}, {2, 2}, {7, 7}, {8, 8}}, 5);
    expect_table(keeping(keep, 1),
                 (struct fsp_stdio){
                     {8, -1, 8}
    },
                 (struct has[]){{0, 8}, {1, -1}, {2, 8}}, 3);
    close(7);
    close(8);
}

static void keep_a_closed_number(void *unused) {
    const int keep[] = {0, 2};
    (void)unused;
    int saved = dup(0);
    place_file(0, 20, true);
    close(0);
    expect_table(keeping(keep, 2),
                 (struct fsp_stdio){
                     {20, -1, -1}
    },
                 (struct has[]){{0, 20}, {1, -1}, {2, 2}}, 3);
    support_dup_to(saved, 0);
    close(saved);
    close(20);
}

/* It is not open here, and need not be. */
static void a_kept_number_that_stdio_provides(void) {
    tap_fork(keep_a_closed_number, NULL);
}

static void kept_numbers_that_a_fetch_would_take(void) {
    const int keep[] = {3, 4, 5, 6, 900};
    for (int i = 0; i < 4; i++) place_file(i, 3 + i, true);
    place_file(4, 900, true);
    expect_table(
        keeping(keep, 5),
        (struct fsp_stdio){
            {900, -1, 3}
    },
        (struct has[]){{0, 900}, {1, -1}, {2, 3}, {3, 3}, {4, 4}, {5, 5}, {6, 6}, {900, 900}}, 8);
    for (int i = 0; i < 4; i++) close(3 + i);
    close(900);
}

static void many_kept_numbers(void) {
    enum { MANY = 100 };
    int keep[MANY];
    struct has expected[3 + MANY] = {
        {0, 0 },
        {1, -1},
        {2, 2 }
    };
    for (int i = 0; i < MANY; i++) {
        keep[MANY - 1 - i] = 30 + 2 * i;
        place_file(i % 5, 30 + 2 * i, i % 2);
        place_file(5, 31 + 2 * i, false);
        expected[3 + i] = (struct has){30 + 2 * i, 30 + 2 * i};
    }
    expect_table(keeping(keep, MANY), inherit, expected, 3 + MANY);
    for (int fd = 30; fd < 30 + 2 * MANY; fd++) close(fd);
}

static void no_memory_for_many_kept_numbers(void) {
    struct run run;
    int keep[30];
    for (int i = 0; i < 30; i++) keep[i] = i;
    struct fsp_spec spec = keeping(keep, 30);
    struct fsp_plan *plan = support_plan(&spec);
    struct fsp_child child;
    faults_arm("malloc", ENOMEM, 0, 1);
    CHECK_INT(fsp_spawn(plan, &inherit, 0, NULL, &child, &run.error), -ENOMEM);
    CHECK_INT(run.error.stage, FSP_STAGE_PREPARE);
    faults_off();
    fsp_plan_unref(plan);
}

static void expect_bad_descriptor(struct fsp_spec spec, struct fsp_stdio io, int index) {
    struct run run;
    support_run_with(&spec, &io, NULL, &run);
    CHECK_INT(run.result, -EBADF);
    if (support_is_posix_spawn() && index < 3) return; /* it does not tell where */
    CHECK_INT(run.error.stage, FSP_STAGE_FDS);
    CHECK_INT(run.error.index, index);
}

static void a_descriptor_that_is_not_open_is_named(void) {
    const int keep[] = {40, 50};
    place_file(0, 40, true);
    expect_bad_descriptor(keeping(keep, 0),
                          (struct fsp_stdio){
                              {30, -1, -1}
    },
                          0);
    expect_bad_descriptor(keeping(keep, 0),
                          (struct fsp_stdio){
                              {-1, 777, -1}
    },
                          1);
    expect_bad_descriptor(keeping(keep, 2), inherit, 50);
    close(40);
}

static void without_close_fds_what_is_open_stays(void) {
    struct fsp_spec spec = HELPER("report");
    spec.flags &= ~FSP_FLAG_CLOSE_FDS;
    place_file(0, 20, false);
    place_file(1, 21, true);
    place_file(2, 700, false);
    expect_table(spec, inherit,
                 (struct has[]){
                     {0,   0  },
                     {1,   -1 },
                     {2,   2  },
                     {20,  20 },
                     {700, 700}
    },
                 5);
    close(20);
    close(21);
    close(700);
}

/* ---- a crowded parent, and kernels that refuse ---- */

#define CROWD 300

static void crowd(void) {
    place_file(0, 3, false);
    for (int fd = 4; fd < CROWD; fd++) support_dup_to(3, fd);
}

static void uncrowd(void) {
    for (int fd = 3; fd < CROWD; fd++) close(fd);
}

static void expect_clean_table(int source) {
    const int keep[] = {CROWD - 7};
    place_file(1, source, true);
    expect_table(HELPER("report"),
                 (struct fsp_stdio){
                     {source, -1, -1}
    },
                 (struct has[]){{0, source}, {1, -1}, {2, 2}}, 3);
    expect_table(keeping(keep, 1),
                 (struct fsp_stdio){
                     {source, -1, -1}
    },
                 (struct has[]){{0, source}, {1, -1}, {2, 2}, {keep[0], keep[0]}}, 4);
    close(source);
}

static bool shares_table(void) {
    return strncmp(fsp_backend_name(), "clone", 5) == 0;
}

static void nothing_else_of_a_crowd(void) {
    crowd();
    expect_clean_table(10); /* the table is cut above it */
    support_dup_to(3, 10);
    faults_arm(NULL, 0, 0, FAULTS_NONE);
    expect_clean_table(CROWD + 10); /* sources are fetched: two, then three */
    CHECK_INT(faults_count_of("pidfd_getfd"), shares_table() ? 2 + 3 : 0);
    faults_off();
    uncrowd();
}

static void refuse(const char *call, int err, int source) {
    crowd();
    faults_arm(call, err, 0, FAULTS_ALL);
    expect_clean_table(source);
    faults_off();
    uncrowd();
}

static void refuse_to_fetch(void *call) {
    refuse(call, EPERM, CROWD + 10);
    if (!shares_table()) return;
    faults_arm(NULL, 0, 0, FAULTS_NONE);
    crowd();
    expect_clean_table(CROWD + 10);
    uncrowd();
    CHECK_INT(faults_count_of("pidfd_getfd"), 0); /* not tried again */
    CHECK_INT(faults_count_of("pidfd_open"), 0);
    faults_off();
}

static void where_fetching_is_refused(void) {
    tap_fork(refuse_to_fetch, "pidfd_open");
    tap_fork(refuse_to_fetch, "pidfd_getfd");
}

static void refuse_close_range(void *err) {
    refuse("close_range", *(int *)err, 10);
    refuse("close_range", *(int *)err, CROWD + 10);
}

static void where_close_range_is_refused(void) {
    int errors[] = {ENOSYS, EPERM, EINVAL};
    for (size_t i = 0; i < LENGTH(errors); i++) tap_fork(refuse_close_range, &errors[i]);
}

/* What is left is to try every number there may be. */
static int no_close_range_no_proc(const char *call) {
    static const char names[2][16] = {"close_range", "openat"};
    for (int n = 0; n < 2; n++) {
        int i = 0;
        while (call[i] && call[i] == names[n][i]) i++;
        if (call[i] == names[n][i]) return ENOSYS;
    }
    return 0;
}

static void refuse_both(void *unused) {
    struct rlimit limit;
    (void)unused;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 1024;
    setrlimit(RLIMIT_NOFILE, &limit);
    crowd();
    fsp_fault_set(no_close_range_no_proc);
    expect_clean_table(10);
    uncrowd();
}

static void where_proc_is_missing_too(void) {
    tap_fork(refuse_both, NULL);
}

/* The limit may be below what is open already. */
static void lower_the_limit(void *unused) {
    const int keep[] = {100};
    struct rlimit limit;
    (void)unused;
    place_file(0, 100, true);
    place_file(1, 101, false);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 50;
    setrlimit(RLIMIT_NOFILE, &limit);
    expect_table(keeping(keep, 1),
                 (struct fsp_stdio){
                     {101, -1, -1}
    },
                 (struct has[]){{0, 101}, {1, -1}, {2, 2}, {100, 100}}, 4);
    close(100);
    close(101);
}

static void numbers_above_the_limit(void) {
    tap_fork(lower_the_limit, NULL);
}

/* ---- siblings ---- */

/* A pipe's other end must not live on in a child started meanwhile. */
static void *see_end_of_file(void *wrong) {
    for (int i = 0; i < 25; i++) {
        struct fsp_spec spec = COMMAND("/bin/cat");
        struct fsp_child child;
        struct fsp_error error;
        struct fsp_status status = {0};
        char out[64] = "";
        int to[2], from[2];
        bool ok = pipe(to) == 0 && pipe(from) == 0; /* not close-on-exec */
        ok = ok && support_spawn(&spec,
                                 &(struct fsp_stdio){
                                     {to[0], from[1], -1}
        },
                                 &child, &error) == 0;
        close(to[0]);
        close(from[1]);
        ok = ok && write(to[1], "hello", 5) == 5;
        close(to[1]);
        ok = ok && support_read_all(from[0], out, sizeof out) == 5 && strcmp(out, "hello") == 0;
        ok = ok && fsp_wait(&child, 1, &status) == 1 && status.code == 0;
        close(from[0]);
        if (!ok) __atomic_add_fetch((int *)wrong, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void siblings_inherit_nothing_of_each_other(void) {
    pthread_t threads[4];
    int wrong = 0;
    for (size_t i = 0; i < LENGTH(threads); i++)
        CHECK_INT(pthread_create(&threads[i], NULL, see_end_of_file, &wrong), 0);
    for (size_t i = 0; i < LENGTH(threads); i++) pthread_join(threads[i], NULL);
    CHECK_INT(wrong, 0);
}

static void with_each_backend(void) {
    RUN(every_choice_of_sources);
    RUN(close_on_exec_is_lifted_from_what_stays);
    RUN(any_of_stdio_may_be_closed);
    RUN(stdio_and_nothing_else);
    RUN(kept_numbers_stay);
    RUN(kept_numbers_and_stdio_collide);
    RUN(a_kept_number_that_stdio_provides);
    RUN(kept_numbers_that_a_fetch_would_take);
    RUN(many_kept_numbers);
    RUN(no_memory_for_many_kept_numbers);
    RUN(a_descriptor_that_is_not_open_is_named);
    RUN(without_close_fds_what_is_open_stays);
    RUN(nothing_else_of_a_crowd);
    RUN(where_fetching_is_refused);
    RUN(where_close_range_is_refused);
    RUN(where_proc_is_missing_too);
    RUN(numbers_above_the_limit);
    RUN(siblings_inherit_nothing_of_each_other);
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    for (int i = 0; i < NFILES; i++) close(open_file(i));
    support_each_backend(with_each_backend);
    return tap_end();
}
