/*
 * test_engine_jobs_sweep.c - jobs of an engine, and an outlet's lines, where a call is refused:
 * each place in csrc/engine, csrc/os and csrc/log that makes one, once and for good (sweep.h).
 *
 * Each job ends once, as it should or with what was refused; no thread, child, descriptor or memory
 * is left behind, and the next engine works.
 */
#include "house.h"
#include "sweep.h"

#ifdef __linux__
#include <stdio.h>

static const struct refusal *now;

/* Did it go as it should?  If not, it is what was refused. */
static bool went(int r) {
    if (r >= 0) return true;
    CHECK_INT(r, now->site ? -now->err : 0);
    return false;
}

/* Did it come to an end that is no refusal? */
static bool ran(const struct heard *one) {
    if (!CHECK(one->outcome != NULL)) return false;
    int err = one->outcome->error.err;
    if (err) CHECK_INT(err, now->site ? now->err : 0);
    return err == 0;
}

/* Pipes have no errors but a reader's end: what one of these brings may be cut short. */
static bool may_be_cut(void) {
    const char *call = now->site ? faults_call(now->site) : NULL;
    return call && (strcmp(call, "read") == 0 || strcmp(call, "write") == 0);
}

static void ends(const struct heard *one, int code, size_t len) {
    if (!ran(one)) return;
    CHECK_INT(one->outcome->status.code, code);
    if (one->all[0].len != len && !may_be_cut()) CHECK_INT(one->all[0].len, len);
}

/* 0: no memory. */
static size_t submit(struct fsp_engine *e, struct fsp_spec spec, struct fsp_job_options options,
                     struct heard *heard) {
    struct fsp_plan *plan = NULL;
    *heard = (struct heard){0};
    spec.flags |= FSP_FLAG_SETSID;
    options.user = heard;
    bool ok =
        went(fsp_plan_new(&spec, &plan)) && went(fsp_engine_submit(e, plan, &options, &heard->job));
    fsp_plan_unref(plan);
    return ok;
}

static struct fsp_job_options fed(unsigned flags) {
    struct fsp_job_options options = listen_options();
    options.in = FSP_IO_PIPE;
    options.flags = FSP_JOB_FEED | flags;
    return options;
}

/* ---- scenes ---- */

static void some_jobs(struct fsp_engine *e) {
    static struct heard one;
    struct fsp_job_options input = listen_options();
    input.in = FSP_IO_PIPE;
    input.input = "in\n";
    input.input_len = 3;
    if (submit(e, SHELL("trap '' PIPE; read a; echo $a; exit 3"), input, &one)) {
        CHECK(listen_to_end(e, &one, 1));
        ends(&one, 3, 3);
        listen_free(&one, 1);
    }
}

/* More than is told in one piece, both ways. */
static void a_stream(struct fsp_engine *e) {
    static struct heard one;
    static char block[200000];
    if (!submit(e, SHELL("trap '' PIPE; cat; exit 4"), fed(FSP_JOB_STREAM), &one)) return;
    size_t len = went(fsp_job_write(one.job, block, sizeof block)) ? sizeof block : 0;
    fsp_job_write_eof(one.job);
    CHECK(listen_to_end(e, &one, 1));
    ends(&one, 4, len);
    listen_free(&one, 1);
}

/* So many that the ends of the last have high numbers. */
static void many_at_once(struct fsp_engine *e) {
    enum { N = 32 };
    static struct heard many[N];
    size_t n = 0;
    while (n < N && submit(e, SHELL("read a; exit 5"), fed(FSP_JOB_STARTED), &many[n])) n++;
    for (size_t i = 0; i < n; i++) CHECK(LISTEN_UNTIL(e, many[i].started || many[i].ended));
    for (size_t i = 0; i < n; i++) fsp_job_write_eof(many[i].job);
    CHECK(listen_to_end(e, many, n));
    for (size_t i = 0; i < n; i++) ends(&many[i], 5, 0);
    listen_free(many, n);
}

static void a_terminal(struct fsp_engine *e) {
    static struct heard one;
    struct fsp_job_options options = fed(0);
    options.in = FSP_IO_TERMINAL;
    if (!submit(e, SHELL("exit 6"), options, &one)) return;
    CHECK(listen_to_end(e, &one, 1));
    ends(&one, 6, 0);
    listen_free(&one, 1);
}

