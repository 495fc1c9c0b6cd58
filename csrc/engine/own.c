/*
 * own.c - what is a spawner's own: its descriptor table, and what is open in it.
 *
 * It owns its table (close_range with CLOSE_RANGE_UNSHARE): no socket of the server is ever in it,
 * so none can leak into a child, holds up a close, or costs a spawn anything; and a file that
 * another thread is writing cannot be busy (ETXTBSY) because of us.
 */
#include "engine.h"

#ifdef __linux__

static unsigned nearest(unsigned from, unsigned found, const struct fsp_waker *w) {
    unsigned fd = (unsigned)w->fd[0];
    return fd >= from && fd < found ? fd : found;
}

/* The lowest descriptor from there on that is kept: the wakers, as whoever runs on one spawner may
 * wake another.  UINT_MAX: none. */
static unsigned next_kept(const struct fsp_engine *e, unsigned from) {
    unsigned found = nearest(from, UINT_MAX, &e->waker);
    for (unsigned i = 0; i < e->nspawners; i++) found = nearest(from, found, &e->spawner[i].waker);
    return found;
}

static unsigned last_kept(const struct fsp_engine *e) {
    unsigned last = 2;
    for (unsigned at; (at = next_kept(e, last + 1)) != UINT_MAX;) last = at;
    return last;
}

/* The topmost range goes first: it is the one that unshares, and what it drops is not even
 * copied. */
static bool own_table(struct fsp_spawner *s) {
    unsigned last = last_kept(s->engine);
    if (sys_close_range(last + 1, ~0u, CLOSE_RANGE_UNSHARE) < 0) return false;
    for (unsigned from = 3, kept; from <= last; from = kept + 1) {
        kept = next_kept(s->engine, from);
        if (kept > from) sys_close_range(from, kept - 1, 0);
    }
    return true;
}

#else

static bool own_table(struct fsp_spawner *s) {
    (void)s;
    return false;
}

#endif

int fsp_spawner_open(struct fsp_spawner *s) {
    s->devnull = s->low[0] = s->low[1] = s->low[2] = s->poller.fd = -1;
    s->tend_at = UINT64_MAX;
    s->scratch = sys_malloc(FSP_SCRATCH);
    if (s->scratch == NULL) return -ENOMEM;
    s->private = own_table(s);
    int r = s->devnull = sys_open("/dev/null", O_RDWR);
    for (int i = 0; i < 3 && r >= 0; i++) r = s->low[i] = sys_dup_above(s->devnull, 3);
    if (r >= 0) r = fsp_poller_init(&s->poller);
    if (r >= 0) r = fsp_poller_watch(&s->poller, s->waker.fd[0], FSP_POLL_IN, UINT64_MAX);
    return r < 0 ? r : 0;
}

void fsp_spawner_close(struct fsp_spawner *s) {
    fsp_pipes_close(&s->pipes);
    fsp_poller_close(&s->poller);
    sys_close(s->devnull);
    for (int i = 0; i < 3; i++) sys_close(s->low[i]);
    free(s->heap.jobs);
    free(s->slots.slot);
    free(s->scratch);
}

unsigned fsp_spawner_flags(const struct fsp_spawner *s) {
    return (s->private ? FSP_SPAWN_PRIVATE : 0) | (s->batch ? FSP_SPAWN_BATCH : 0);
}

/*
 * One that asks for forks would be woken for each answer and for each exit, and preempt a fork
 * that runs for it.  It waits for its turn instead, and finds more at a time, with half as many
 * wake-ups.  For one that executes it would make no difference.
 */
void fsp_spawner_calm(struct fsp_spawner *s) {
    if (!s->batch) s->batch = sys_batch() == 0;
}
