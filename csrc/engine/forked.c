/*
 * forked.c - whose engine it is: its threads do not exist in a forked process.
 */
#include "engine.h"

static unsigned fork_generation;

static void forked(void) {
    fork_generation++; /* the child of a fork has one thread */
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, forked);
}

unsigned fsp_fork_generation(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    return fork_generation;
}

int fsp_engine_forked(const struct fsp_engine *e) {
    return e->born != fork_generation;
}
