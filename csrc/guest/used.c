/*
 * used.c - what a resident's program is told of what it has used: since its job began.
 */
#include "call.h"

#ifdef FSP_HAVE_RESIDENTS
#include <sys/times.h>

#define TICK 10000 /* us: USER_HZ */

static void subtract(struct timeval *a, const struct timeval *b) {
    a->tv_sec -= b->tv_sec;
    a->tv_usec -= b->tv_usec;
    if (a->tv_usec < 0) {
        a->tv_usec += 1000000;
        a->tv_sec--;
    }
    if (a->tv_sec < 0) *a = (struct timeval){0}; /* the kernel divides anew each time */
}

bool used_by_it(struct call *c) {
    const struct rusage *base = &resident->base;
    struct rusage *u = (void *)c->arg[1];
    call_pass(c);
    if (c->result < 0 || c->arg[0] == RUSAGE_CHILDREN) return true;
    subtract(&u->ru_utime, &base->ru_utime);
    subtract(&u->ru_stime, &base->ru_stime);
    u->ru_minflt -= base->ru_minflt;
    u->ru_majflt -= base->ru_majflt;
    u->ru_nvcsw -= base->ru_nvcsw;
    u->ru_nivcsw -= base->ru_nivcsw;
    u->ru_inblock -= base->ru_inblock;
    u->ru_oublock -= base->ru_oublock;
    return true;
}

static long used_ns(void) {
    const struct rusage *base = &resident->base;
    return (base->ru_utime.tv_sec + base->ru_stime.tv_sec) * 1000000000 +
           (base->ru_utime.tv_usec + base->ru_stime.tv_usec) * 1000;
}

/* Another's are negative numbers. */
bool used_clock(struct call *c) {
    struct timespec *t = (void *)c->arg[1];
    clockid_t id = (clockid_t)c->arg[0];
    if (id < 0) return false;
    call_pass(c);
    if (c->result < 0 || (id != CLOCK_PROCESS_CPUTIME_ID && id != CLOCK_THREAD_CPUTIME_ID))
        return true;
    long ns = t->tv_sec * 1000000000 + t->tv_nsec - used_ns();
    if (ns < 0) ns = 0;
    *t = (struct timespec){ns / 1000000000, ns % 1000000000};
    return true;
}

bool used_sleep(struct call *c) {
    clockid_t id = (clockid_t)c->arg[0];
    bool counts = id < 0 || id == CLOCK_PROCESS_CPUTIME_ID || id == CLOCK_THREAD_CPUTIME_ID;
    return call_pass_if(c, !counts);
}

static void take_ticks(clock_t *ticks, const struct timeval *used) {
    *ticks -= used->tv_sec * (1000000 / TICK) + used->tv_usec / TICK;
    if (*ticks < 0) *ticks = 0;
}

bool used_times(struct call *c) {
    struct tms *t = (void *)c->arg[0];
    call_pass(c);
    if (is_error(c->result) || t == NULL) return true;
    take_ticks(&t->tms_utime, &resident->base.ru_utime);
    take_ticks(&t->tms_stime, &resident->base.ru_stime);
    return true;
}

#endif
