/*
 * suits.c - which jobs a resident can do.
 *
 * What a plan asks for beside arguments and environment, a resident was given once, and keeps it.
 */
#include "reset.h"

#ifdef __linux__

static bool counts_cpu(const struct fsp_plan *plan) {
    for (size_t i = 0; i < plan->nrlimits; i++)
        if (plan->rlimits[i].resource == RLIMIT_CPU) return true;
    return false;
}

/* What is counted by the kernel for each process cannot be counted for each job. */
bool fsp_reset_suits_plan(const struct fsp_plan *plan) {
    return !fsp_plan_credentials(plan) && !plan->cgroup && !plan->nkeep && !counts_cpu(plan) &&
           plan->size - FSP_SNAP_PLAN_FROM <= FSP_SNAP_PLAN_MAX / 8;
}

static bool same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_settings(const struct fsp_plan *a, const struct fsp_plan *b) {
    return a->flags == b->flags && a->umask == b->umask && a->pgroup == b->pgroup &&
           a->death_signal == b->death_signal && a->nrlimits == b->nrlimits &&
           (a->nrlimits == 0 ||
            memcmp(a->rlimits, b->rlimits, a->nrlimits * sizeof *a->rlimits) == 0) &&
           same_text(a->cwd, b->cwd);
}

/* Whoever is told that it runs is told its pid, and that another is not begun in its place. */
bool fsp_reset_suits(const struct fsp_reset *reset, const struct fsp_job *job) {
    const struct fsp_plan *plan = reset->template->plan;
    if (job->options.flags & (FSP_JOB_STARTED | FSP_JOB_SPARE)) return false;
    return job->plan == plan || (fsp_reset_suits_plan(job->plan) && same_settings(job->plan, plan));
}

#endif
