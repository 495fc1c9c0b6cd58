/*
 * zygote.c - a template process as its spawner has it: what it is made of, and the jobs that wait
 * for it or run on its page.
 *
 *   start -> HELLO -> ready: ask, FORKED, ask, FORKED ... -> dies, is killed, or is retired
 *
 * Each spawner has one process of each template, and talks to it alone: nothing is shared, and as
 * many forks go on at once as there are spawners.
 *
 * A job that was asked for waits for FORKED; only then has it a child.  If the process dies first,
 * the page tells whether the fork was made: it is then a child like any other, and if not the job
 * goes back to the queue, to start by exec.
 */
#include "zygote.h"

#ifdef __linux__

#define HURRY_NS 100000000u /* for an answer to a job that is to be killed */

/* ---- what it is made of, and is taken apart into ---- */

struct fsp_zygote *fsp_zygote_new(struct fsp_spawner *s, struct fsp_template *t) {
    struct fsp_zygote *z = sys_calloc(1, sizeof *z);
    if (z == NULL) return NULL;
    fsp_origin_ref(&t->origin);
    fsp_helper_init(s, &z->helper, &t->origin);
    z->template = t;
    z->socket = -1;
    z->child = (struct fsp_child){-1, -1};
    z->born = sys_now();
    z->since = fsp_files_now();
    return z;
}

int fsp_zygote_open_page(struct fsp_zygote *z) {
    int fd = (int)FSP_CALL("memfd_create", memfd_create("fastspawn", MFD_CLOEXEC));
    if (fd < 0) return fd;
    int r = (int)FSP_CALL("ftruncate", ftruncate(fd, sizeof *z->page));
    if (r == 0 && fsp_fault("mmap")) r = -ENOMEM;
    void *page =
        r < 0 ? MAP_FAILED : mmap(NULL, sizeof *z->page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        sys_close(fd);
        return r < 0 ? r : -ENOMEM;
    }
    z->page = page;
    return fd;
}

void fsp_zygote_take_place(struct fsp_spawner *s, struct fsp_zygote *z) {
    struct fsp_place *place = fsp_place_of(z->template, s);
    fsp_helper_add(s, &z->helper);
    place->zygote = z;
    fsp_post_set_due(s, &place->post, UINT64_MAX);
}

void fsp_zygote_tell_follower(struct fsp_spawner *s, const struct fsp_zygote *z) {
    struct fsp_place *place = fsp_place_of(z->template, s);
    if (place->follower) fsp_post_set_due(s, place->follower, 0);
}

void fsp_zygote_close(struct fsp_spawner *s, struct fsp_zygote *z) {
    if (z->socket < 0) return;
    fsp_poller_forget(&s->poller, z->socket, FSP_POLL_IN);
    sys_close(z->socket);
    z->socket = -1;
}

void fsp_zygote_free(struct fsp_zygote *z) {
    if (z->page) sys_munmap(z->page, sizeof *z->page);
    fsp_plan_unref(z->told);
    fsp_origin_unref(&z->template->origin);
    free(z->inputs);
    free(z);
}

/* ---- jobs that wait for it, or run on its page ---- */

int fsp_zygote_take_slot(struct fsp_zygote *z) {
    if (z->nfree == 0 && z->fresh == FSP_SNAP_SLOTS) return -1;
    z->jobs++;
    return z->nfree ? z->free[--z->nfree] : (int)z->fresh++;
}

void fsp_zygote_give_slot(struct fsp_zygote *z, uint32_t slot, bool reusable) {
    if (reusable) {
        z->page->slot[slot] = (struct fsp_snap_slot){0};
        z->free[z->nfree++] = (uint16_t)slot;
    }
    if (--z->jobs == 0 && z->state == FSP_ZYGOTE_DEAD) fsp_zygote_free(z);
}

bool fsp_zygote_enter(struct fsp_zygote *z, struct fsp_job *job) {
    int slot = fsp_zygote_take_slot(z);
    if (slot < 0) return false;
    job->from.at = z;
    job->from.slot = (uint32_t)slot;
    job->from.flags = 0;
    z->of[slot] = job;
    return true;
}

void fsp_zygote_leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped) {
    struct fsp_zygote *z = job->from.at;
    if (z == NULL) return;
    struct fsp_snap_slot *slot = &z->page->slot[job->from.slot];
    if (job->from.flags & FSP_FROM_MAY_CHECKPOINT && slot->pid)
        fsp_place_of(z->template, s)->misses++;
    job->from.at = NULL;
    z->of[job->from.slot] = NULL;
    if (slot->pid && slot->error.err)
        job->outcome.error =
            (struct fsp_error){slot->error.err, slot->error.stage, slot->error.index};
    fsp_zygote_give_slot(z, job->from.slot, reaped);
}

/* The job shall end: a process that does not answer will not be waited for much longer. */
void fsp_zygote_hurry(struct fsp_spawner *s, struct fsp_job *job) {
    struct fsp_zygote *z = job->from.at;
    uint64_t soon = sys_now() + HURRY_NS;
    if (z->due > soon) fsp_zygote_set_due(s, z, soon);
}

struct fsp_job *fsp_zygote_next_asked(struct fsp_zygote *z) {
    struct fsp_job *job = z->asked;
    if (job) z->asked = job->next;
    return job;
}

int fsp_zygote_pid_of(const struct fsp_zygote *z, const struct fsp_job *job) {
    return z->page->slot[job->from.slot].pid;
}

/* The kernel wrote the pid there, but others may: no process of somebody else is ours to signal. */
struct fsp_child fsp_zygote_child(pid_t pid, int *error) {
    int pidfd = pid > 0 ? sys_pidfd_open(pid) : -1;
    struct fsp_child child = {pid, pidfd < 0 ? -1 : pidfd};
    if (error) *error = pidfd;
    if (pid > 0 && fsp_is_child(&child)) return child;
    sys_close(child.pidfd);
    return (struct fsp_child){-1, -1};
}

void fsp_zygote_answer(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job) {
    struct fsp_child child = fsp_zygote_child(fsp_zygote_pid_of(z, job), NULL);
    if (child.pid > 0) {
        fsp_job_has_child(s, job, child);
        return;
    }
    z->page->slot[job->from.slot].pid = 0;
    fsp_job_has_none(s, job);
}

void fsp_zygote_expect(struct fsp_spawner *s, struct fsp_zygote *z) {
    if (z->due == 0) fsp_zygote_set_due(s, z, sys_now() + FSP_ANSWER_NS);
}

void fsp_zygote_await(struct fsp_spawner *s, struct fsp_zygote *z, struct fsp_job *job) {
    job->next = NULL;
    if (z->asked)
        z->last->next = job;
    else
        z->asked = job;
    z->last = job;
    fsp_zygote_expect(s, z);
}

#endif
