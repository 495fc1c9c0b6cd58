/*
 * resident.h - what a spawner and a resident say to one another.
 *
 * A resident is a fork of a template process that serves one job after the other: where another
 * fork would exit, it puts itself back to what it was when it was forked, and waits.
 *
 *      spawner                      template process                resident
 *      a request (snapshot.h) with
 *      FSP_SNAP_RESIDENT, and the
 *      resident's socket   -->      fork
 *                          <--      FORKED
 *                          <--                                      READY, or REFUSED and it ends
 *      JOB, with what it gets of
 *      0 to 2, and the plan if it
 *      is another than last time  -->                               record.begun = number; it runs
 *                          <--                                      record.done = number; DONE
 *      JOB ...
 *
 * What a run does that cannot be undone it does not do as a resident.  It says LEFT, is an ordinary
 * child of that job from there on, with none of this in it, and ends as any other: by its own exit
 * status or signal.  It serves nobody after that; neither does one that has ended.
 *
 *                          <--                                      record.left = number; LEFT
 *
 * To end one: close the socket.  An idle one goes at once (status 0), one that runs when its job
 * has ended.  It keeps to the settings that the plan of its request gave it (directory, umask,
 * group or session, limits, identity, priority ...) for all its jobs; of a job's own plan the
 * arguments and the environment count, and those only before main and at a checkpoint.
 *
 * A record, in the page that all of a template's children share with the spawner, tells where a
 * resident was when it died: the job that it was given is
 *      not begun          record.begun != number: nothing of it has happened, another may do it
 *      begun, and no more record.done != number: it died (or left) in the middle of it; how, the
 *                         kernel tells, as of any child
 *      done               status and usage in the record are complete, whether DONE came or not
 *
 * Signals that come between two jobs are nobody's: all are blocked.  A resident that finds one when
 * it gets a job does not begin it and ends (status 0).  Who signals a resident (SIGKILL too) must
 * not give it a job afterwards: DONE may have been on its way.
 *
 * On a SEQPACKET socket, one datagram each, as in snapshot.h.
 */
#ifndef FSP_RESIDENT_H
#define FSP_RESIDENT_H

#include <stdint.h>

/* ---- the request: flags beside FSP_SNAP_MAY_CHECKPOINT ---- */

/* The fork shall be a resident.  fd[0]: its socket, of those that came along; fd[1]: which record;
 * fd[2]: not used.  Its pid is in the slot of the request, as any fork's. */
#define FSP_SNAP_RESIDENT 2u
/* Compare all that is put back with what it was, after each job, and tell it in DONE. */
#define FSP_SNAP_CHECKED  4u
/* As if the kernel could not tell which pages were written (before Linux 6.7): copy all of them. */
#define FSP_SNAP_PLAIN    8u

#define FSP_SNAP_RECORDS 256 /* residents of one template process at a time */

struct fsp_resident_usage {
    int64_t user, system; /* us, of this job */
    int64_t minor_faults, major_faults, blocks_in, blocks_out, waits, preemptions;
    int64_t max_rss; /* KB, of the resident in all of its life */
};

struct fsp_resident_record {
    volatile uint64_t begun, done, left; /* the number of a job; written in this order */
    volatile int32_t status;             /* of `done`, as wait(2) has it */
    int32_t unused;
    struct fsp_resident_usage usage;  /* of `done` */
    struct fsp_resident_usage before; /* what it had used when `begun` did: not that job's */
};

/* ---- to it ---- */

struct fsp_resident_job {
    uint64_t number; /* another than any before on this resident, and not 0 */
    /* Where 0 to 2 come from: the n-th that came along, FSP_SNAP_OWN or FSP_SNAP_NULL. */
    int32_t fd[3];
    uint32_t plan_size; /* behind this, from FSP_SNAP_PLAN_FROM on; 0: the one that it has */
    uint64_t plan_at;   /* where its pointers point */
};

/* ---- from it ---- */

enum fsp_resident_kind {
    FSP_RESIDENT_READY = 1,
    FSP_RESIDENT_REFUSED,
    FSP_RESIDENT_DONE,
    FSP_RESIDENT_LEFT,
};

/* What of a resident is not what it was: `differs`. */
enum fsp_resident_part {
    FSP_RESIDENT_SAME,
    FSP_RESIDENT_MEMORY, /* `where`: the page */
    FSP_RESIDENT_MAPS,
    FSP_RESIDENT_FDS,     /* `where`: the descriptor */
    FSP_RESIDENT_STATE,   /* directory, umask, name, handlers, alternate stack */
    FSP_RESIDENT_SETTINGS /* limits, timers, ids ...; mask and registers of the next run */
};

struct fsp_resident_reply {
    uint32_t kind;
    uint32_t version; /* READY: FSP_SNAP_VERSION */
    uint64_t number;  /* DONE, LEFT: of the job */
    /* DONE: its exit status, as in the record; LEFT: the system call that could not be undone, or
     * -signal; REFUSED: -errno of what could not be had; READY: how many pages it can write to. */
    int32_t value;
    uint32_t calls; /* DONE, LEFT: how many it made */
    /* READY: those that it has for itself and not from the image that all share; DONE: those that
     * were put back after the job *before* this one, and how long that took. */
    uint32_t pages, restore_ns;
    /* DONE: how often it had to ask the kernel which pages were written; READY: how many pages it
     * had to compare with the image. */
    uint32_t scans;
    uint32_t differs; /* DONE, with FSP_SNAP_CHECKED: enum fsp_resident_part */
    uint64_t where;
};

#endif
