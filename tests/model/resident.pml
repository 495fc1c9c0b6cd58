/*
 * resident.pml - jobs, and the residents that do them one after the other: csrc/reset with what
 * csrc/guest/resident.c does on the far side, and what csrc/engine does with a job meanwhile.
 *
 * It keeps to the C function by function, under the same names.  A spawner is one thread, so what it
 * does about one event is one step; a resident may be anywhere, and be killed, between any two of
 * its own.  Whatever may be due may be so at any moment.
 *
 *   Resident(r)  waits for a job, runs the program, tells that it is done, is as before
 *   Others       kill any resident, at any moment, once
 *   Spawner      gives jobs, hears, sends TERM and KILL, reaps; is stopped when all jobs have ended
 *
 * Checked: a program runs once for each job, whoever does it, or not at all if that was made to end
 * before; a status is its own job's; a signal that was sent because of one job meets no other; a
 * process is reaped once and not signalled afterwards; and nobody waits for ever.
 *
 * Left out: how a resident is made (it is idle from the start), bytes, several at a time, pipes that
 * others hold (whoever has forked has left, and is a child as any).
 *
 * -DFAULT=FAULT_...: one is planted, which has to be found.
 */
#ifndef JOBS
#define JOBS 2
#endif
#ifndef LIVES
#define LIVES 2 /* residents, one after the other; when they are used up, jobs are forked */
#endif

#define FAULT_STAYS      1 /* one that was sent a signal rests, and does not look at it before a job */
#define FAULT_LATE_BEGIN 2 /* the record says that it has begun when it has */
#define FAULT_EARLY_DONE 3 /* DONE is said before the record has the status */
#define FAULT_NO_RECORD  4 /* fell_silent takes silence for a job that was not begun */
#define FAULT_BURIED     5 /* has_gone does not ask for a job that may still signal it */
#ifndef FAULT
#define FAULT 0
#endif

#define NOBODY 255

/* ---- the kernel's ---- */

mtype = { ABSENT, ALIVE, ZOMBIE, REAPED };
mtype process[LIVES] = ABSENT;
bool shot[LIVES];                 /* KILL is on its way */
byte termed[LIVES] = NOBODY;      /* TERM is pending, because of this job */
bool socket[LIVES];               /* the spawner's end is open */
byte given[LIVES] = NOBODY;       /* what is in the socket, and the other way: */
mtype = { NOTHING, DONE, LEFT };
mtype said[LIVES] = NOTHING;
byte said_of[LIVES] = NOBODY;

/* ---- the record, which both have mapped ---- */

byte begun[LIVES] = NOBODY, done[LIVES] = NOBODY, status[LIVES] = NOBODY;

/* ---- a spawner's ---- */

mtype = { NONE, IDLE, LENT, OVER, OWN, RETIRED, FREED };
mtype state[LIVES] = NONE;
byte job_of[LIVES] = NOBODY;
bool r_ended[LIVES], due[LIVES];

byte at[JOBS] = NOBODY;           /* job->from.at, or its own child */
bool lent[JOBS], ended[JOBS], exited[JOBS], out_open[JOBS];
bool terminating[JOBS], killed[JOBS], signalled[JOBS];

/* ---- ghosts: for the assertions only ---- */

bool eof[JOBS];                   /* nobody holds its pipe */
byte ran[JOBS];

/* ---- resident.c ---- */

/* is_signalled */
inline look_at_signals() {
    if
#if FAULT == FAULT_STAYS
    :: true
#else
    :: termed[r] != NOBODY -> goto gone
    :: termed[r] == NOBODY
#endif
    fi
}

inline runs(r, j) {
    assert(termed[r] == NOBODY || termed[r] == j);
    ran[j]++;
    assert(ran[j] == 1)
}

/* As the kernel has it: all that it had is closed. */
inline dies(r, j) {
    d_step {
        process[r] = ZOMBIE;
        termed[r] = NOBODY;
        if
        :: j != NOBODY -> eof[j] = true
        :: else
        fi
    }
}

