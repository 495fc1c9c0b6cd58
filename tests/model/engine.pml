/*
 * engine.pml - the hand-offs of csrc/engine as a model: submit, cancel, adopt, complete, requeue,
 * shut down, origins that open and close, and who wakes whom.
 *
 * It keeps to the C function by function, under the same names.  What is under the engine's lock
 * is one step, with what a spawner does before it that only concerns a job of its own; setting or
 * clearing a waker is one, and so is a look at the poller.  Between two steps any other thread may
 * run.  Children and pipes are seen by nobody but the spawner that has the job: the kernel may end
 * a child, or the last who holds a pipe, whenever it looks (kernel()).
 *
 *   Caller(j)    submits job j, may cancel or adopt it at any moment, frees it when it has ended
 *   Taker        the event loop: fsp_engine_take whenever the engine's descriptor is readable
 *   Spawner(s)   spawner.c, with what job.c, begin.c, end.c, kill.c do on it
 *   init         opens an origin, closes it, stops the engine, joins
 *
 * Checked in each reachable state (the assertions below), and by there being no state but the last
 * one in which nobody can go on: a wake-up that is lost leaves one behind.
 *
 * What is left out, and so not shown: bytes (output, stdin, windows), times (what may be due may
 * be due at any moment, or later), the links of lists (a list is a set, whatever its order), memory
 * that runs out, KILL that ends nothing (FSP_ABANDON_NS), residents (what csrc/reset does between
 * being asked and answering), and a spawner that turns without end.  README.md has the sizes.
 *
 * -DSCARCE: a spawn may lack resources once, and is put off or fails.
 * -DSTOP_EARLY: the engine is stopped at any moment.  Without it when all jobs have ended, so that
 * it wakes nobody who should have been woken before.  -DORIGIN: with an origin.
 * -DFAULT=FAULT_...: one is planted, which has to be found.
 */
#ifndef SPAWNERS
#define SPAWNERS 2
#endif
#ifndef JOBS
#define JOBS 2
#endif

#define FAULT_LOST_SLEEP   1 /* may_sleep looks, and only then takes the lock to go to sleep */
#define FAULT_LOST_NEWS    2 /* fsp_engine_take takes the list, and only then clears the waker */
#define FAULT_DOUBLE_REAP  3 /* events of one batch are told to a job that has ended */
#define FAULT_LATE_CANCEL  4 /* fsp_job_cancel takes an ended job for a pending one */
#define FAULT_STALE_MAIL   5 /* a job that ends stays on its owner's list of mail */
#define FAULT_GIVEN_BACK   6 /* so does one that is pending again */
#define FAULT_LOST_POST    7 /* origin.c: hear() looks at the posts before it takes `called` back */
#define FAULT_LOST_STOP    8 /* fsp_engine_stop wakes them, and only then says why */
#define FAULT_NO_WAKE      9 /* fsp_engine_submit takes one off the idle list and wakes nobody */
#ifndef FAULT
#define FAULT 0
#endif

#define NOBODY 255
#define IS_MINE(j) (in_heap[j] && owner[j] == s) /* on the spawner s */

/* ---- under the engine's lock ---- */

bool queued[JOBS], ended[JOBS];      /* on e->pending; job->ended */
byte owner[JOBS] = NOBODY;           /* job->owner */
byte listed_at[JOBS] = NOBODY;       /* job->mail.listed, and on whose s->mail */
bool mail_cancel[JOBS], mail_adopt[JOBS];
bool news_listed[JOBS], news_started[JOBS], news_ended[JOBS];
bool stopping, closed;               /* e->stopping; origin->closed */
bool idle[SPAWNERS], sleeping[SPAWNERS], called[SPAWNERS], new_post[SPAWNERS];

/* ---- the kernel's ---- */

bool waker[SPAWNERS], e_waker;
mtype = { NONE, RUNS, ZOMBIE, REAPED };
mtype child[JOBS] = NONE;
bool pidfd_watched[JOBS];            /* EPOLLONESHOT */
bool eof[JOBS], termed[JOBS], shot[JOBS];

/* ---- a job's, on its spawner ---- */

