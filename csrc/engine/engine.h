/*
 * engine.h - the engine's own structures.
 *
 * Each file names only those above it:
 *
 *   heap, slots, stdio    what is due, names for the poller, the child's three descriptors
 *   forked, queue, own    whose engine it is, what is pending, what is a spawner's own
 *   mail                  the two mailboxes of a job
 *   due                   what is due of a job
 *   collect, feed         its pipes
 *   origin, exec          where its child comes from (origin.h), and the origin that executes
 *   terminal              its terminal, and the session of that
 *   end, kill             how it ends, and is ended
 *   job, begin            what happens to one that runs, and how it begins
 *   spawner, engine       the threads, and the caller's side
 *
 *      caller                       engine lock                        spawner thread
 *   fsp_engine_submit  --------->  pending jobs  ------------------->  fsp_job_begin
 *   fsp_job_write, ... --------->  a job's `mail`, its owner's list -> fsp_job_read_mail
 *   fsp_engine_take    <---------  a job's `news`, the engine's list <- fsp_job_tell_*
 *
 * A job belongs to its submitter's hands and to one spawner at once, and they meet only in its
 * two mailboxes, which the engine's one lock guards.  Everything else in a job is written by the
 * submitter before it is handed over, or by its spawner until it has ended.
 */
#ifndef FSP_ENGINE_H
#define FSP_ENGINE_H

#include "os/poller.h"

#include "origin.h"

#define FSP_WINDOW    (256 * 1024) /* delivered output that the caller has not consumed */
#define FSP_FEED_HIGH (256 * 1024) /* stdin queued: above this the writer is told to wait ... */
#define FSP_FEED_LOW  (64 * 1024)  /* ... and below this to go on */
#define FSP_SCRATCH   (64 * 1024)  /* one read: a pipe's default capacity */
#define FSP_LEFT      (1 << 20)    /* what a pipe may hold at most (pipe(7), pipe-max-size) */
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
    uint64_t since_exit; /* bytes that came after the leader had exited */
};

struct fsp_in {
    int fd;
    bool watched, eof;
    struct fsp_feed *first, **last;
    struct fsp_feed input; /* options.input, borrowed */

    /* What was written to a child that is lent, as long as it is not sure that it read any. */
    struct fsp_feed *written, **written_last;
    uint64_t sent, counted; /* bytes in its pipe, and that the writer was told of */
    bool keeps;
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
    bool resized; /* its terminal, to `size` */
    struct fsp_size size;
    bool stalled; /* the spawner waits for `consumed` */
    bool listed;  /* in the owner's list */
};

struct fsp_job {
    struct fsp_engine *engine;
    struct fsp_plan *plan;
    struct fsp_job_options options;

    /* Under the engine's lock. */
    struct fsp_job *next, *prev; /* pending; `next` is its origin's while that has it */
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
    struct fsp_origin *origin; /* NULL: exec */
    struct fsp_origin *turn;   /* the one of those that follow from it that is asked; NULL: exec */
    struct fsp_from from;      /* where its child comes from; with no pid yet, it waits for that */
    struct fsp_child child;
    bool lent;                /* the child is its origin's */
    bool signalled;           /* it was sent a signal: what serves it may not serve another */
    uint64_t held_signals[2]; /* for a child that is not there yet, or may have to be another */
    uint32_t slot;
    struct fsp_out out[2];
    struct fsp_in in;
    uint64_t started_at, give_up_at, total_output;
    uint64_t due[FSP_NDUE]; /* 0: not */
    uint64_t next_due;      /* the heap's key */
    size_t heap_index;
    uint64_t look_again; /* how long until then (ns), at those who outlive a session's leader */
    bool session_over;   /* they are given up */
    bool exited, streaming, terminating, killed, aborted, abandoned;
    bool over;                  /* nothing is waited for any more but its status */
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

/* ---- spawners and the engine ---- */

struct fsp_spawner {
    struct fsp_engine *engine;
    pthread_t thread;
    struct fsp_waker waker;

