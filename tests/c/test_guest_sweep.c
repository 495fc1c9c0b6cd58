/*
 * test_guest_sweep.c - templates, their forks and residents where a call of what they have loaded
 * is refused: each place in csrc/guest that makes one and that a scene comes to, once and for good
 * (sweep.h, far.h).
 *
 * Whatever is refused there, each job is answered as it should be, by a fork or by exec, or has the
 * error that was refused; nothing is left behind, and afterwards all is as ever.
 */
#include "far.h"
#include "house.h"
#include "sweep.h"

#ifdef __linux__
#include <stdio.h>

static const struct refusal *now;
static const char *text_path;

/* As run() of house.h; or, of a fork that could not be what it should, the error. */
static void ask(const struct house *h, struct fsp_plan *plan, struct fsp_job_options options,
                const char *out, int code) {
    static struct heard one;
    one = (struct heard){0};
    options.user = &one;
    CHECK_INT(fsp_engine_submit(h->e, plan, &options, &one.job), 0);
    CHECK(listen_to_end(h->e, &one, 1));
    if (one.outcome && one.outcome->error.err && now->site)
        CHECK_INT(one.outcome->error.err, now->err);
    else
        answers(&one, out, code);
    listen_free(&one, 1);
}

static void ask_shell(const struct house *h, const char *script, struct fsp_job_options options,
                      const char *out, int code) {
    struct fsp_spec spec = SHELL(script);
    spec.flags |= FSP_FLAG_SETSID;
    struct fsp_plan *plan = support_plan(&spec);
    ask(h, plan, options, out, code);
    fsp_plan_unref(plan);
}

static const char *beside_library(const char *name) {
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%.*s%s", (int)(strlen(library()) - strlen(house_object)),
             library(), name);
    return path;
}

/* ---- scenes ---- */

/* Forks, then residents: what they do is undone, and one leaves. */
static void a_shell(struct house *h) {
    struct fsp_job_options forked = options_for(h), input = options_for(h);
    forked.reset = NULL;
    input.in = FSP_IO_PIPE;
    input.input = "text\n";
    input.input_len = 5;
    if (!CHECK_INT(furnish_house(h), 0)) return;
    CHECK(WAIT_UNTIL(template_of(h).ready || template_of(h).failures));
    forked.snapshot = h->t;
    input.snapshot = h->t;
    input.reset = h->r;
    ask_shell(h, "echo a; exit 3", forked, "a\n", 3);
    forked.err = FSP_IO_NULL;
    ask_shell(h, "echo a >&2; exit 4", forked, "", 4);
    for (int i = 0; i < 30 && state_of(h).resets < 3 && !state_of(h).off; i++)
        ask_shell(h, "echo a; exit 3", options_for(h), "a\n", 3);
    ask_shell(h, "read a; echo $a", input, "text\n", 0);
    ask_shell(h, "cd /; umask 7; ulimit -Sf 9; trap : USR1; exec 5</dev/null; echo b",
              options_for(h), "b\n", 0);
    ask_shell(h, "pwd | read a; /bin/echo c", options_for(h), "c\n", 0);
    ask_shell(h, "echo d", options_for(h), "d\n", 0);
    fsp_reset_free(h->r);
    fsp_template_free(h->t);
}

/* Of residents that are compared with what they were, and of those that put back all pages. */
static void serve_asked(struct house *h, unsigned wanted) {
    faults_far_wanted(wanted);
    if (!CHECK_INT(furnish_house(h), 0)) return;
    CHECK(WAIT_UNTIL(template_of(h).ready || template_of(h).failures));
    for (int i = 0; i < 30 && state_of(h).resets < 3 && !state_of(h).off; i++)
        ask_shell(h, "cd /; exec 5</dev/null; echo a", options_for(h), "a\n", 0);
    ask_shell(h, "pwd | read a; echo b", options_for(h), "b\n", 0);
    fsp_reset_free(h->r);
    fsp_template_free(h->t);
}

static void a_comparison(struct house *h) {
    serve_asked(h, FAR_CHECKED);
}

static void a_plain_one(struct house *h) {
    serve_asked(h, FAR_PLAIN);
}

/* By residents. */
static uint64_t served(const struct house *h) {
    struct fsp_reset_state state = state_of(h);
    return state.resets + state.leaves;
}

