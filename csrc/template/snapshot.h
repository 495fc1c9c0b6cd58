/*
 * snapshot.h - what a spawner and a template process say to one another.
 *
 *      spawner (ask.c, hear.c)                       template process (preload.c)
 *                            <--  HELLO, or REFUSED
 *      a request: where the plan's three
 *      descriptors are, and the plan itself  -->     fork; the fork settles and enters main
 *      if it is another than last time
 *                            <--  FORKED
 *
 * A fork that was let (FSP_SNAP_MAY_CHECKPOINT) may ask to become a template process itself, where
 * it stands.  It brings a socket of its own and the files that it came from:
 *
 *                            <--  CHECKPOINT, on the socket of its template
 *      GO, with a page and stderr, or
 *      nothing but GO        -->     fork: that goes on with the request; this one serves
 *                            <--  FORKED, and all as above
 *
 * A fork may also be asked to be a resident, which serves many jobs on a socket of its own:
 * resident.h.
 *
 * Over one SEQPACKET socket, in order, one datagram each; descriptors travel with the request
 * (SCM_RIGHTS).  Both sides are of one build, so structures go as they are.
 *
 * The pid of a fork, and what went wrong in it, are not told but written to a page that both
 * sides map: the kernel itself writes the pid (CLONE_PARENT_SETTID) before the fork can run, so
 * it is there however the template process ends.
 */
#ifndef FSP_SNAPSHOT_H
#define FSP_SNAPSHOT_H

#include "spawn/internal.h" /* first: it sets the feature macros */

#include "resident.h"

#ifdef __linux__

/* A running engine may find an object that was installed since: setup.py gives each state of the
 * sources a number of its own. */
#ifndef FSP_BUILD
#define FSP_BUILD 0u
#endif
#define FSP_SNAP_VERSION   FSP_BUILD
#define FSP_SNAP_SLOTS     1024 /* forks of one template process at a time */
/* Not the count of references: it goes on changing. */
#define FSP_SNAP_PLAN_FROM offsetof(struct fsp_plan, size)
#define FSP_SNAP_PLAN_MAX  (1024 * 1024) /* a larger one does not fit a datagram either */
#define FSP_SNAP_VARIABLE                                                                          \
    "FASTSPAWN_SNAPSHOT" /* =SOCKET,PAGE,LIBRARY,ARGC,EFFECT[,DIRECTORY]: descriptors, count, 0-2, \
                            where the plan says that it runs */

struct fsp_snap_slot {
    int pid; /* 0: not forked yet */
    volatile struct fsp_error error;
};

struct fsp_snap_page {
    struct fsp_snap_slot slot[FSP_SNAP_SLOTS];
    volatile int in_main; /* it runs on, to its first effect */
    uint64_t stop_arg[6]; /* of the call that it stopped before: for people */
    struct fsp_resident_record resident[FSP_SNAP_RECORDS]; /* untouched where there are none */
};

/* EFFECT: 0 stop before main; 1 before the first effect; 2 the same, but Python before main, which
 * may checkpoint. */

/* A file by what changes with it: replaced, rewritten, gone, new (then all 0). */
struct fsp_snap_identity {
    uint64_t dev, ino, size;
    int64_t changed,
        read; /* ns; the status change time moves with every write, and cannot be set */
};

#define FSP_SNAP_FOLLOW 1u /* symbolic links, at the end of the path too */
#define FSP_SNAP_STAT   2u /* what stat(2) says was used: the access time matters as well */
#define FSP_SNAP_FORMER 4u /* what was used has this name no more */
#define FSP_SNAP_PLACE  8u /* the directory itself, whatever is in it */
#define FSP_SNAP_PROCESSORS                                                                        \
    16u /* no file: the processors that the process may use, which others may set */
#define FSP_SNAP_NAMES 32u /* no file: what uname(2) says, of which others may set some */