proctype Resident(byte r) {
    byte j = NOBODY;
wait_for_job:
    {
        look_at_signals();
        if /* receive */
        :: atomic { given[r] != NOBODY -> j = given[r]; given[r] = NOBODY; eof[j] = false }
        :: given[r] == NOBODY && !socket[r] -> goto gone
        fi;
        look_at_signals();
        if
        :: true
        :: goto gone /* place: it cannot have them */
        fi;
#if FAULT == FAULT_LATE_BEGIN
        runs(r, j);
        begun[r] = j;
#else
        d_step { begun[r] = j; runs(r, j) }
#endif
        if /* the program; TERM ends it, or it ignores that */
        :: goto is_over
        :: goto leave
        :: goto gone
        :: termed[r] != NOBODY -> goto gone
        :: atomic { termed[r] != NOBODY -> termed[r] = NOBODY }; goto is_over
        :: shot[r] /* it hangs */
        fi;
leave:
        atomic { said[r] = LEFT; said_of[r] = j };
        if
        :: goto gone
        :: termed[r] != NOBODY -> goto gone
        :: shot[r]
        fi;
is_over:
        eof[j] = true; /* state_let_go */
#if FAULT == FAULT_EARLY_DONE
        done[r] = j;
        atomic { said[r] = DONE; said_of[r] = j };
        status[r] = j;
#else
        status[r] = j;
        done[r] = j;
        atomic { said[r] = DONE; said_of[r] = j };
#endif
        j = NOBODY; /* restore */
        goto wait_for_job
    } unless { shot[r] };
gone:
    dies(r, j)
}

/* ---- kill.c ---- */

inline fsp_job_kill(j, sig) {
    signalled[j] = true;
    x = at[j];
    assert(process[x] != REAPED);
    assert(job_of[x] == j);
    if
    :: process[x] == ALIVE && sig == 9 -> shot[x] = true
    :: process[x] == ALIVE && sig != 9 -> termed[x] = j
    :: process[x] != ALIVE
    fi
}

inline fsp_job_terminate(j) {
    terminating[j] = true;
    fsp_job_kill(j, 15)
}

inline fsp_job_grace_over(j) {
    killed[j] = true;
    fsp_job_kill(j, 9);
    if
    :: exited[j] -> fsp_job_finish(j)
    :: else
    fi
}

/* ---- keep.c ---- */

inline fsp_resident_close(r) { socket[r] = false }

inline fsp_resident_retire(r) {
    if
    :: state[r] != RETIRED -> state[r] = RETIRED; fsp_resident_close(r); due[r] = true
    :: else
    fi
}

inline fsp_resident_bury(r) {
    assert(process[r] == ZOMBIE);
    process[r] = REAPED;
    state[r] = FREED;
    fsp_resident_close(r);
    due[r] = false
}

/* ---- end.c, and what of lend.c it calls ---- */

inline own_ended(r) {
    assert(process[r] == ZOMBIE);
    process[r] = REAPED;
    state[r] = FREED
}

inline fsp_resident_leave(r, j) {
    at[j] = NOBODY;
    job_of[r] = NOBODY;
    if
    :: state[r] == OWN -> own_ended(r)
#if FAULT != FAULT_STAYS
    :: state[r] != OWN && (signalled[j] || r_ended[r]) -> fsp_resident_retire(r)
    :: state[r] != OWN && !signalled[j] && !r_ended[r] -> state[r] = IDLE
#else
    :: state[r] != OWN && r_ended[r] -> fsp_resident_retire(r)
    :: state[r] != OWN && !r_ended[r] -> state[r] = IDLE
#endif
    fi
}

inline fsp_job_end(j) {
    assert(!ended[j]);
    assert(ran[j] == 1 || terminating[j]);
    ended[j] = true
}

inline fsp_job_finish(j) {
    if
    :: terminating[j] && !killed[j] -> killed[j] = true; fsp_job_kill(j, 9)
    :: else
    fi;
    x = at[j];
    fsp_resident_leave(x, j);
    fsp_job_end(j)
}

