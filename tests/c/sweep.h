/*
 * sweep.h - each place that calls out (sites.h) is refused, once and for good.
 *
 * A program has scenes, each a life in a process of its own.  They are lived undisturbed first, so
 * that it is known which one comes to a place; then, for each place, that one is lived again with
 * each answer that the place may get instead.  A place to which no scene comes fails the test, and
 * so does one whose call is not in the table of answers.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "support.h"

#ifdef __linux__

/* What a call answers instead: err, from call `first` on, `count` times.  No site: nothing is. */
struct refusal {
    const struct site *site;
    int err;
    long first, count;
};

struct scene {
    const char *name;
    void (*live)(const struct refusal *refusal); /* arms it, and turns it off */
};

/* Arm what a scene was given. */
void sweep_arm(const struct refusal *refusal);

/* Live all of them, undisturbed: a test for each. */
void sweep_look(const struct scene *scenes, size_t n);

/* A test for each place whose path begins so.  Not `all`: those that a scene comes to, and for
 * which there is something to answer. */
void sweep_places(const char *path, bool all);
/* Those of this file are come to where there is a tracer: here they may be left out. */
void sweep_may_leave_out(const char *path);

/* In this file this call cannot be refused. */
void sweep_never_refuses(const char *path, const char *call);

/* Of the places whose path begins so, how many does a scene come to?  The others are told. */
size_t sweep_come_to(const char *path, size_t *all);

/* Are all places in rooms that some program sweeps? */
void each_place_is_in_a_room_that_is_swept(void);

/* Say how many places and answers there were. */
void sweep_tell(void);

#endif
#endif
