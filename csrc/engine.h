/*
 * engine.h - the engine's own structures.
 *
 *      caller                       engine lock                        spawner thread
 *   fsp_engine_submit  --------->  pending jobs  ------------------->  fsp_job_start
 *   fsp_job_write, ... --------->  a job's `mail`, its owner's list -> fsp_job_read_mail
 *   fsp_engine_take    <---------  a job's `news`, the engine's list <- fsp_job_tell_*
 *
 * A job belongs to its submitter's hands and to one spawner at once, and they meet only in its
 * two mailboxes, which the engine's one lock guards.  Everything else in a job is written by the
 * submitter before it is handed over, or by its spawner until it has ended.
 */
#ifndef FSP_ENGINE_H
#define FSP_ENGINE_H

#include "internal.h"

#define FSP_WINDOW    (256 * 1024) /* delivered output that the caller has not consumed */
#define FSP_FEED_HIGH (256 * 1024) /* stdin queued: above this the writer is told to wait ... */
#define FSP_FEED_LOW  (64 * 1024)  /* ... and below this to go on */
#define FSP_SCRATCH   (64 * 1024)  /* one read: a pipe's default capacity */
#define FSP_WATCH_NS  1000000      /* a child that lives longer has its pipes watched ... */
#define FSP_STREAM_NS 10000000     /* ... and longer than this, its output told as it comes */
#define FSP_DETACHED  16   /* children that a spawner runs at most before it waits for execs, ... */
#define FSP_ON_THEIR_WAY 4 /* ... of which so many have not executed yet */
#define FSP_RETRY_NS     2000000000 /* for how long a spawn that lacks resources is put off */
#define FSP_HOLD_NS      10000000   /* between two such tries */
#define FSP_ABANDON_NS   5000000000 /* a killed child that does not end is given up */

/* What may be due; the earliest counts. */
enum fsp_due {
    FSP_DUE_WATCH,    /* it is no short-lived child: watch its pipes */
    FSP_DUE_STREAM,   /* nor one whose output can be told in one piece */
    FSP_DUE_DEADLINE, /* limits.timeout */
    FSP_DUE_KILL,     /* limits.kill_grace after TERM; then FSP_ABANDON_NS after KILL */
    FSP_DUE_DRAIN,    /* limits.drain after the leader's exit */
    FSP_DUE_POLL,     /* no pidfd, or not waitable yet: look again */
    FSP_NDUE,
};

struct fsp_feed {
    struct fsp_feed *next;
    const char *data; /* right behind it, or borrowed */
    size_t len;
};

/* stdout or stderr */
struct fsp_out {
    int fd;       /* -1: none, or at its end */
    bool watched; /* in the poller */
    struct fsp_buf held;
};

struct fsp_in {
    int fd;
    bool watched, eof;
    struct fsp_feed *first, **last;
    struct fsp_feed input; /* options.input, borrowed */
};

/* From the submitter. */
struct fsp_mail {
    struct fsp_feed *feed, **feed_last;
    size_t queued;                 /* bytes here and in fsp_in, not yet written */
    uint64_t told[2], consumed[2]; /* bytes in chunks: ever told, given back */
    uint64_t signals[2];           /* bit sets: to the child, to its group */
    bool eof, cancel, adopt;
    bool want_drain; /* the writer was told to wait */
    bool tell_adopted;
    bool stalled; /* the spawner waits for `consumed` */
    bool listed;  /* in the owner's list */
};

struct fsp_job {
    struct fsp_engine *engine;
    struct fsp_plan *plan;
    struct fsp_job_options options;

    /* Under the engine's lock. */
    struct fsp_job *next, *prev; /* pending */
    struct fsp_job *next_mail;   /* the owner's list */
    struct fsp_job *next_news;   /* the engine's list */
    struct fsp_spawner *owner;   /* NULL: pending, or ended */
    struct fsp_mail mail;
    struct fsp_news news;
    struct fsp_chunk **news_last;
    bool news_listed, ended;

    /* The taker's: a job may be on the next list already while it walks this one. */
    struct fsp_news taken;
    struct fsp_job *next_taken;