bool in_heap[JOBS], waits[JOBS];
bool exited[JOBS], terminating[JOBS], killed[JOBS], aborted[JOBS], out_open[JOBS];
bool due_deadline[JOBS], due_kill[JOBS], due_drain[JOBS], due_poll[JOBS];
bool asks_origin[JOBS];              /* job->turn != NULL */
bool spare[JOBS];
byte failures[JOBS];

/* ---- what the program and the caller are like ---- */

bool hangs[JOBS];                    /* it does not end by itself */
bool ignores_term[JOBS];
bool leaves_holder[JOBS];            /* a process of its group holds its pipes, and hangs */
bool has_deadline[JOBS], tells_started[JOBS];

/* ---- ghosts: for the assertions only ---- */

bool freed[JOBS], taken_end[JOBS], settled[JOBS];
bool left[SPAWNERS], post[SPAWNERS], post_closed[SPAWNERS];
byte refs;
bool origin_freed, engine_freed;

/* ---- mail.c ---- */

/* `who` is to be woken after unlocking, or NOBODY. */
inline list_mail(j, who) {
    who = NOBODY;
    if
    :: owner[j] == NOBODY || listed_at[j] != NOBODY
    :: else ->
        listed_at[j] = owner[j];
        if
        :: sleeping[owner[j]] -> who = owner[j]; sleeping[owner[j]] = false
        :: else
        fi
    fi
}

/* `was_empty`: whoever takes is to be woken. */
inline list_news(j, was_empty) {
    was_empty = false;
    if
    :: news_listed[j]
    :: else ->
        was_empty = true;
        for (k : 0 .. JOBS - 1) {
            if
            :: news_listed[k] -> was_empty = false
            :: else
            fi
        }
        news_listed[j] = true
    fi
}

inline fsp_waker_set(who) {
    if
    :: d_step { who != NOBODY -> assert(!engine_freed); waker[who] = true; who = NOBODY }
    :: else
    fi
}

inline wake_taker(yes) {
    if
    :: d_step { yes -> assert(!engine_freed); e_waker = true; yes = false }
    :: else
    fi
}

/* Whoever calls these wakes the taker afterwards: wake_taker(yes). */
inline fsp_job_tell_started(j) {
    assert(!freed[j]);
    news_started[j] = true;
    list_news(j, yes);
    k = 0
}

/* Under the lock. */
inline end(j) {
    assert(!ended[j] && !freed[j]);
#if FAULT != FAULT_STALE_MAIL
    listed_at[j] = NOBODY;
#endif
    owner[j] = NOBODY;
    ended[j] = true;
    news_ended[j] = true;
    list_news(j, yes);
    forget(j)
}

/* What it was like matters no more: the fewer states there are. */
inline forget(j) {
    mail_cancel[j] = false; mail_adopt[j] = false;
#if FAULT != FAULT_DOUBLE_REAP
    exited[j] = false;
#endif
    terminating[j] = false; killed[j] = false; aborted[j] = false;
    asks_origin[j] = false; spare[j] = false; failures[j] = 0;
    hangs[j] = false; ignores_term[j] = false; leaves_holder[j] = false;
    has_deadline[j] = false; tells_started[j] = false;
    eof[j] = false; termed[j] = false; shot[j] = false; pidfd_watched[j] = false
}

inline fsp_job_tell_ended(j) { end(j); k = 0 }

/* ---- queue.c, engine.c, mail.c: the caller's side ---- */

/* The idle list is a set here: whoever is the first of it. */
inline fsp_engine_submit(j) {
    atomic {
        if
        :: stopping -> refused = true
        :: else ->
            queued[j] = true;
            if
            :: idle[0] -> s = 0
#if SPAWNERS > 1
            :: idle[1] -> s = 1
#endif
#if SPAWNERS > 2
            :: idle[2] -> s = 2
#endif
            :: else -> s = NOBODY
            fi;
            if
            :: s != NOBODY ->
                idle[s] = false;
#if FAULT != FAULT_NO_WAKE
                if
                :: sleeping[s] -> who = s
                :: else
                fi;
#endif
                sleeping[s] = false
            :: else
            fi;
            s = 0
        fi
    }
    fsp_waker_set(who)
}

