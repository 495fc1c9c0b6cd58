/*
 * retire.c - a template process ends.
 *
 * One that is to be replaced is retired first: it gets no more requests, answers those that it
 * has, and leaves when its socket closes.  One that dies is buried: the page tells which of the
 * jobs that waited for it have their fork, and the others start by exec.  Its memory stays until
 * the last job that reads its page has left.
 */
#include "zygote.h"

#ifdef __linux__

#define YOUNG_NS 500000000u /* one that dies younger is replaced after a while only */

void fsp_zygote_let_go(struct fsp_spawner *s, struct fsp_zygote *z) {
    fsp_zygote_close(s, z);
    fsp_zygote_set_due(s, z, sys_now() + FSP_ANSWER_NS);
}

void fsp_zygote_retire(struct fsp_spawner *s, struct fsp_zygote *z) {
    struct fsp_place *place = fsp_place_of(z->template, s);
    if (place->zygote == z) {
        place->zygote = NULL;
        fsp_post_set_due(s, &place->post, sys_now() + fsp_files_tick());
        if (z->state == FSP_ZYGOTE_READY) fsp_template_set_ready(z, -1);
    }
    z->state = FSP_ZYGOTE_RETIRED;
    fsp_zygote_tell_follower(s, z);
    if (!fsp_zygote_is_asked(z)) fsp_zygote_let_go(s, z);
}

void fsp_zygote_put_down(struct fsp_zygote *z) {
    z->due = 0;
    fsp_kill(&z->child, 0, SIGKILL);
}

void fsp_zygote_give_back(struct fsp_spawner *s, struct fsp_zygote *z) {
    struct fsp_job *job = fsp_zygote_next_asked(z);
    struct fsp_child child = z->child;
    fsp_poller_forget(&s->poller, child.pidfd, FSP_POLL_IN);
    z->child = (struct fsp_child){-1, -1};
    z->own = NULL;
    fsp_zygote_leave(s, job, true);
    fsp_job_has_child(s, job, child);
}

static enum fsp_refusal how_early(const struct fsp_zygote *z) {
    return z->page->in_main ? FSP_REFUSED_EARLY : FSP_REFUSED_EXIT;
}

void fsp_zygote_bury(struct fsp_spawner *s, struct fsp_zygote *z, int status) {
    struct fsp_template *t = z->template;
    struct fsp_place *place = fsp_place_of(t, s);
    struct fsp_job *job;
    bool was_starting = z->state == FSP_ZYGOTE_STARTING, was_ready = z->state == FSP_ZYGOTE_READY;
    uint64_t now = sys_now(), age = now - z->born;
    fsp_zygote_retire(s, z);
    if (was_ready) fsp_template_count(t, &t->state.restarted);
    if (was_starting) fsp_template_set_short(s, z, how_early(z), status);
    if (was_ready && age < YOUNG_NS) fsp_post_set_due(s, &place->post, now + FSP_BACKOFF_NS);
    if (was_ready && age >= YOUNG_NS) place->failures = 0;
    while ((job = fsp_zygote_next_asked(z))) fsp_zygote_answer(s, z, job);
    for (struct fsp_fork *fork; (fork = z->forks);) {
        pid_t pid = z->page->slot[fork->slot].pid;
        fork->born(s, fsp_fork_answered(z, fork->slot), pid);
    }
    fsp_zygote_close(s, z);
    fsp_helper_remove(s, &z->helper);
    z->state = FSP_ZYGOTE_DEAD;
    if (z->jobs == 0) fsp_zygote_free(z);
}

#endif
