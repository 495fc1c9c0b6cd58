/*
 * ask.c - a template process is asked for a job's child: its stdio, and the plan if it has another.
 */
#include "zygote.h"

#ifdef __linux__

/* May this fork ask to become a template process?  Not with other rights than it would need. */
static bool may_checkpoint(struct fsp_spawner *s, const struct fsp_zygote *z,
                           const struct fsp_job *job) {
    return z->may_checkpoint && fsp_place_of(z->template, s)->misses < FSP_MISSES &&
           !fsp_plan_credentials(job->plan);
}

static int request(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job,
                   const struct fsp_stdio *io) {
    struct fsp_snap_request request = {.slot = job->from.slot};
    int send[3], nsend = fsp_zygote_choose_fds(s, io, request.fd, send);
    if (may_checkpoint(s, z, job)) {
        job->from.flags |= FSP_FROM_MAY_CHECKPOINT;
        request.flags |= FSP_SNAP_MAY_CHECKPOINT;
    }
    return fsp_zygote_request(s, z, &request, job->plan, send, (size_t)nsend);
}

static bool ask(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job) {
    struct fsp_stdio io;
    if (!fsp_zygote_enter(z, job)) return false;
    int r = fsp_stdio_open(s, job, &io);
    if (r == 0) r = request(s, z, job, &io);
    fsp_stdio_close(s, &io);
    if (r >= 0) {
        fsp_zygote_await(s, z, job);
        return true;
    }
    fsp_zygote_leave(s, job, true);
    return false;
}

/* What it may have asked about its streams holds for this job, too. */
static bool suits_effect(const struct fsp_zygote *z, const struct fsp_job *job) {
    return job->plan == z->template->plan && !fsp_stdio_may_be_terminal(&job->options);
}

bool fsp_zygote_is_usable(struct fsp_spawner *s, struct fsp_zygote *z, const struct fsp_job *job,
                          uint64_t now) {
    if (z == NULL || z->state != FSP_ZYGOTE_READY || job->plan->nkeep) return false;
    if (z->at_effect && !suits_effect(z, job)) return false;
    const char *changed = fsp_files_changed(z, now);
    if (changed == NULL) return true;
    fsp_template_set_stale(z->template, changed);
    fsp_zygote_retire(s, z);
    return false;
}

enum fsp_birth fsp_zygote_ask(struct fsp_spawner *s, struct fsp_job *job, uint64_t now,
                              struct fsp_error *error) {
    struct fsp_template *t = (struct fsp_template *)job->turn;
    (void)error;
    struct fsp_place *place = fsp_place_of(t, s);
    struct fsp_zygote *z = place->zygote;
    bool asked = fsp_zygote_is_usable(s, z, job, now) && ask(s, z, job);
    fsp_template_asked(t, place, asked);
    return asked ? FSP_BIRTH_LATER : FSP_BIRTH_NONE;
}

#endif