static inline int64_t fsp_snap_ns(const struct timespec *t) {
    return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static inline struct fsp_snap_identity fsp_snap_identity(const struct stat *st, unsigned how) {
    if (how & FSP_SNAP_PLACE)
        return (struct fsp_snap_identity){.dev = st->st_dev, .ino = st->st_ino};
    int64_t read = how & FSP_SNAP_STAT ? fsp_snap_ns(&st->st_atim) : 0;
    return (struct fsp_snap_identity){st->st_dev, st->st_ino, (uint64_t)st->st_size,
                                      fsp_snap_ns(&st->st_ctim), read};
}

/* What the kernel told, not as a file: a mask, names; zeros at its end are none of it. */
static inline struct fsp_snap_identity fsp_snap_told(const void *told, size_t size) {
    const unsigned char *byte = told;
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    while (size && byte[size - 1] == 0) size--;
    for (size_t i = 0; i < size; i++) hash = (hash ^ byte[i]) * 1099511628211u;
    return (struct fsp_snap_identity){.ino = hash, .size = size};
}

static inline bool fsp_snap_same(const struct fsp_snap_identity *a,
                                 const struct fsp_snap_identity *b) {
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->changed == b->changed &&
           a->read == b->read;
}

/* One file that a template process came from; its path follows, with NUL, padded to 8 bytes. */
struct fsp_snap_input {
    struct fsp_snap_identity id; /* as it was when it was used */
    uint32_t path_size, how;
};

/* Where a descriptor of the fork comes from; a value from 0 on: the n-th that came along. */
#define FSP_SNAP_OWN  (-1) /* the template process's own */
#define FSP_SNAP_NULL (-2) /* /dev/null */

#define FSP_SNAP_MAY_CHECKPOINT 1u /* the fork may become a template itself */

struct fsp_snap_request {
    uint32_t slot, flags;
    int32_t fd[3];
    int32_t group;      /* to join if the plan says nothing of sessions and groups */
    int32_t parent;     /* the spawner's process, if the plan has a death signal */
    uint32_t plan_size; /* 0: the plan of the last request that had one */
    uint64_t plan_at;   /* where its pointers point */
    uint64_t mask;
};

enum fsp_snap_kind {
    FSP_SNAP_HELLO = 1,
    FSP_SNAP_REFUSED,
    FSP_SNAP_FORKED,
    FSP_SNAP_CHECKPOINT,
    FSP_SNAP_GO,
};

struct fsp_snap_reply {
    uint32_t kind;
    uint32_t version; /* HELLO */
    uint32_t slot;    /* FORKED, CHECKPOINT; HELLO: 0 before main, else the pure calls + 1 */
    int32_t value; /* HELLO: it may checkpoint, or what it stopped before; REFUSED, CHECKPOINT: enum
                      fsp_refusal; FORKED: 0, or -errno of the fork; GO: yes or no */
};

/* What it stopped before that is no call: -signal, less FSP_SNAP_KINDS for each kind of it. */
#define FSP_SNAP_KINDS  64
#define FSP_SNAP_CLOCK  1 /* of the vDSO, or rdtsc */
#define FSP_SNAP_RANDOM 2 /* of AT_RANDOM, or RDRAND */

/* Bytes behind REFUSED, and CHECKPOINT with FSP_REFUSED_THREADS: a line for each kind of thread,
 * how many, a tab, the name (empty: the process's), a tab, the end of the path of the object that
 * they are of (empty: not known).  Control characters of names are '?'. */
#define FSP_SNAP_MAKERS_MAX 1024

/* Bytes of inputs behind HELLO and CHECKPOINT.  What is more comes as a memfd, the last descriptor
 * that comes along, which nobody can write any more. */
#define FSP_SNAP_INLINE_MAX (60 * 1024)
#define FSP_SNAP_FILES_MAX  (64 * 1024 * 1024)
#define FSP_SNAP_SEALS      (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* A refusal among the numbers of errors, which end at 4095. */
#define FSP_SNAP_WHY(refusal) (0x10000 + (int)(refusal))

#endif
#endif