    /* Under the engine's lock. */
    struct fsp_spawner *next_idle;
    struct fsp_job *mail;
    struct fsp_post *new_posts;
    bool sleeping;
    bool called; /* there are new posts, or closed ones */

    /* The thread's own. */
    struct fsp_poller poller;
    struct fsp_pipes pipes;
    struct fsp_heap heap;
    struct fsp_slots slots;
    int devnull;
    int low[3]; /* reserved numbers for the ends of the next child, see stdio.c */
    bool private, batch;
    uint64_t hold_until; /* no spawn before: resources ran out */
    struct fsp_post *posts;
    struct fsp_helper *helpers;
    uint32_t last_helper;
    uint64_t tend_at; /* something is due about a post or a helper */
    char *scratch;
};

struct fsp_engine {
    pthread_mutex_t lock;
    struct fsp_job *pending, *pending_last;
    struct fsp_spawner *idle;
    struct fsp_job *news, **news_last;
    uint64_t told; /* atomic: news that are no job's */
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

/* ---- forked.c ---- */

unsigned fsp_fork_generation(void); /* of this process, for fsp_engine.born */

/* ---- queue.c: pending jobs, under the lock ---- */

void fsp_queue_last(struct fsp_engine *e, struct fsp_job *job);
void fsp_queue_first(struct fsp_engine *e, struct fsp_job *job);
void fsp_unqueue(struct fsp_engine *e, struct fsp_job *job);

/* ---- own.c: what is a spawner's own ---- */

int fsp_spawner_open(struct fsp_spawner *s); /* 0, or -errno: to be closed either way */
void fsp_spawner_close(struct fsp_spawner *s);
unsigned fsp_spawner_flags(const struct fsp_spawner *s); /* for fsp_spawn */
void fsp_spawner_calm(struct fsp_spawner *s);            /* it asks for forks */

/* ---- mail.c: both mailboxes; each takes the lock itself ---- */

/* There is news of an origin. */
void fsp_engine_tell(struct fsp_engine *e);

void fsp_job_tell_started(struct fsp_job *job);
void fsp_job_tell_output(struct fsp_job *job, struct fsp_chunk *chunk);
void fsp_job_tell_fed(struct fsp_job *job, size_t written);
/* What was told is queued again. */
void fsp_job_untell_fed(struct fsp_job *job, size_t written);
void fsp_job_tell_ended(struct fsp_job *job);
/* Is there room in the window?  If not, the next `consumed` comes as mail. */
bool fsp_job_has_room(struct fsp_job *job, int stream);
/* Take a job's mail, leaving the counters. */
struct fsp_mail fsp_job_take_mail(struct fsp_job *job);
void fsp_job_unlist(struct fsp_job *job); /* no mail after all; under the lock */
/* The next job of this spawner that has mail, or NULL. */
struct fsp_job *fsp_spawner_next_mail(struct fsp_spawner *s);

/* ---- due.c ---- */

static inline uint64_t fsp_after(uint64_t now, uint64_t delay) {
    return delay > UINT64_MAX - now ? UINT64_MAX : now + delay;
}

void fsp_job_set_due(struct fsp_spawner *s, struct fsp_job *job, enum fsp_due kind, uint64_t at);
/* What of it is due first, and no more. */
enum fsp_due fsp_job_take_due(struct fsp_spawner *s, struct fsp_job *job);
void fsp_job_set_deadline(struct fsp_spawner *s, struct fsp_job *job);

/* ---- collect.c: stdout and stderr ---- */

/* From now on output is told as it comes: 0 or -ENOMEM. */
int fsp_out_stream(struct fsp_job *job);
/* Read what there is: 0, 1 (there was more than the limit allows) or -ENOMEM. */
int fsp_out_pump(struct fsp_spawner *s, struct fsp_job *job, int stream);
/* 0, or -errno of the poller, which does not tell then. */
int fsp_out_watch(struct fsp_spawner *s, struct fsp_job *job, int stream);
void fsp_out_close(struct fsp_spawner *s, struct fsp_job *job, int stream);

static inline bool fsp_out_closed(const struct fsp_job *job) {
    return job->out[0].fd < 0 && job->out[1].fd < 0;
}

/* ---- feed.c: stdin ---- */

void fsp_in_init(struct fsp_job *job);
/* Write what it takes: 0, or -errno of the poller, which does not tell when it takes more. */
int fsp_in_pump(struct fsp_spawner *s, struct fsp_job *job);
void fsp_in_close(struct fsp_spawner *s, struct fsp_job *job);
void fsp_in_append(struct fsp_job *job, struct fsp_feed *feed);
/* Its child may not have begun: what it is given may have to be given to another. */
void fsp_in_keep(struct fsp_job *job);
/* It has. */
void fsp_in_release(struct fsp_job *job);
/* Nobody read any of it: it is to be written again. */
void fsp_in_again(struct fsp_spawner *s, struct fsp_job *job);

/* ---- exec.c ---- */

extern const struct fsp_origin_ops fsp_exec;

/* ---- origin.c ---- */

void fsp_helper_ready(struct fsp_spawner *s, uint64_t token);
void fsp_origins_tend(struct fsp_spawner *s);
void fsp_origins_stop(struct fsp_spawner *s);
void fsp_origins_orphan(struct fsp_engine *e); /* its threads have ended */

/* ---- terminal.c ---- */

static inline bool fsp_job_has_terminal(const struct fsp_job *job) {
    return job->options.in == FSP_IO_TERMINAL;
}

void fsp_job_hang_up(struct fsp_spawner *s, struct fsp_job *job);
void fsp_job_set_size(struct fsp_job *job, struct fsp_size size);
/* A signal to the child, or to its group: of one on a terminal, its session. */
void fsp_job_kill(struct fsp_job *job, int group, int sig);
/* Its leader has gone: is anyone left?  They are told, and it is to be asked again when due. */
bool fsp_session_is_left(struct fsp_spawner *s, struct fsp_job *job);

/* ---- end.c ---- */

/* The job is over without having run (or with what it has). */
void fsp_job_end(struct fsp_job *job);
/* Its child is, as far as can be seen: the job ends as soon as the status can be had. */
void fsp_job_finish(struct fsp_spawner *s, struct fsp_job *job);

/* ---- kill.c: each may end the job ---- */

/* Its origin has not answered: there is no child to look at yet. */
static inline bool fsp_job_waits(const struct fsp_job *job) {
    return job->from.ops && job->child.pid == 0;
}

void fsp_job_send(struct fsp_job *job, const uint64_t signals[2]);
void fsp_job_terminate(struct fsp_spawner *s, struct fsp_job *job);
void fsp_job_abort(struct fsp_spawner *s, struct fsp_job *job);
void fsp_job_grace_over(struct fsp_spawner *s, struct fsp_job *job);
/* The child that it waited for is there: it is sent what it missed. */
void fsp_job_catch_up(struct fsp_job *job);

/* ---- job.c: a job that runs ---- */

void fsp_job_feed(struct fsp_spawner *s, struct fsp_job *job);
void fsp_job_ready(struct fsp_spawner *s, struct fsp_job *job, enum fsp_source source);
void fsp_job_due(struct fsp_spawner *s, struct fsp_job *job, uint64_t now);
void fsp_job_read_mail(struct fsp_spawner *s, struct fsp_job *job);

/* ---- begin.c ---- */

/* It has a child, or is to get one, or has ended, or is pending again (resources). */
void fsp_job_begin(struct fsp_spawner *s, struct fsp_job *job, uint64_t now, bool stopping);

/* ---- spawner.c ---- */

void *fsp_spawner_main(void *spawner);

/* ---- stdio.c: the three descriptors of the next child ---- */

int fsp_stdio_open(struct fsp_spawner *s, struct fsp_job *job, struct fsp_stdio *io);
void fsp_stdio_close(struct fsp_spawner *s, const struct fsp_stdio *io); /* the child's ends */
/* Its stdin or stdout is our own, and that is a terminal, or may be. */
bool fsp_stdio_may_be_terminal(const struct fsp_job_options *options);

#endif
