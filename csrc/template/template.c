/*
 * template.c - a template, of which each spawner has a process of its own: an origin of children
 * that are forks.
 *
 * It lives as long as somebody may ask for it: its maker, its spawners, its processes, the jobs.
 * Nothing is started here: the spawners are called, and tend.c is where they look.
 */
#include "zygote.h"

#ifdef __linux__

static struct fsp_post *post(struct fsp_origin *origin, unsigned spawner) {
    return &((struct fsp_template *)origin)->at[spawner].post;
}

static void release(struct fsp_origin *origin) {
    struct fsp_template *t = (struct fsp_template *)origin;
    fsp_plan_unref(t->plan);
    fsp_plan_unref(t->start);
    free(t->library);
    free(t);
}

static const struct fsp_origin_ops ops = {
    .start = fsp_zygote_ask,
    .hurry = fsp_zygote_hurry,
    .leave = fsp_zygote_leave,
    .post = post,
    .tend = fsp_zygotes_tend,
    .close = fsp_zygotes_close,
    .ready = fsp_zygote_ready,
    .look = fsp_zygote_look,
    .stop = fsp_zygote_stop,
    .free = release,
};

int fsp_template_new(struct fsp_engine *e, struct fsp_plan *plan, struct fsp_plan *start,
                     const char *library, uint64_t timeout, unsigned flags,
                     struct fsp_template **out) {
    if (fsp_engine_forked(e)) return -ECHILD;
    struct fsp_template *t = sys_calloc(1, sizeof *t + e->nspawners * sizeof *t->at);
    if (t == NULL) return -ENOMEM;
    *t = (struct fsp_template){
        .origin = {.ops = &ops, .refs = 1},
        .timeout = timeout,
        .flags = flags,
        .nspawners = e->nspawners
    };
    t->state.spawners = e->nspawners;
    t->plan = fsp_plan_ref(plan);
    t->start = fsp_plan_ref(start ? start : plan);
    t->library = sys_malloc(strlen(library) + 1);
    int r = t->library ? 0 : -ENOMEM;
    if (r == 0) {
        strcpy(t->library, library);
        for (unsigned i = 0; i < t->nspawners; i++)
            t->at[i].post.due = sys_now() + fsp_files_tick();
        r = fsp_origin_open(e, &t->origin);
    }
    if (r < 0)
        fsp_origin_unref(&t->origin);
    else
        *out = t;
    return r;
}

void fsp_template_free(struct fsp_template *t) {
    fsp_origin_close(&t->origin);
}

#else

int fsp_template_new(struct fsp_engine *e, struct fsp_plan *plan, struct fsp_plan *start,
                     const char *library, uint64_t timeout, unsigned flags,
                     struct fsp_template **out) {
    (void)e, (void)plan, (void)start, (void)library, (void)timeout, (void)flags, (void)out;
    return -ENOTSUP;
}

void fsp_template_free(struct fsp_template *t) {
    (void)t;
}

#endif