inline fsp_job_cancel(j) {
    d_step {
        assert(!freed[j]);
        if
        :: owner[j] == NOBODY && (!ended[j] || FAULT == FAULT_LATE_CANCEL) ->
            assert(queued[j]); /* fsp_unqueue: it is on the list */
            queued[j] = false;
            end(j);
            k = 0
        :: else ->
            mail_cancel[j] = !ended[j];
            list_mail(j, who)
        fi
    }
    fsp_waker_set(who);
    wake_taker(yes)
}

inline fsp_job_adopt(j) {
    d_step { assert(!freed[j]); mail_adopt[j] = !ended[j]; list_mail(j, who) }
    fsp_waker_set(who)
}

proctype Caller(byte j) {
    byte who = NOBODY, s, k;
    bool refused, yes, adopts, cancels;
    /* One that hangs, and that nothing else ends, has to be cancelled: else it never ends. */
    atomic {
        adopts = spare[j];
        if
        :: true -> cancels = true
        :: !hangs[j] || has_deadline[j] -> cancels = false
        fi
    }
    fsp_engine_submit(j);
    if
    :: refused -> settled[j] = true; goto over
    :: else
    fi;
    if
    :: adopts -> fsp_job_adopt(j); adopts = false
    :: else
    fi;
    if
    :: cancels -> fsp_job_cancel(j); cancels = false
    :: else
    fi;
    d_step { taken_end[j] -> freed[j] = true; settled[j] = true };
over:
    skip
}

proctype Taker() {
    byte k;
end_idle: /* where it may be when all is over */
    do
    :: e_waker -> /* fsp_engine_take */
#if FAULT != FAULT_LOST_NEWS
        e_waker = false; /* fsp_waker_clear */
#endif
        d_step {
            for (k : 0 .. JOBS - 1) {
                if
                :: news_listed[k] ->
                    assert(!freed[k] && !taken_end[k]);
                    taken_end[k] = news_ended[k];
                    news_listed[k] = false;
                    news_started[k] = false;
                    news_ended[k] = false
                :: else
                fi
            }
            k = 0
        }
#if FAULT == FAULT_LOST_NEWS
        e_waker = false
#endif
    od
}

/* ---- the kernel ---- */

#define MAY_EXIT(j) (child[j] == RUNS && (!hangs[j] || shot[j] || (termed[j] && !ignores_term[j])))
#define MAY_EOF(j)  (!eof[j] && (child[j] == ZOMBIE || child[j] == REAPED) && \
                     (!leaves_holder[j] || shot[j] || (termed[j] && !ignores_term[j])))

/* What may have happened meanwhile, or not. */
inline kernel(j) {
    if
    :: MAY_EXIT(j) -> child[j] = ZOMBIE
    :: true
    fi;
    if
    :: MAY_EOF(j) -> eof[j] = true
    :: true
    fi
}

/* ---- end.c ---- */

inline fsp_job_end(j) { fsp_job_tell_ended(j) }

/* Of this job or of its group: by a pid that is still ours. */
inline fsp_job_kill(j, sig) {
    assert(child[j] != REAPED && !freed[j]);
    if
    :: child[j] != NONE && sig == 9 -> shot[j] = true
    :: child[j] != NONE && sig != 9 -> termed[j] = true
    :: else
    fi
}

inline fsp_slots_remove(j) {
#if FAULT != FAULT_DOUBLE_REAP
    token_child[j] = false;
    token_pipe[j] = false;
    token_from[j] = false;
#endif
    in_heap[j] = false
}

inline forget_dues(j) {
    due_deadline[j] = false;
    due_kill[j] = false;
    due_drain[j] = false;
    due_poll[j] = false
}

inline fsp_job_finish(j) {
    if
    :: terminating[j] && !killed[j] -> fsp_job_kill(j, 9); killed[j] = true
    :: else
    fi;
    kernel(j); /* waitid: */
    assert(child[j] == RUNS || child[j] == ZOMBIE); /* else somebody has reaped it already */
    assert(!freed[j]);
    if
    :: child[j] == ZOMBIE ->
        child[j] = REAPED;
        out_open[j] = false;
        fsp_slots_remove(j);
        forget_dues(j);
        hold[s] = false;
        fsp_job_end(j)
    :: else -> due_poll[j] = true
    fi
}