    /* The spawner's. */
    struct fsp_child child;
    struct fsp_pad *pad;       /* the child may be on it until it ends */
    struct fsp_zygote *zygote; /* it was asked of there; with no pid yet, it waits for the fork */
    uint32_t zygote_slot;
    bool by_exec;             /* the fork failed */
    bool may_checkpoint;      /* it was let, and has not yet */
    uint64_t held_signals[2]; /* for a child that is not there yet */
    uint32_t slot;
    struct fsp_out out[2];
    struct fsp_in in;
    uint64_t started_at, give_up_at, total_output;
    uint64_t due[FSP_NDUE]; /* 0: not */
    uint64_t next_due;      /* the heap's key */
    size_t heap_index;
    bool exited, streaming, terminating, killed, aborted, abandoned;
    struct fsp_outcome outcome; /* the submitter's once ended */
};

/* ---- heap.c ---- */

struct fsp_heap {
    struct fsp_job **jobs;
    size_t n, cap;
};

int fsp_heap_reserve(struct fsp_heap *heap); /* room for one more: 0 or -ENOMEM */
void fsp_heap_add(struct fsp_heap *heap, struct fsp_job *job);
void fsp_heap_remove(struct fsp_heap *heap, struct fsp_job *job);
void fsp_heap_moved(struct fsp_heap *heap, struct fsp_job *job); /* its key changed */

/* ---- slots.c ---- */

/* Names for jobs in the poller that go stale when the job ends. */
struct fsp_slot {
    struct fsp_job *job;
    uint32_t generation, next_free;
};

struct fsp_slots {
    struct fsp_slot *slot;
    uint32_t cap, first_free;
};

enum fsp_source { FSP_SOURCE_STDOUT, FSP_SOURCE_STDERR, FSP_SOURCE_STDIN, FSP_SOURCE_CHILD };

int fsp_slots_reserve(struct fsp_slots *slots);
void fsp_slots_add(struct fsp_slots *slots, struct fsp_job *job);
void fsp_slots_remove(struct fsp_slots *slots, struct fsp_job *job);
uint64_t fsp_slots_token(const struct fsp_slots *slots, const struct fsp_job *job,
                         enum fsp_source source);
struct fsp_job *fsp_slots_find(const struct fsp_slots *slots, uint64_t token,
                               enum fsp_source *source); /* NULL: stale */

/* ---- engine.c, spawner.c ---- */

struct fsp_spawner {
    struct fsp_engine *engine;
    pthread_t thread;
    struct fsp_waker waker;

    /* Under the engine's lock. */
    struct fsp_spawner *next_idle;
    struct fsp_job *mail;
    bool sleeping;
    bool templates; /* there is something to do about one */

    /* The thread's own. */
    struct fsp_poller poller;
    struct fsp_pipes pipes;
    struct fsp_heap heap;
    struct fsp_slots slots;
    int devnull;
    int low[3]; /* reserved numbers for the ends of the next child, see stdio.c */
    bool private, batch;
    uint64_t hold_until; /* no spawn before: resources ran out */
    struct fsp_zygote *zygotes;
    uint32_t last_zygote;
    uint64_t tend_at; /* something is due about one */
    char *scratch;
};

struct fsp_engine {
    pthread_mutex_t lock;
    struct fsp_job *pending, *pending_last;
    struct fsp_spawner *idle;
    struct fsp_job *news, **news_last;
    struct fsp_template *templates;
    bool stopping;
    uint64_t scarce_since, scarce_at; /* spawns lack resources: the first and the latest time */
    struct fsp_engine_stats stats;

    struct fsp_waker waker;
    uint64_t mask;
    unsigned born; /* fork generation */
    int init_result;
    unsigned nspawners, nready, nstarted;
    pthread_cond_t ready;
    struct fsp_spawner spawner[];
};

/* The queue of pending jobs, under the lock. */
void fsp_engine_unqueue(struct fsp_engine *e, struct fsp_job *job);
void fsp_engine_requeue(struct fsp_engine *e, struct fsp_job *job); /* ahead of the others */

void *fsp_spawner_main(void *spawner);
unsigned fsp_spawner_flags(const struct fsp_spawner *s); /* for fsp_spawn */
void fsp_spawner_calm(struct fsp_spawner *s);            /* it asks for forks */
/* A job that could not start goes back to the head of the queue. */
void fsp_job_give_back(struct fsp_job *job);

/* ---- mail.c: both mailboxes; each takes the lock itself ---- */