/* A fork of one that was stopped at its effect asks whether it is a terminal that it inherits. */
static void a_template(struct fsp_engine *e) {
    static struct heard one;
    struct house h = {.e = e};
    struct fsp_job_options options = listen_options();
    struct fsp_spec spec = COMMAND("/bin/readlink", "/proc/self/cwd");
    struct fsp_plan *plan = NULL;
    spec.flags |= FSP_FLAG_SETSID;
    if (!went(fsp_plan_new(&spec, &plan))) return;
    if (went(fsp_template_new(e, plan, NULL, library(), 60 * SECOND, FSP_TEMPLATE_EFFECT, &h.t))) {
        CHECK(WAIT_UNTIL(template_of(&h).ready == 2 || template_of(&h).failures));
        options.in = FSP_IO_INHERIT;
        options.snapshot = h.t;
        options.user = &one;
        if (went(fsp_engine_submit(e, plan, &options, &one.job))) {
            CHECK(listen_to_end(e, &one, 1));
            if (ran(&one)) CHECK_INT(one.outcome->status.code, 0);
            listen_free(&one, 1);
        }
        fsp_template_free(h.t);
    }
    fsp_plan_unref(plan);
}

/* ---- an engine for each, with numbers free on either side of its own ---- */

static void live_on(struct fsp_engine *e, void (*scene)(struct fsp_engine *)) {
    scene(e);
    fsp_engine_free(e);
}

static void live(const struct refusal *refusal, void (*scene)(struct fsp_engine *)) {
    static const struct refusal none;
    struct fsp_engine *e = NULL;
    fsp_engine_free(listen_engine(2)); /* what first threads leave behind */
    size_t before = support_heap_bytes();
    int low = dup(0);
    now = refusal;
    sweep_arm(refusal);
    if (went(fsp_engine_new(2, NULL, &e))) live_on(e, scene);
    faults_off();
    now = &none;
    close(low);
    live_on(listen_engine(2), some_jobs);
    CHECK_INT(support_heap_bytes(), before);
}

/* ---- an outlet ---- */

static struct fsp_outlet_state state_of_outlet(struct fsp_outlet *o) {
    struct fsp_outlet_state state;
    fsp_outlet_get_state(o, &state);
    return state;
}

static size_t drain(int fd) {
    static char text[65536];
    size_t len = 0;
    for (ssize_t n; (n = read(fd, text, sizeof text)) > 0;) len += (size_t)n;
    return len;
}

static bool was_asked_for(const char *call) {
    const struct site *site;
    for (int i = 0; (site = faults_site(i)); i++)
        if (faults_call(site) && strcmp(faults_call(site), call) == 0) return true;
    return false;
}

/* To a pipe that is full at first. */
static void some_lines(struct fsp_outlet *o, const int fd[2]) {
    static const char line[] = "line\n";
    size_t put = 0, len = 0, full = 0;
    for (ssize_t n; (n = write(fd[1], line, 1)) > 0;) full += (size_t)n;
    for (int i = 0; i < 3; i++)
        if (went(fsp_outlet_put(o, line, 5))) put += 5;
    CHECK(WAIT_UNTIL(was_asked_for("poll") || state_of_outlet(o).queued == 0));
    while (state_of_outlet(o).queued) len += drain(fd[0]);
    len += drain(fd[0]);
    CHECK_INT(len, full + put - 5 * (state_of_outlet(o).dropped - (3 - put / 5)));
    CHECK(now->site || put == 15);
}

static void lines(const struct refusal *refusal) {
    struct fsp_outlet *o;
    int fd[2];
    fsp_engine_free(listen_engine(2)); /* what first threads leave behind */
    size_t before = support_heap_bytes();
    now = refusal;
    support_pipe(fd, 3);
    for (int i = 0; i < 2; i++) fcntl(fd[i], F_SETFL, O_NONBLOCK);
    sweep_arm(refusal);
    if (went(fsp_outlet_new(fd[1], 1000, &o))) {
        some_lines(o, fd);
        CHECK_INT(fsp_outlet_free(o, 300 * SECOND), 1);
    }
    faults_off();
    for (int i = 0; i < 2; i++) close(fd[i]);
    CHECK_INT(support_heap_bytes(), before);
}

/* ---- all of them ---- */

#define SCENES(X)                                                                                  \
    X(some_jobs)                                                                                   \
    X(a_stream)                                                                                    \
    X(many_at_once)                                                                                \
    X(a_terminal)                                                                                  \
    X(a_template)
#define SCENE(name)                                                                                \
    static void name##_scene(const struct refusal *refusal) {                                      \
        live(refusal, name);                                                                       \
    }
SCENES(SCENE)

static const struct scene scenes[] = {
#define ENTRY(name) {#name, name##_scene},
    SCENES(ENTRY){"lines", lines},
};

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    sweep_look(scenes, LENGTH(scenes));
    sweep_places("csrc/engine/", true);
    sweep_places("csrc/os/", true);
    sweep_places("csrc/log/", true);
    sweep_tell();
    return tap_end();
}

#else

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    return tap_end();
}

#endif
