/*
 * exec.c - the origin of children that are executed: the plan, on a pad, with its stdio.
 */
#include "engine.h"

static struct fsp_pad *pad_of(const struct fsp_job *job) {
    return job->from.ops == &fsp_exec ? job->from.at : NULL;
}

/* Children that have not executed yet. */
static unsigned on_their_way(const struct fsp_spawner *s) {
    unsigned n = 0;
    for (size_t i = 0; i < s->heap.n; i++) {
        const struct fsp_pad *pad = pad_of(s->heap.jobs[i]);
        n += pad && fsp_pad_busy(pad);
    }
    return n;
}

/*
 * Not waiting for the exec saves a spawner two context switches, and it can start the next child
 * meanwhile.  It waits when it is asked to tell that the program runs, when its table is too large
 * to be copied, and when enough children are on their way: more would only take the processors
 * from the event loop.
 */
static bool may_detach(const struct fsp_spawner *s, const struct fsp_job *job) {
    return s->private && !(job->options.flags & FSP_JOB_STARTED) && s->heap.n < FSP_DETACHED &&
           on_their_way(s) < FSP_ON_THEIR_WAY;
}

static int spawn(struct fsp_spawner *s, struct fsp_job *job, struct fsp_pad *pad,
                 struct fsp_error *error) {
    struct fsp_stdio io;
    unsigned flags = fsp_spawner_flags(s);
    int r = fsp_stdio_open(s, job, &io);
    *error = (struct fsp_error){-r, FSP_STAGE_PREPARE, -1};
    if (fsp_job_has_terminal(job)) flags |= FSP_SPAWN_TERMINAL;
    if (r == 0) {
        if (may_detach(s, job)) flags |= FSP_SPAWN_DETACHED;
        r = fsp_spawn_on(pad, job->plan, &io, flags, &s->engine->mask, &job->child, error);
    }
    fsp_stdio_close(s, &io);
    return r;
}

static enum fsp_birth start(struct fsp_spawner *s, struct fsp_job *job, uint64_t now,
                            struct fsp_error *error) {
    struct fsp_pad *pad = fsp_pad_get();
    (void)now;
    *error = (struct fsp_error){ENOMEM, FSP_STAGE_PREPARE, -1};
    if (pad == NULL) return FSP_BIRTH_FAILED;
    int r = spawn(s, job, pad, error);
    if (r == 0 && pad->launch.detached) {
        job->from.at = pad; /* the child may be on it until it ends */
        return FSP_BIRTH_OWN;
    }
    fsp_pad_put(pad);
    return r < 0 ? FSP_BIRTH_FAILED : FSP_BIRTH_OWN;
}

/* The child has ended: did it ever become the program? */
static void leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped) {
    struct fsp_pad *pad = job->from.at;
    (void)s, (void)reaped;
    if (pad == NULL) return;
    job->from.at = NULL;
    if (fsp_pad_busy(pad)) { /* given up on its way: what it reads must stay */
        fsp_plan_ref(job->plan);
        return;
    }
    if (pad->error.err) {
        job->outcome.error = (struct fsp_error){pad->error.err, pad->error.stage, pad->error.index};
    }
    fsp_pad_put(pad);
}

const struct fsp_origin_ops fsp_exec = {.start = start, .leave = leave};