/* ---- kill.c ---- */

inline kill_now(j) {
    if
    :: !waits[j] -> fsp_job_kill(j, 9)
    :: else /* its origin is told to hurry; fsp_job_catch_up */
    fi;
    terminating[j] = true;
    killed[j] = true;
    due_kill[j] = false
}

inline fsp_job_terminate(j) {
    if
    :: !terminating[j] ->
        terminating[j] = true;
        due_deadline[j] = false;
        due_kill[j] = true;
        if
        :: !waits[j] -> fsp_job_kill(j, 15)
        :: else
        fi
    :: else
    fi
}

inline fsp_job_abort(j) {
    if
    :: !aborted[j] ->
        aborted[j] = true;
        kill_now(j);
        if
        :: exited[j] -> fsp_job_finish(j)
        :: else
        fi
    :: else
    fi
}

inline fsp_job_grace_over(j) {
    kill_now(j);
    if
    :: exited[j] -> fsp_job_finish(j)
    :: else
    fi
}

inline fsp_job_catch_up(j) {
    if
    :: terminating[j] -> fsp_job_kill(j, (killed[j] -> 9 : 15))
    :: else
    fi
}

/* ---- job.c ---- */

inline pump(j) {
    kernel(j);
    if
    :: eof[j] -> out_open[j] = false
    :: else
    fi;
    if
    :: exited[j] && !out_open[j] -> fsp_job_finish(j)
    :: else
    fi
}

inline leader_exited(j) {
    if
    :: !exited[j] ->
        exited[j] = true;
        due_deadline[j] = false;
        pump(j);
        if
        :: IS_MINE(j) && out_open[j] -> due_drain[j] = true
        :: else
        fi
    :: else
    fi
}

inline drain_over(j) {
    if
    :: !terminating[j] && eof[j] -> pump(j)
    :: else -> fsp_job_finish(j)
    fi
}

inline fsp_job_set_deadline(j) {
    due_deadline[j] = has_deadline[j] && !spare[j]
}

inline adopt(j) {
    if
    :: spare[j] && !exited[j] && !terminating[j] -> spare[j] = false; fsp_job_set_deadline(j)
    :: else
    fi
}

inline fsp_job_take_mail(j) {
    d_step {
        assert(!freed[j] && owner[j] == s);
        cancel = mail_cancel[j];
        adopts = mail_adopt[j];
        mail_cancel[j] = false;
        mail_adopt[j] = false
    }
}

inline fsp_job_read_mail(j) {
    fsp_job_take_mail(j);
    atomic {
        if
        :: adopts -> adopts = false; adopt(j)
        :: else
        fi;
        if
        :: cancel ->
            cancel = false;
            fsp_job_terminate(j);
            if
            :: exited[j] && killed[j] -> fsp_job_finish(j)
            :: else
            fi
        :: else
        fi
    }
    wake_taker(yes)
}

/* ---- begin.c ---- */

/* The clone: what child there is is the kernel's from here on. */
inline running(j) {
    assert(child[j] == NONE);
    child[j] = RUNS;
    out_open[j] = true;
    pidfd_watched[j] = true;
    if
    :: tells_started[j] -> tells_started[j] = false; fsp_job_tell_started(j)
    :: else
    fi
}

inline enlist(j) {
    in_heap[j] = true;
    fsp_job_set_deadline(j)
}

inline give_back(j) {
    assert(!freed[j] && !ended[j] && owner[j] == s);
#if FAULT != FAULT_GIVEN_BACK
    listed_at[j] = NOBODY;
#endif
    owner[j] = NOBODY;
    queued[j] = true
}

inline fsp_job_has_none(j) {
    waits[j] = false;
    asks_origin[j] = false;
    fsp_slots_remove(j);
    forget_dues(j);
    if
    :: terminating[j] -> fsp_job_end(j)
    :: else -> give_back(j)
    fi
}

inline fsp_job_has_child(j) {
    waits[j] = false;
    running(j);
    fsp_job_catch_up(j)
}