/* busy.c: a template that does this, a fork, and residents of it that do that. */
static void be_busy(struct house *h, unsigned flags, const char *what, const char *then,
                    const char *out, int code) {
    struct fsp_spec spec = COMMAND(beside_library("busy"), what, text_path), other;
    spec.flags |= FSP_FLAG_SETSID;
    other = spec;
    other.argv = ARGV(spec.file, then, text_path);
    struct fsp_plan *plan = support_plan(&spec), *then_plan = support_plan(&other);
    int r = fsp_template_new(h->e, plan, NULL, library(), 20 * SECOND, flags, &h->t);
    if (CHECK_INT(r, 0)) {
        CHECK(WAIT_UNTIL(template_of(h).ready || template_of(h).failures));
        CHECK_INT(fsp_reset_new(h->e, h->t, &h->r), 0);
        struct fsp_job_options forked = options_for(h);
        forked.reset = NULL;
        ask(h, then_plan, forked, out, code);
        for (int i = 0; i < 30 && served(h) < 3 && !state_of(h).off; i++)
            ask(h, then_plan, options_for(h), out, code);
        fsp_reset_free(h->r);
        fsp_template_free(h->t);
    }
    fsp_plan_unref(plan);
    fsp_plan_unref(then_plan);
}

static void a_busy_one(struct house *h) {
    be_busy(h, FSP_TEMPLATE_FALLBACK, "x", "much", "much\n", 3);
}

static void one_that_grows(struct house *h) {
    be_busy(h, FSP_TEMPLATE_FALLBACK, "x", "more", "more\n", 0);
}

static void one_that_mends(struct house *h) {
    be_busy(h, FSP_TEMPLATE_FALLBACK, "x", "mend", "mend\n", 0);
}

static void one_that_leaves(struct house *h) {
    be_busy(h, FSP_TEMPLATE_FALLBACK, "x", "leave", "leave\n", 0);
}

static void one_that_looks_around(struct house *h) {
    be_busy(h, FSP_TEMPLATE_EFFECT | FSP_TEMPLATE_FALLBACK, "around", "around", "text\n", 0);
}

/* It is no template, and says whose the threads are. */
static void a_threaded_one(struct house *h) {
    struct fsp_spec spec = COMMAND(beside_library("busy"), "threads");
    struct fsp_plan *plan = support_plan(&spec);
    int r = fsp_template_new(h->e, plan, NULL, library(), 20 * SECOND, 0, &h->t);
    if (CHECK_INT(r, 0)) {
        CHECK(WAIT_UNTIL(template_of(h).failures));
        CHECK_INT(template_of(h).ready, 0);
        ask(h, plan, options_for(h), "x\n", 0);
        fsp_template_free(h->t);
    }
    fsp_plan_unref(plan);
}

static void one_that_reads(struct house *h) {
    be_busy(h, FSP_TEMPLATE_EFFECT | FSP_TEMPLATE_FALLBACK, "look", "look", "text\n", 0);
}

/* Stopped before its first effect. */
static void an_effect(struct house *h) {
    struct fsp_spec spec = COMMAND("/bin/cat", text_path);
    spec.flags |= FSP_FLAG_SETSID;
    struct fsp_plan *plan = support_plan(&spec);
    int r = fsp_template_new(h->e, plan, NULL, library(), 20 * SECOND,
                             FSP_TEMPLATE_EFFECT | FSP_TEMPLATE_FALLBACK, &h->t);
    if (CHECK_INT(r, 0)) {
        CHECK(WAIT_UNTIL(template_of(h).ready || template_of(h).failures));
        CHECK_INT(fsp_reset_new(h->e, h->t, &h->r), 0);
        struct fsp_job_options forked = options_for(h);
        forked.reset = NULL;
        ask(h, plan, forked, "text\n", 0);
        for (int i = 0; i < 30 && state_of(h).resets < 2 && !state_of(h).off; i++)
            ask(h, plan, options_for(h), "text\n", 0);
        fsp_reset_free(h->r);
        fsp_template_free(h->t);
    }
    fsp_plan_unref(plan);
}

/* The first fork comes to a checkpoint, and the others are of it; then residents. */
static void freeze_at_checkpoint(struct house *h, struct fsp_plan *plan, struct fsp_plan *other,
                                 const char *out) {
    int r =
        fsp_template_new(h->e, plan, NULL, library(), 20 * SECOND, FSP_TEMPLATE_CHECKPOINT, &h->t);
    if (!CHECK_INT(r, 0)) return;
    CHECK(WAIT_UNTIL(template_of(h).ready || template_of(h).failures));
    CHECK_INT(fsp_reset_new(h->e, h->t, &h->r), 0);
    struct fsp_job_options forked = options_for(h), served;
    forked.in = FSP_IO_PIPE;
    forked.input = "other text\n";
    forked.input_len = 11;
    served = forked;
    forked.reset = NULL;
    for (int i = 0; i < 3; i++) ask(h, plan, forked, out, 0);
    ask(h, other, forked, out, 0);
    for (int i = 0; i < 30 && state_of(h).resets < 2 && !state_of(h).off; i++)
        ask(h, plan, served, out, 0);
    fsp_reset_free(h->r);
    fsp_template_free(h->t);
}

