/*
 * test_engine_sweep.c - templates and residents where a call is refused: each place that makes one,
 * once and for good.  Every job is answered, nothing is left behind, and afterwards all is as ever.
 *
 * The places of csrc/template and csrc/reset, and of what is below where they come to it (sweep.h).
 */
#include "house.h"
#include "sweep.h"

#ifdef __linux__
#include <limits.h>
#include <sched.h>
#include <stdio.h>

static const char *link_path;

/* ---- the life of a house, in which all of that is asked for ---- */

static void some_jobs(const struct house *h) {
    struct fsp_job_options input = options_for(h);
    input.in = FSP_IO_PIPE;
    input.input = "text\n";
    input.input_len = 5;
    for (int i = 0; i < 20 && state_of(h).resets < 3; i++)
        run(h, "echo a; exit 3", options_for(h), "a\n", 3);
    run(h, "read a; echo $a", input, "text\n", 0);
    run(h, "/bin/echo b", options_for(h), "b\n", 0);
}

/* One is killed while it is idle, another with its job. */
static void some_ends(const struct house *h) {
    static struct heard one;
    struct fsp_job_options kept = options_for(h);
    kept.in = FSP_IO_PIPE;
    kept.flags = FSP_JOB_STREAM | FSP_JOB_FEED;
    uint64_t before = state_of(h).resets;
    pid_t pid = run(h, "echo c", options_for(h), "c\n", 0);
    if (state_of(h).resets > before) CHECK(support_kill(pid));
    run(h, "echo d", options_for(h), "d\n", 0);
    listen_submit(h->e, SHELL("echo here; read a"), kept, &one);
    CHECK(LISTEN_UNTIL(h->e, one.chunks));
    fsp_job_cancel(one.job);
    CHECK(listen_to_end(h->e, &one, 1));
    answers(&one, "here\n", -SIGTERM);
    listen_free(&one, 1);
}

/* Another template, of a plan that is the caller's to let go.  False: there was no memory. */
static bool open_other(struct house *other, struct fsp_plan *plan, const char *object,
                       unsigned flags, bool refused) {
    int r = fsp_template_new(other->e, plan, NULL, object, 20 * SECOND, flags, &other->t);
    CHECK(r == 0 || (refused && r == -ENOMEM));
    return r == 0;
}

static void run_plan(const struct house *h, struct fsp_plan *plan, struct heard *heard) {
    struct fsp_job_options options = options_for(h);
    *heard = (struct heard){0};
    options.user = heard;
    CHECK_INT(fsp_engine_submit(h->e, plan, &options, &heard->job), 0);
    CHECK(listen_to_end(h->e, heard, 1));
}

/* A program that comes to a checkpoint: a puppet (puppet.c), which then does not fork. */
static void a_checkpoint(const struct house *h, bool refused) {
    static struct heard one;
    struct house puppet = {.e = h->e};
    struct fsp_spec spec = COMMAND(support_self, "--puppet", "ask-nofork");
    spec.flags |= FSP_FLAG_SETSID;
    struct fsp_plan *plan = support_plan(&spec);
    if (open_other(&puppet, plan, "/dev/null", 0, refused)) {
        CHECK(WAIT_UNTIL(template_of(&puppet).ready || template_of(&puppet).failures));
        if (template_of(&puppet).ready) {
            run_plan(&puppet, plan, &one);
            if (!refused) answers(&one, "on", 4);
            listen_free(&one, 1);
        }
        fsp_template_free(puppet.t);
    }
    fsp_plan_unref(plan);
}

static bool was_asked_for(const char *call) {
    const struct site *site;
    for (int i = 0; (site = faults_site(i)); i++)
        if (faults_call(site) && strcmp(faults_call(site), call) == 0) return true;
    return false;
}

/* A template at its effect; what it came from is looked at again now and then, by such a call.
 * Where one is refused, perhaps never. */
static void an_effect(const struct house *h, bool refused, struct fsp_spec spec, const char *answer,
                      const char *call) {
    static struct heard one;
    long tries = refused ? 300 : LONG_MAX;
    struct house other = {.e = h->e};
    spec.flags |= FSP_FLAG_SETSID;
    struct fsp_plan *plan = support_plan(&spec);
    uint64_t end = sys_now() + TAP_PATIENCE_MS * 1000000ull;
    if (open_other(&other, plan, library(), FSP_TEMPLATE_EFFECT, refused)) {
        CHECK(WAIT_UNTIL(template_of(&other).ready || template_of(&other).failures));
        do {
            run_plan(&other, plan, &one);
            answers(&one, answer, 0);
            listen_free(&one, 1);
        } while (!was_asked_for(call) && template_of(&other).failures == 0 && --tries > 0 &&
                 sys_now() < end);
        fsp_template_free(other.t);
    }
    fsp_plan_unref(plan);
}

static void a_link(const struct house *h, bool refused) {
    struct fsp_spec spec = COMMAND("/bin/readlink", link_path);
    an_effect(h, refused, spec, "/bin\n", "lstat");
}

static void the_processors(const struct house *h, bool refused) {
    struct fsp_spec spec = COMMAND("/usr/bin/nproc");
    cpu_set_t mine;
    char answer[20];
    CHECK_INT(sched_getaffinity(0, sizeof mine, &mine), 0);
    snprintf(answer, sizeof answer, "%d\n", CPU_COUNT(&mine));
    an_effect(h, refused, spec, answer, "sched_getaffinity");
}

static void the_names(const struct house *h, bool refused) {
    struct fsp_spec spec = COMMAND("/bin/uname", "-s");
    an_effect(h, refused, spec, "Linux\n", "uname");
}

static void live(const struct house *h, bool refused) {
    CHECK(WAIT_UNTIL(template_of(h).ready || template_of(h).failures));
    some_jobs(h);
    some_ends(h);
    a_checkpoint(h, refused);
    a_link(h, refused);
    the_processors(h, refused);
    the_names(h, refused);
}

/* ---- with or without a refusal ---- */

/* What the kernel does not have, it has at no other time: there are no residents any more. */
static bool has_given_up(const struct house *h, const struct refusal *refusal) {
    struct fsp_reset_state state = state_of(h);
    const char *call = faults_call(refusal->site);
    if (call == NULL || strcmp(call, "pidfd_open") != 0) return false;
    return (refusal->err == ENOSYS || refusal->err == EPERM) && state.off &&
           state.error == refusal->err;
}

static void a_house(const struct refusal *refusal) {
    bool refused = refusal->site != NULL;
    fsp_engine_free(listen_engine(1)); /* what a first thread leaves behind */
    size_t before = support_heap_bytes();
    struct house h = {.e = listen_engine(1)};
    sweep_arm(refusal);
    int r = furnish_house(&h);
    if (r == 0)
        live(&h, refused);
    else
        CHECK_INT(r, refused ? -ENOMEM : 0);
    faults_off();
    if (r < 0) CHECK_INT(furnish_house(&h), 0);
    if (refused && !has_given_up(&h, refusal)) first_resident(&h);
    if (refused) some_jobs(&h);
    close_house(&h);
    CHECK_INT(support_heap_bytes(), before);
}

int main(int argc, char **argv) {
    static const struct scene house = {"a_house", a_house};
    support_begin(argc, argv);
    tap_begin();
    support_dir();
    link_path = support_path("link");
    if (symlink("/bin", link_path) < 0) return 1;
    sweep_look(&house, 1);
    sweep_places("csrc/reset/", true);
    sweep_places("csrc/template/", true);
    sweep_places("csrc/os/", false);
    sweep_places("csrc/spawn/wait.c", false);
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