inline origin_answers(j) {
    if
    :: fsp_job_has_child(j)
    :: fsp_job_has_none(j)
    fi
}

inline fsp_job_begin(j) {
    fsp_job_take_mail(j); /* is_off */
    atomic {
        if
        :: adopts -> adopts = false; spare[j] = false
        :: else
        fi;
        if
        :: cancel || is_stopping -> cancel = false; fsp_job_end(j)
        :: else ->
            if
            :: asks_origin[j] && post[s] && !post_closed[s] -> /* FSP_BIRTH_LATER */
                waits[j] = true;
                enlist(j)
            :: failures[j] > 0 -> /* FSP_BIRTH_FAILED for want of resources: put off, or for good */
                failures[j]--;
                if
                :: true -> give_back(j); hold[s] = true
                :: true -> fsp_job_end(j)
                fi
            :: true -> /* FSP_BIRTH_OWN */
                enlist(j);
                running(j)
            fi
        fi
    }
    wake_taker(yes)
}

/* ---- spawner.c ---- */

#define EVENT_CHILD(j) (IS_MINE(j) && pidfd_watched[j] && child[j] == ZOMBIE)
#define EVENT_PIPE(j)  (IS_MINE(j) && out_open[j] && eof[j])
#define EVENT_FROM(j)  (IS_MINE(j) && waits[j])
#define MAY_COME(j)    (EVENT_FROM(j) || EVENT_CHILD(j) || EVENT_PIPE(j) || (IS_MINE(j) && \
                        ((pidfd_watched[j] && MAY_EXIT(j)) || (out_open[j] && MAY_EOF(j)))))
#define DUE(j)         (IS_MINE(j) && \
                        (due_deadline[j] || due_kill[j] || due_drain[j] || due_poll[j]))
#define TOKEN_FROM(j)  token_from[j]
#define TOKEN_PIPE(j)  token_pipe[j]
#define TOKEN_CHILD(j) token_child[j]
#define HAS_MAIL(j)    (listed_at[j] == s)
#define IS_QUEUED(j)   queued[j]
#define IS_TO_ABORT(j) (IS_MINE(j) && !aborted[j])

#if JOBS == 1
#define ANY(what)   (what(0))
#define FIRST(what) j = 0
#elif JOBS == 2
#define ANY(what)   (what(0) || what(1))
#define FIRST(what) j = (what(0) -> 0 : 1)
#else
#define ANY(what)   (what(0) || what(1) || what(2))
#define FIRST(what) j = (what(0) -> 0 : (what(1) -> 1 : 2))
#endif
#define MINE    ANY(IS_MINE)
#define PENDING ANY(IS_QUEUED)
#define MAIL    ANY(HAS_MAIL)

bool hold[SPAWNERS]; /* s->hold_until is to come */

/* s->hold_until > now: at any moment it is not. */
inline look_at_hold() {
    if
    :: hold[s] -> held = !stopping
    :: hold[s] -> hold[s] = false; held = false
    :: !hold[s] -> held = false
    fi
}

inline may_sleep() {
    atomic {
        look_at_hold();
        busy = MAIL || called[s] || (PENDING && !held);
        timer = held && PENDING;
        leave = stopping && !busy && !MINE;
        held = false;
#if FAULT == FAULT_LOST_SLEEP
    } /* the lock is let go, and taken again */
    atomic {
#endif
        if
        :: !busy && !leave -> sleeping[s] = true; assert(!idle[s]); idle[s] = true
        :: else
        fi
    }
}

inline awake() {
    if
    :: d_step { !busy -> sleeping[s] = false; idle[s] = false }
    :: busy -> busy = false
    fi
}

/* epoll_wait, which answers with what is ready now: those events of a job that has ended meanwhile
 * are told all the same, by names that are no one's any more (slots.c: fsp_slots_remove). */