/* ---- hear.c ---- */

#define HEARS(r) (socket[r] && said[r] != NOTHING && state[r] == LENT)

/* fsp_job_over */
inline over(r, j) {
    assert(status[r] == j);
    state[r] = OVER;
    exited[j] = true;
    if
    :: eof[j] -> out_open[j] = false; fsp_job_finish(j)
    :: else
    fi
}

/* fsp_resident_let_go, fsp_job_has_child */
inline hand_over(r, j) {
    state[r] = OWN;
    fsp_resident_close(r);
    lent[j] = false
}

/* fsp_job_has_none: as if it had never run. */
inline not_begun(r, j) {
    at[j] = NOBODY;
    job_of[r] = NOBODY;
    lent[j] = false;
    signalled[j] = false;
    out_open[j] = false;
    fsp_resident_retire(r);
    if
    :: terminating[j] -> fsp_job_end(j)
    :: else
    fi
}

inline fell_silent(r, j) {
    if
    :: done[r] == j && FAULT != FAULT_NO_RECORD -> over(r, j)
    :: done[r] != j && begun[r] == j && FAULT != FAULT_NO_RECORD -> hand_over(r, j)
    :: begun[r] != j || FAULT == FAULT_NO_RECORD -> not_begun(r, j)
    fi
}

inline handle(r) {
    j = said_of[r];
    said_of[r] = NOBODY;
    if
    :: said[r] == DONE -> said[r] = NOTHING; over(r, j)
    :: said[r] == LEFT -> said[r] = NOTHING; hand_over(r, j)
    fi;
    j = NOBODY
}

inline hang_up(r) {
    fsp_resident_close(r);
    j = job_of[r];
    if
    :: state[r] == LENT -> fell_silent(r, j)
    :: state[r] == IDLE -> fsp_resident_retire(r)
    :: else
    fi;
    j = NOBODY
}

/* fsp_resident_ready(ended): its last words first. */
inline its_end(r) {
    r_ended[r] = true;
    if
    :: HEARS(r) -> handle(r)
    :: state[r] == LENT && !HEARS(r) ->
        j = job_of[r];
        fell_silent(r, j);
        j = NOBODY
    :: else
    fi
}

/* ---- lend.c ---- */

inline fsp_resident_take(r, j) {
    state[r] = LENT;
    job_of[r] = j;
    at[j] = r;
    lent[j] = true;
    out_open[j] = true;
    given[r] = j
}

/* A fork, which nothing happens to: that is engine.pml's. */
inline is_forked(j) {
    ran[j]++;
    assert(ran[j] == 1);
    fsp_job_end(j)
}

/* ---- the spawner ---- */

#define OPEN(j)       (!ended[j])
#define HAS(j)        (at[j] != NOBODY)
#define HUNG_UP(r)    (socket[r] && said[r] == NOTHING && (process[r] == ZOMBIE || process[r] == REAPED))
#define WATCHED(r)    (process[r] == ZOMBIE && !r_ended[r] && state[r] != OWN && state[r] != FREED)
#if FAULT != FAULT_BURIED
#define HAS_GONE(r)   (r_ended[r] && job_of[r] == NOBODY && state[r] != FREED)
#else
#define HAS_GONE(r)   (r_ended[r] && state[r] != FREED)
#endif

inline about_job(j) {
    if
    :: atomic { OPEN(j) && HAS(j) && !signalled[j] && !exited[j] -> fsp_job_kill(j, 15) } /* fsp_job_send */
    :: atomic { OPEN(j) && HAS(j) && !terminating[j] -> fsp_job_terminate(j) }
    :: atomic { OPEN(j) && HAS(j) && terminating[j] && !killed[j] -> fsp_job_grace_over(j) }
    :: atomic { OPEN(j) && HAS(j) && out_open[j] && eof[j] ->
        out_open[j] = false;
        if
        :: exited[j] -> fsp_job_finish(j)
        :: else
        fi }
    :: atomic { OPEN(j) && HAS(j) && !lent[j] && process[at[j]] == ZOMBIE ->
        exited[j] = true;
        fsp_job_finish(j) }
    fi
}

