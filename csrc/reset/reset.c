/*
 * reset.c - residents of a template, as an origin of children: whoever finds none has a fork.
 *
 * Nothing is started here: the spawners are called, and tend.c is where they look.
 */
#include "reset.h"

#ifdef __linux__

static struct fsp_post *post(struct fsp_origin *origin, unsigned spawner) {
    return &((struct fsp_reset *)origin)->at[spawner].post;
}

static void release(struct fsp_origin *origin) {
    fsp_origin_unref(origin->next);
    free(origin);
}

/* It waits for one, and is not to wait any more. */
static void hurry(struct fsp_spawner *s, struct fsp_job *job) {
    fsp_post_set_due(s, &fsp_nest_of((struct fsp_reset *)job->turn, s)->post, 0);
}

static const struct fsp_origin_ops ops = {
    .start = fsp_resident_lend,
    .hurry = hurry,
    .leave = fsp_resident_leave,
    .post = post,
    .tend = fsp_nest_tend,
    .close = fsp_nest_close,
    .ready = fsp_resident_ready,
    .look = fsp_resident_look,
    .stop = fsp_resident_stop,
    .free = release,
};

int fsp_reset_new(struct fsp_engine *e, struct fsp_template *t, struct fsp_reset **out) {
    if (fsp_engine_forked(e)) return -ECHILD;
    struct fsp_reset *reset = sys_calloc(1, sizeof *reset + e->nspawners * sizeof *reset->at);
    if (reset == NULL) return -ENOMEM;
    reset->origin = (struct fsp_origin){.ops = &ops, .next = &t->origin, .refs = 1};
    fsp_origin_ref(&t->origin);
    reset->template = t;
    reset->nspawners = e->nspawners;
    reset->brisk = FSP_BRISK_NS;
    reset->patience = FSP_PATIENCE_NS;
    reset->off = !fsp_reset_suits_plan(t->plan);
    for (unsigned i = 0; i < e->nspawners; i++) reset->at[i].wanted = 1;
    int r = fsp_origin_open(e, &reset->origin);
    if (r < 0)
        fsp_origin_unref(&reset->origin);
    else
        *out = reset;
    return r;
}

void fsp_reset_free(struct fsp_reset *reset) {
    fsp_origin_close(&reset->origin);
}

#else

int fsp_reset_new(struct fsp_engine *e, struct fsp_template *t, struct fsp_reset **out) {
    (void)e, (void)t, (void)out;
    return -ENOTSUP;
}

void fsp_reset_free(struct fsp_reset *reset) {
    (void)reset;
}

#endif