inline fsp_poller_wait() {
    atomic {
        if
        :: busy || waker[s] || ANY(MAY_COME) || timer || ANY(DUE)
        fi;
        timer = false;
        token_waker = waker[s];
        for (j : 0 .. JOBS - 1) {
            kernel(j);
            token_child[j] = EVENT_CHILD(j);
            token_pipe[j] = EVENT_PIPE(j);
            if
            :: EVENT_FROM(j) -> token_from[j] = true
            :: true
            fi;
            if
            :: token_child[j] -> pidfd_watched[j] = false
            :: else
            fi
        }
        j = 0
    }
}

/* One after the other; whoever has news for the taker wakes it before he goes on. */
inline handle() {
    do
    :: atomic { yes -> e_waker = true; yes = false }
    :: d_step { token_waker -> waker[s] = false; token_waker = false } /* fsp_waker_clear */
    :: atomic { !yes && !token_waker && ANY(TOKEN_FROM) ->
        FIRST(TOKEN_FROM);
        token_from[j] = false;
        origin_answers(j);
        j = 0 }
    :: atomic { !yes && !token_waker && !ANY(TOKEN_FROM) && ANY(TOKEN_PIPE) ->
        FIRST(TOKEN_PIPE);
        token_pipe[j] = false;
        pump(j);
        j = 0 }
    :: atomic { !yes && !token_waker && !ANY(TOKEN_FROM) && ANY(TOKEN_CHILD) ->
        FIRST(TOKEN_CHILD);
        token_child[j] = false;
        leader_exited(j);
        j = 0 }
    :: !yes && !token_waker && !ANY(TOKEN_FROM) && !ANY(TOKEN_PIPE) && !ANY(TOKEN_CHILD) -> break
    od
}

inline read_mail() {
    do
    :: atomic { yes -> e_waker = true; yes = false }
    :: atomic { !yes && MAIL -> /* fsp_spawner_next_mail */
        FIRST(HAS_MAIL);
        listed_at[j] = NOBODY };
        fsp_job_read_mail(j);
        j = 0
    :: atomic { !yes && !MAIL -> break }
    od
}

/* Now, or not yet. */
inline run_due() {
    do
    :: atomic { yes -> e_waker = true; yes = false }
    :: atomic { !yes && ANY(DUE) ->
        FIRST(DUE);
        if
        :: due_deadline[j] -> due_deadline[j] = false; fsp_job_terminate(j)
        :: due_kill[j] -> due_kill[j] = false; fsp_job_grace_over(j)
        :: due_drain[j] -> due_drain[j] = false; drain_over(j)
        :: due_poll[j] -> due_poll[j] = false; fsp_job_finish(j)
        fi;
        j = 0 }
    :: !yes -> break
    od
}

/* ---- origin.c ---- */

inline fsp_origin_unref() {
    d_step {
        assert(refs > 0 && !origin_freed);
        refs--;
        origin_freed = (refs == 0)
    }
}

inline hear() {
    d_step {
        post[s] = post[s] || new_post[s];
        new_post[s] = false;
        post_closed[s] = closed;
#if FAULT == FAULT_LOST_POST
    }
    d_step {
#endif
        called[s] = false
    }
}

/* Whoever waits for the origin is to wait no more (fsp_nest_turn_away). */
inline turn_away() {
    do
    :: atomic { yes -> e_waker = true; yes = false }
    :: atomic { !yes && ANY(EVENT_FROM) -> FIRST(EVENT_FROM); fsp_job_has_none(j); j = 0 }
    :: !yes && !ANY(EVENT_FROM) -> break
    od
}

inline drop_closed() {
    if
    :: post[s] && post_closed[s] -> post[s] = false; turn_away(); fsp_origin_unref()
    :: else
    fi
}

inline tend() {
    if
    :: called[s] -> hear(); drop_closed()
    :: else
    fi
}

inline take_pending() {
    atomic {
        look_at_hold();
        if
        :: PENDING && !held ->
            FIRST(IS_QUEUED);
            mine = j;
            j = 0;
            assert(owner[mine] == NOBODY && !ended[mine] && !freed[mine]);
            queued[mine] = false;
            owner[mine] = s
        :: else
        fi;
        held = false
    }
}

inline abort_all() {
    do
    :: atomic { yes -> e_waker = true; yes = false }
    :: atomic { !yes && ANY(IS_TO_ABORT) -> FIRST(IS_TO_ABORT); fsp_job_abort(j); j = 0 }
    :: !yes && !ANY(IS_TO_ABORT) -> break
    od
}