#define ABOUT_JOB(j)  (OPEN(j) && HAS(j) && (!terminating[j] || !killed[j] || \
                       (out_open[j] && eof[j]) || (!lent[j] && process[at[j]] == ZOMBIE)))

inline about_resident(r) {
    if
    :: atomic { HEARS(r) -> handle(r) }
    :: atomic { HUNG_UP(r) -> hang_up(r) }
    :: atomic { WATCHED(r) -> its_end(r) }
    :: atomic { HAS_GONE(r) -> fsp_resident_bury(r) }
    :: atomic { state[r] == RETIRED && due[r] -> /* expire */
        due[r] = false;
        if
        :: process[r] == ALIVE -> shot[r] = true
        :: else
        fi }
    fi
}

#define ABOUT_RESIDENT(r) (HEARS(r) || HUNG_UP(r) || WATCHED(r) || HAS_GONE(r) || \
                           (state[r] == RETIRED && due[r]))

/* A job of which nothing is begun goes to whoever is idle, or is forked. */
inline fsp_resident_lend(j) {
    atomic {
        for (r : 0 .. LIVES - 1) {
            if
            :: state[r] == IDLE && !HAS(j) && OPEN(j) ->
                if
                :: process[r] == ALIVE -> fsp_resident_take(r, j)
                :: process[r] != ALIVE -> fsp_resident_retire(r) /* give: EPIPE */
                fi
            :: else
            fi
        }
        r = 0;
        if
        :: !HAS(j) && OPEN(j) -> is_forked(j)
        :: else
        fi
    }
}

byte made;

inline fsp_resident_make() {
    atomic {
        process[made] = ALIVE;
        socket[made] = true;
        state[made] = IDLE;
        run Resident(made);
        made++
    }
}

#define NONE_COUNTS (made == 0 || state[made - 1] == RETIRED || state[made - 1] == FREED || \
                     state[made - 1] == OWN)

proctype Spawner() {
    byte r, j = NOBODY, x;
    fsp_resident_make();
    do
    :: made < LIVES && NONE_COUNTS -> fsp_resident_make()
    :: OPEN(0) && !HAS(0) -> fsp_resident_lend(0)
    :: ABOUT_JOB(0) -> about_job(0)
#if JOBS > 1
    :: ended[0] && OPEN(1) && !HAS(1) -> fsp_resident_lend(1)
    :: ABOUT_JOB(1) -> about_job(1)
#endif
#if JOBS > 2
    :: ended[1] && OPEN(2) && !HAS(2) -> fsp_resident_lend(2)
    :: ABOUT_JOB(2) -> about_job(2)
#endif
    :: made > 0 && ABOUT_RESIDENT(0) -> about_resident(0)
#if LIVES > 1
    :: made > 1 && ABOUT_RESIDENT(1) -> about_resident(1)
#endif
    :: ended[JOBS - 1] -> break
    od;
    /* fsp_resident_stop */
    atomic {
        for (r : 0 .. LIVES - 1) {
            if
            :: r < made && state[r] != FREED ->
                fsp_resident_retire(r);
                due[r] = false;
                if
                :: process[r] == ALIVE -> shot[r] = true
                :: else
                fi
            :: else
            fi
        }
        r = 0
    }
    do
    :: made > 0 && ABOUT_RESIDENT(0) -> about_resident(0)
#if LIVES > 1
    :: made > 1 && ABOUT_RESIDENT(1) -> about_resident(1)
#endif
    :: state[0] == FREED && (made < 2 || state[made - 1] == FREED) -> break
    od
}

/* Whoever runs short of memory, or an operator. */
proctype Others() {
    byte r;
    if
    :: true -> skip
    :: atomic { process[0] == ALIVE -> shot[0] = true }
    fi
}

init {
    atomic {
        run Spawner();
        run Others()
    }
}