void fsp_job_tell_started(struct fsp_job *job);
void fsp_job_tell_output(struct fsp_job *job, struct fsp_chunk *chunk);
void fsp_job_tell_fed(struct fsp_job *job, size_t written);
void fsp_job_tell_ended(struct fsp_job *job);
/* Is there room in the window?  If not, the next `consumed` comes as mail. */
bool fsp_job_has_room(struct fsp_job *job, int stream);
/* Take a job's mail, leaving the counters. */
struct fsp_mail fsp_job_take_mail(struct fsp_job *job);
void fsp_job_unlist(struct fsp_job *job); /* no mail after all; under the lock */
/* The next job of this spawner that has mail, or NULL. */
struct fsp_job *fsp_spawner_next_mail(struct fsp_spawner *s);

/* ---- job.c: a job on its spawner ---- */

/* Spawn it.  1: not now (resources), nothing has changed; 0: it runs, or ended with an error. */
int fsp_job_start(struct fsp_spawner *s, struct fsp_job *job, uint64_t now);
void fsp_job_ready(struct fsp_spawner *s, struct fsp_job *job, enum fsp_source source);
void fsp_job_due(struct fsp_spawner *s, struct fsp_job *job, uint64_t now);
void fsp_job_read_mail(struct fsp_spawner *s, struct fsp_job *job);
void fsp_job_abort(struct fsp_spawner *s, struct fsp_job *job);
void fsp_job_set_due(struct fsp_spawner *s, struct fsp_job *job, enum fsp_due kind, uint64_t at);
void fsp_job_terminate(struct fsp_spawner *s, struct fsp_job *job);
/* Its child is no longer its own: it gets another by fsp_job_forked, or that back. */
struct fsp_child fsp_job_part(struct fsp_spawner *s, struct fsp_job *job);
void fsp_job_rejoin(struct fsp_spawner *s, struct fsp_job *job, struct fsp_child child);
/* The template process has answered: with a pid, or without (0 or less). */
void fsp_job_forked(struct fsp_spawner *s, struct fsp_job *job, int pid);
/* The job is over without having run (or with what it has). */
void fsp_job_end(struct fsp_job *job);

/* ---- template.c ---- */

void fsp_template_ref(struct fsp_template *t); /* NULL is allowed, here and below */
void fsp_template_unref(struct fsp_template *t);
void fsp_templates_orphan(struct fsp_engine *e);

/* ---- zygote.c: template processes, see zygote.h ---- */

/* Ask a template process for the job's child; false: there is none to be had. */
bool fsp_zygote_ask(struct fsp_spawner *s, struct fsp_job *job, uint64_t now);
/* A job that waits for this one is to be killed. */
void fsp_zygote_hurry(struct fsp_spawner *s, struct fsp_zygote *z);
/* The job needs its slot no more; unless it was reaped, nor does anyone after it. */
void fsp_zygote_leave(struct fsp_spawner *s, struct fsp_job *job, bool reaped);
#define FSP_IS_ZYGOTE(token) ((token) >> 32 == 0)
void fsp_zygote_ready(struct fsp_spawner *s, uint64_t token);

/* ---- tend.c ---- */

void fsp_zygotes_tend(struct fsp_spawner *s);
void fsp_zygotes_stop(struct fsp_spawner *s);

/* ---- collect.c: stdout and stderr ---- */

/* From now on output is told as it comes; false when memory ran out. */
bool fsp_out_stream(struct fsp_job *job);
/* Read what there is; false when memory ran out. */
bool fsp_out_pump(struct fsp_spawner *s, struct fsp_job *job, int stream);
void fsp_out_watch(struct fsp_spawner *s, struct fsp_job *job, int stream);
void fsp_out_close(struct fsp_spawner *s, struct fsp_job *job, int stream);

/* ---- feed.c: stdin ---- */

void fsp_in_init(struct fsp_job *job);
void fsp_in_pump(struct fsp_spawner *s, struct fsp_job *job);
void fsp_in_close(struct fsp_spawner *s, struct fsp_job *job);
void fsp_in_append(struct fsp_job *job, struct fsp_feed *feed);

/* ---- stdio.c: the three descriptors of the next child ---- */

int fsp_stdio_open(struct fsp_spawner *s, struct fsp_job *job, struct fsp_stdio *io);
void fsp_stdio_close(struct fsp_spawner *s, const struct fsp_stdio *io); /* the child's ends */

#endif
