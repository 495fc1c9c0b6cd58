/*
 * lend.c - a resident is given a job, and the job lets go of it.
 */
#include "reset.h"

#ifdef __linux__
#include <sys/socket.h>
#include <sys/uio.h>

/* ---- it is given one ---- */

static int send_job(struct fsp_spawner *s, struct fsp_resident *r, struct fsp_plan *plan,
                    const struct fsp_stdio *io) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {0};
    struct fsp_resident_job job = {.number = r->number};
    struct iovec parts[2] = {
        {&job,                              sizeof job                     },
        {(char *)plan + FSP_SNAP_PLAN_FROM, plan->size - FSP_SNAP_PLAN_FROM}
    };
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 1};
    int fd[3], nfds = fsp_zygote_choose_fds(s, io, job.fd, fd);
    if (r->told != plan) {
        job.plan_size = (uint32_t)plan->size;
        job.plan_at = (uint64_t)(uintptr_t)plan;
        msg.msg_iovlen = 2;
    }
    if (nfds) fsp_zygote_add_fds(&msg, control, fd, (size_t)nfds);
    int sent = (int)FSP_CALL("sendmsg", sendmsg(r->socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (sent < 0) return sent;
    if (r->told != plan) {
        fsp_plan_unref(r->told);
        r->told = fsp_plan_ref(plan);
    }
    return 0;
}

static bool give(struct fsp_spawner *s, struct fsp_resident *r, struct fsp_job *job) {
    struct fsp_nest *nest = fsp_nest_of(r->reset, s);
    struct fsp_stdio io;
    r->number = ++nest->number;
    int error = fsp_stdio_open(s, job, &io);
    bool opened = error == 0;
    if (opened) error = send_job(s, r, job->plan, &io);
    fsp_stdio_close(s, &io);
    if (error == 0) return true;
    if (opened) fsp_resident_retire(s, r); /* it has ended, or does not read */
    return false;
}

/* How many jobs of ours there are here with this one, as far as it matters; whoever does them.
 * Those of other templates are no reason for more residents of this one. */
static unsigned at_once(const struct fsp_spawner *s, const struct fsp_reset *reset) {
    unsigned n = 1;
    for (size_t i = 0; i < s->heap.n && n < FSP_RESIDENTS; i++)
        n += s->heap.jobs[i]->origin == &reset->origin;
    return n;
}

/* Fewer than jobs at once: how many there would have to be. */
static void want_more(struct fsp_spawner *s, struct fsp_reset *reset) {
    struct fsp_nest *nest = fsp_nest_of(reset, s);
    if (nest->wanted < FSP_RESIDENTS) {
        unsigned jobs = at_once(s, reset);
        if (nest->wanted < jobs) nest->wanted = jobs;
    }
    if (nest->n < nest->wanted) fsp_post_set_due(s, &nest->post, 0);
}

struct fsp_resident *fsp_nest_next_idle(struct fsp_spawner *s, struct fsp_nest *nest) {
    while (nest->idle && !fsp_resident_is_fit(s, nest->idle)) fsp_resident_retire(s, nest->idle);
    return nest->idle;
}

static bool is_usable(struct fsp_spawner *s, struct fsp_reset *reset, const struct fsp_job *job,
                      uint64_t now) {
    return !fsp_reset_is_off(reset) && !fsp_nest_of(reset, s)->post.closed &&
           fsp_zygote_is_usable(s, fsp_nest_zygote(reset, s), job, now);
}

bool fsp_resident_take(struct fsp_spawner *s, struct fsp_reset *reset, struct fsp_job *job,
                       uint64_t now) {
    struct fsp_nest *nest = fsp_nest_of(reset, s);
    if (!is_usable(s, reset, job, now)) return false;
    struct fsp_resident *r = fsp_nest_next_idle(s, nest);
    if (r == NULL || !give(s, r, job)) return false;
    nest->idle = r->next_idle;
    nest->busy++;
    r->state = FSP_RESIDENT_LENT;
    r->due = 0;
    r->job = job;
    job->child = r->child;
    job->from.at = r;
    fsp_template_asked(reset->template, fsp_place_of(reset->template, s), true);
    return true;
}

enum fsp_birth fsp_resident_lend(struct fsp_spawner *s, struct fsp_job *job, uint64_t now,
                                 struct fsp_error *error) {
    struct fsp_reset *reset = (struct fsp_reset *)job->turn;
    (void)error;
    if (!fsp_reset_suits(reset, job) || !is_usable(s, reset, job, now)) return FSP_BIRTH_NONE;
    if (fsp_nest_next_idle(s, fsp_nest_of(reset, s)))
        return fsp_resident_take(s, reset, job, now) ? FSP_BIRTH_LENT : FSP_BIRTH_NONE;
    want_more(s, reset);
    if (!fsp_reset_is_brisk(s, reset, now)) return FSP_BIRTH_NONE;
    fsp_reset_await(s, reset, job);
    return FSP_BIRTH_LATER;
}

/* ---- the job lets go of it ---- */

static long minus(long n, int64_t before) {
    return (long)((uint64_t)n - (uint64_t)before);
}

static struct timeval less(struct timeval t, int64_t us) {
    int64_t left = (int64_t)t.tv_sec * 1000000 + t.tv_usec - fsp_resident_us(us);
    if (left < 0) left = 0;
    return (struct timeval){left / 1000000, left % 1000000};
}

/* The kernel tells what it used in all of its life. */
static void subtract_before(const struct fsp_resident_usage *before, struct rusage *usage) {
    usage->ru_utime = less(usage->ru_utime, before->user);
    usage->ru_stime = less(usage->ru_stime, before->system);
    usage->ru_minflt = minus(usage->ru_minflt, before->minor_faults);
    usage->ru_majflt = minus(usage->ru_majflt, before->major_faults);
    usage->ru_inblock = minus(usage->ru_inblock, before->blocks_in);
    usage->ru_oublock = minus(usage->ru_oublock, before->blocks_out);
    usage->ru_nvcsw = minus(usage->ru_nvcsw, before->waits);
    usage->ru_nivcsw = minus(usage->ru_nivcsw, before->preemptions);
}

static void own_ended(struct fsp_resident *r, struct fsp_job *job, bool reaped) {
    struct fsp_resident_usage before = fsp_resident_record(r)->before;
    if (reaped && !job->outcome.status.lost) subtract_before(&before, &job->outcome.status.usage);
    fsp_resident_free(r, reaped);
}

/* It did not even end when it was killed. */
static void give_up(struct fsp_spawner *s, struct fsp_resident *r) {
    fsp_resident_let_go(s, r);
    sys_close(r->child.pidfd);
    fsp_resident_free(r, false);
}

void fsp_resident_leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped) {
    struct fsp_resident *r = job->from.at;
    if (r == NULL) return;
    job->from.at = NULL;
    r->job = NULL;
    if (r->state == FSP_RESIDENT_OWN) {
        own_ended(r, job, reaped);
        return;
    }
    if (!reaped) {
        give_up(s, r);
        return;
    }
    if (job->signalled || r->ended || !fsp_resident_is_fit(s, r)) {
        fsp_resident_retire(s, r);
        if (r->ended) fsp_helpers_look_at(s, 0);
        return;
    }
    fsp_nest_of(r->reset, s)->busy--;
    fsp_resident_rest(s, r);
}

#endif