static void a_checkpoint(struct house *h) {
    struct fsp_spec spec = COMMAND(beside_library("words"), text_path), other = spec;
    other.envp = ARGV("OTHER=1", "PATH=/bin");
    spec.flags |= FSP_FLAG_SETSID;
    other.flags |= FSP_FLAG_SETSID;
    struct fsp_plan *plan = support_plan(&spec), *other_plan = support_plan(&other);
    freeze_at_checkpoint(h, plan, other_plan, "other\n");
    fsp_plan_unref(plan);
    fsp_plan_unref(other_plan);
}

static void one_of_many_files(struct house *h) {
    struct fsp_spec spec = COMMAND(beside_library("busy"), "many");
    spec.flags |= FSP_FLAG_SETSID;
    struct fsp_plan *plan = support_plan(&spec);
    freeze_at_checkpoint(h, plan, plan, "many\n");
    fsp_plan_unref(plan);
}

/* Nor is it the leader of anything. */
static void one_that_comes_late(struct house *h) {
    struct fsp_spec spec = COMMAND(beside_library("busy"), "late");
    struct fsp_plan *plan = support_plan(&spec);
    int r =
        fsp_template_new(h->e, plan, NULL, library(), 20 * SECOND, FSP_TEMPLATE_CHECKPOINT, &h->t);
    if (CHECK_INT(r, 0)) {
        CHECK(WAIT_UNTIL(template_of(h).ready || template_of(h).failures));
        for (int i = 0; i < 3; i++) ask(h, plan, options_for(h), "late\n", 0);
        CHECK_INT(template_of(h).checkpoints, 0);
        fsp_template_free(h->t);
    }
    fsp_plan_unref(plan);
}

/* In a group, not a session, of its own. */
static void one_that_moves_streams(struct house *h) {
    struct fsp_spec spec = COMMAND(beside_library("busy"), "streams");
    spec.flags |= FSP_FLAG_SETPGROUP;
    struct fsp_plan *plan = support_plan(&spec);
    freeze_at_checkpoint(h, plan, plan, "moved\ncopy\n");
    fsp_plan_unref(plan);
}

/* ---- with or without a refusal ---- */

static void live(const struct refusal *refusal, void (*scene)(struct house *)) {
    static const struct refusal none;
    pid_t pid[1];
    fsp_engine_free(listen_engine(1)); /* what a first thread leaves behind */
    size_t before = support_heap_bytes();
    struct house h = {.e = listen_engine(1)};
    now = refusal;
    sweep_arm(refusal);
    scene(&h);
    faults_off();
    now = &none;
    if (refusal->site) scene(&h);
    CHECK(WAIT_UNTIL(children(pid, 1) == 0));
    fsp_engine_free(h.e);
    CHECK_INT(support_heap_bytes(), before);
}

#define SCENES(X)                                                                                  \
    X(a_shell)                                                                                     \
    X(an_effect)                                                                                   \
    X(one_of_many_files)                                                                           \
    X(one_that_comes_late)                                                                         \
    X(one_that_moves_streams)                                                                      \
    X(a_checkpoint)                                                                                \
    X(a_comparison)                                                                                \
    X(a_plain_one)                                                                                 \
    X(a_busy_one)                                                                                  \
    X(one_that_grows)                                                                              \
    X(one_that_mends)                                                                              \
    X(one_that_leaves)                                                                             \
    X(a_threaded_one)                                                                              \
    X(one_that_looks_around)                                                                       \
    X(one_that_reads)
#define SCENE(name)                                                                                \
    static void name##_scene(const struct refusal *refusal) {                                      \
        live(refusal, name);                                                                       \
    }
SCENES(SCENE)

static const struct scene scenes[] = {
#define ENTRY(name) {#name, name##_scene},
    SCENES(ENTRY)};

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    text_path = support_path("text");
    support_write_file(text_path, "text\n", 0644);
    support_age(text_path, 100);
    house_object = "sweep.so";
    faults_also_far();
    sweep_look(scenes, LENGTH(scenes));
    /* What could be turned on can be turned off: without it nothing of the program would run. */
    sweep_never_refuses("csrc/guest/leave.c", "prctl");
    sweep_places("csrc/guest/", false);
    size_t all, n = sweep_come_to("csrc/guest/", &all);
    tap_note("%zu of %zu places in csrc/guest are come to", n, all);
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