proctype Spawner(byte s) {
    byte j, k, mine = NOBODY;
    bool busy, timer, leave, held, yes, cancel, adopts, is_stopping, token_waker;
    bool token_child[JOBS], token_pipe[JOBS], token_from[JOBS];
    do
    :: true ->
        may_sleep();
        if
        :: leave -> break
        :: else
        fi;
        fsp_poller_wait();
        awake();
        handle();
        read_mail();
        run_due();
        tend();
        is_stopping = stopping;
        if
        :: is_stopping -> abort_all(); turn_away() /* fsp_origins_stop */
        :: else
        fi;
        take_pending();
        if
        :: mine != NOBODY -> j = mine; mine = NOBODY; fsp_job_begin(j); j = 0
        :: else
        fi;
        is_stopping = false
    od;
    left[s] = true
}

/* ---- the rest of the world ---- */

inline fsp_origin_open() {
    d_step {
        refs = 1;
        for (i : 0 .. SPAWNERS - 1) {
            refs++;
            new_post[i] = true;
            called[i] = true;
            sleeping[i] = false;
            waker[i] = true
        }
        i = 0
    }
}

inline fsp_origin_close() {
    d_step {
        if
        :: !engine_freed ->
            closed = true;
            for (i : 0 .. SPAWNERS - 1) {
                called[i] = true;
                sleeping[i] = false;
                waker[i] = true
            }
        :: else
        fi;
        i = 0
    }
    fsp_origin_unref()
}

inline fsp_engine_stop() {
    d_step {
#if FAULT != FAULT_LOST_STOP
        stopping = true;
#endif
        for (i : 0 .. SPAWNERS - 1) {
            sleeping[i] = false;
            waker[i] = true
        }
        i = 0
    }
#if FAULT == FAULT_LOST_STOP
    stopping = true
#endif
}

inline fsp_origins_orphan() {
    for (i : 0 .. SPAWNERS - 1) {
        if
        :: post[i] || new_post[i] ->
            d_step { post[i] = false; new_post[i] = false };
            fsp_origin_unref()
        :: else
        fi
    }
    i = 0
}

inline choose(j) {
    if
    :: true
    :: hangs[j] = true
    :: hangs[j] = true; ignores_term[j] = true; spare[j] = true
    :: hangs[j] = true; has_deadline[j] = true
    :: leaves_holder[j] = true; tells_started[j] = true
    fi;
#ifdef ORIGIN
    asks_origin[j] = true;
#endif
#ifdef SCARCE
    failures[j] = 1
#endif
}

#define ALL_SETTLED (settled[0] && settled[(JOBS > 1 -> 1 : 0)] && settled[(JOBS > 2 -> 2 : 0)])

init {
    byte i;
    bool closes;
    atomic {
        for (i : 0 .. JOBS - 1) { choose(i) }
        for (i : 0 .. SPAWNERS - 1) { run Spawner(i) }
        for (i : 0 .. JOBS - 1) { run Caller(i) }
        run Taker();
        i = 0
    }
#ifdef ORIGIN
    fsp_origin_open();
    if
    :: true -> closes = true; fsp_origin_close()
    :: true
    fi;
#endif
#ifndef STOP_EARLY
    ALL_SETTLED;
#ifdef ORIGIN
    if
    :: closes -> origin_freed /* every spawner has heard of it */
    :: else
    fi;
#endif
#endif
    fsp_engine_stop();
    for (i : 0 .. SPAWNERS - 1) { left[i] } /* pthread_join */
    i = 0;
    ALL_SETTLED;
#ifdef ORIGIN
    fsp_origins_orphan();
    engine_freed = true;
    if
    :: !closes -> fsp_origin_close()
    :: else
    fi;
    assert(origin_freed && refs == 0);
#endif
    for (i : 0 .. JOBS - 1) {
        assert(!queued[i] && owner[i] == NOBODY && listed_at[i] == NOBODY);
        assert(child[i] == NONE || child[i] == REAPED);
        assert(freed[i] == taken_end[i])
    }
}
