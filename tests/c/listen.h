/*
 * listen.h - an engine's caller, for tests: it listens to jobs and remembers what it heard.
 */
#ifndef LISTEN_H
#define LISTEN_H

#include "engine/engine.h" /* for the sizes that bound what a job may hold */

#include "support.h"
#include "tap.h"

/* All that was heard of a job. */
struct heard {
    struct fsp_job *job;
    struct fsp_outcome *outcome; /* once ended */
    int started, drained, ended, after_end;
    int chunks;
    bool hold;             /* do not give back what comes */
    size_t told[2];        /* bytes in chunks */
    size_t held[2];        /* of them not given back */
    struct fsp_buf all[2]; /* everything of each stream, in order, with a NUL behind it */
};

struct fsp_engine *listen_engine(unsigned spawners); /* exits when there is none */

/* Make engines whose spawners share the descriptor table of the process, as on kernels before 5.9.
 */
extern bool listen_shared_tables;

/* stdin from /dev/null, both outputs to pipes, no limits, a short grace and a long drain. */
struct fsp_job_options listen_options(void);

/* The group of a command on an engine is its own. */
void listen_submit(struct fsp_engine *e, struct fsp_spec spec, struct fsp_job_options options,
                   struct heard *heard);

/* Take the news there are, or that come within the time (ms). */
void listen_once(struct fsp_engine *e, int timeout);
/* Listen until the condition holds; false when that takes too long. */
#define LISTEN_UNTIL(e, condition)                                                                 \
    ({                                                                                             \
        uint64_t end_ = sys_now() + TAP_PATIENCE_MS * 1000000ull;                                  \
        while (!(condition) && sys_now() < end_) listen_once(e, 1);                                \
        (condition);                                                                               \
    })
bool listen_to_end(struct fsp_engine *e, struct heard *heard, size_t n);

void listen_consume(struct heard *heard, int stream); /* all that is held */

/* Check that each ended once, and free. */
void listen_free(struct heard *heard, size_t n);

/* One command on an engine of its own. */
void listen_run(struct fsp_spec spec, struct fsp_job_options options, struct heard *heard);

#endif
