"""A child on the caller's thread: spawn, start, wait."""

import os
import resource
from operator import index

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EMFILE, ENFILE, ESRCH
from libc.math cimport ceil
from posix.unistd cimport close

from fastspawn._cfastspawn cimport *
from fastspawn._core.plan cimport Plan
from fastspawn._core.ways cimport check_way

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
    int poll(pollfd *fds, unsigned long n, int timeout)
    short POLLIN


cdef enum:
    MAX_WAIT = 3600000 # ms at a time


cdef object struct_rusage(const rusage *u):
    return resource.struct_rusage((
        u.ru_utime.tv_sec + u.ru_utime.tv_usec * 1e-6,
        u.ru_stime.tv_sec + u.ru_stime.tv_usec * 1e-6,
        u.ru_maxrss, u.ru_ixrss, u.ru_idrss, u.ru_isrss, u.ru_minflt, u.ru_majflt, u.ru_nswap,
        u.ru_inblock, u.ru_oublock, u.ru_msgsnd, u.ru_msgrcv, u.ru_nsignals, u.ru_nvcsw,
        u.ru_nivcsw,
    ))


# Without a GIL this lock is for what one kept others out of: the list below, and the children in it.
# Nothing is done under it that calls Python, or waits.

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #include <pthread.h>
    static pthread_mutex_t fsp_children = PTHREAD_MUTEX_INITIALIZER;
    #define fsp_lock_children()   (void)pthread_mutex_lock(&fsp_children)
    #define fsp_unlock_children() (void)pthread_mutex_unlock(&fsp_children)
    #else
    #define fsp_lock_children()   (void)0
    #define fsp_unlock_children() (void)0
    #endif
    """
    void lock "fsp_lock_children"() noexcept
    void unlock "fsp_unlock_children"() noexcept


# Children that a Popen holds.  Someone else may reap them, and nobody ever ask for them again: so
# that their descriptors go, they are looked at when there are twice as many as were left last time.
# They are no references: an object that is on its way out is in it until it has the lock.

cdef enum:
    HELD_FIRST = 16

cdef Held *newest = NULL
cdef Py_ssize_t n_held = 0
cdef Py_ssize_t look_at = HELD_FIRST


cdef void hold(Held *h) noexcept:
    global newest, n_held
    if h.c.pidfd < 0:
        return
    if n_held >= look_at:
        let_go()
    h.older = newest
    if newest != NULL:
        newest.newer = h
    newest = h
    h.listed = True
    n_held += 1


cdef void release(Held *h) noexcept:
    global newest, n_held
    if not h.listed:
        return
    h.listed = False
    n_held -= 1
    if h.older != NULL:
        h.older.newer = h.newer
    if h.newer != NULL:
        h.newer.older = h.older
    else:
        newest = h.older
    h.older = h.newer = NULL


cdef void shut(Held *h) noexcept:
    release(h)
    if h.c.pidfd >= 0:
        close(h.c.pidfd)
    h.c.pidfd = -1


cdef void tidy(Held *h) noexcept:
    if h.ended and h.users == 0:
        shut(h)


cdef void end(Held *h, const fsp_status *status) noexcept:
    # Of two threads that waited, one may have come too late.
    if not h.ended or h.status.lost:
        h.status = status[0]
    h.ended = True
    h.c.pid = -1
    tidy(h)


cdef bint let_go() noexcept:
    """Close the descriptors of those that someone else reaped: were there any?"""
    global look_at
    cdef Held *next = newest
    cdef Held *h
    cdef fsp_status status
    cdef bint found = False
    while next != NULL:
        h = next
        next = h.older
        if fsp_look(&h.c, &status) == 1:
            end(h, &status)
            found = True
    look_at = max(HELD_FIRST, 2 * n_held)
    return found


cdef class Child:
    """A child of the caller's, to be waited for by the caller.

    Its descriptor is closed when its end is known and nobody waits on it any more.
    """

    def __cinit__(self):
        self.h.c.pid = self.h.c.pidfd = self.pid = -1

    def __dealloc__(self):
        # Dropped before its end was waited for.
        lock()
        shut(&self.h)
        unlock()

    cdef void begin(self, fsp_child c) noexcept:
        self.h.c = c
        self.pid = c.pid

    @property
    def pidfd(self):
        """Its descriptor; -1 if there is none any more."""
        return -1 if self.h.ended else self.h.c.pidfd

    def wait(self, bint block=True):
        """The return code (negative: the signal), or None if it still runs and block is false."""
        cdef fsp_child c
        cdef fsp_status status
        cdef int r = 0, code
        cdef bint ended
        lock()
        ended = self.h.ended
        if not ended:
            c = self.h.c
            self.h.users += 1
            unlock()
            with nogil:
                r = fsp_reap(&c, block, &status)
            lock()
            self.h.users -= 1
            tidy(&self.h)
            if r == 1:
                end(&self.h, &status)
            ended = self.h.ended
        code = self.h.status.code
        unlock()
        if ended:
            return code
        if r < 0:
            raise OSError(-r, os.strerror(-r))
        return None

    def await_end(self, double timeout):
        """Wait, at most timeout seconds, until it has ended; or until a signal was handled.

        At once where there is no descriptor. True: it has ended, though its status may not be
        there yet: who traces it has that first, for as long as it likes (ptrace(2)).
        """
        cdef pollfd fd
        cdef int told
        cdef int ms = <int>ceil(min(max(timeout, 0) * 1000, <double>MAX_WAIT))
        fd.fd = self.watch()
        if fd.fd < 0:
            return False
        fd.events = POLLIN
        with nogil:
            told = poll(&fd, 1, ms)
        self.unwatch()
        PyErr_CheckSignals()
        return told > 0

    cpdef int watch(self) noexcept:
        """Its descriptor, which stays open until unwatch(); -1 if there is none any more."""
        cdef int fd
        lock()
        fd = -1 if self.h.ended else self.h.c.pidfd
        if fd >= 0:
            self.h.users += 1
        unlock()
        return fd

    cpdef void unwatch(self) noexcept:
        """Once for each watch() that returned a descriptor."""
        lock()
        self.h.users -= 1
        tidy(&self.h)
        unlock()

    @property
    def gone(self):
        """True once it is known to have been reaped: its pid may be someone else's."""
        return self.h.ended

    @property
    def lost(self):
        """True if someone else reaped the child, and the kernel does not know its status.

        It does since Linux 6.15.
        """
        return bool(self.h.ended and self.h.status.lost)

    @property
    def rusage(self):
        """resource.struct_rusage, once it has ended; zero if someone else reaped it."""
        return struct_rusage(&self.h.status.usage) if self.h.ended else None

    def kill(self, sig, bint group=False):
        """Send a signal; ProcessLookupError once it has been reaped, or where it is nobody's to
        wait for: in a process that was forked since, it is its parent's."""
        cdef fsp_status status
        cdef int r, number = index(sig)
        lock()
        r = -ESRCH if fsp_look(&self.h.c, &status) == 1 else fsp_kill(&self.h.c, group, number)
        unlock()
        if r < 0:
            raise OSError(-r, os.strerror(-r))


cdef Child holding(fsp_child c):
    """For a Popen, or whoever else may never ask for it again."""
    cdef Child child = Child.__new__(Child)
    child.begin(c)
    lock()
    hold(&child.h)
    unlock()
    return child


cdef class ReturnCode:
    """Popen.returncode: where it always is, and whoever sets it lets go of the child."""

    def __get__(self, popen, owner):
        if popen is None:
            return self
        try:
            return (<dict>popen.__dict__)["returncode"]
        except KeyError:
            raise AttributeError("returncode") from None

    def __set__(self, popen, code):
        cdef dict attributes = popen.__dict__
        attributes["returncode"] = code
        if code is not None:
            attributes["_core_child"] = None
            attributes["_reaped"] = True


def spawn(Plan plan not None, int stdin=-1, int stdout=-1, int stderr=-1):
    """Start a plan on this thread, without the GIL; returns when the program executes.

    The descriptors become the child's 0, 1 and 2; -1 leaves it the caller's own. Raises OSError
    as subprocess.Popen does, and leaves nothing behind then.
    """
    cdef fsp_stdio io
    cdef fsp_error error
    cdef fsp_child begun
    cdef fsp_plan *c = plan.get()
    cdef int r
    cdef bint room
    check_way()
    io.fd[0] = stdin
    io.fd[1] = stdout
    io.fd[2] = stderr
    with nogil:
        r = fsp_spawn(c, &io, 0, NULL, &begun, &error)
    if r < 0 and (error.err == EMFILE or error.err == ENFILE):
        lock()
        room = let_go()
        unlock()
        if room:
            with nogil:
                r = fsp_spawn(c, &io, 0, NULL, &begun, &error)
    if r < 0:
        raise plan.error(&error)
    return holding(begun)


cdef class Start:
    """A child that may be on its way to its program still; see start()."""

    cdef fsp_start c
    cdef Plan plan
    cdef readonly int fd

    def __cinit__(self):
        self.c.child.pid = self.fd = -1

    def __dealloc__(self):
        fsp_start_drop(&self.c)

    def end(self):
        """The Child, once; waits if need be. Raises what spawn() does."""
        cdef fsp_error error
        cdef Child child = Child.__new__(Child)
        cdef fsp_child begun
        cdef fsp_start c
        cdef int r
        with cython.critical_section(self):
            c = self.c
            self.c.child.pid = self.fd = -1
        if c.child.pid < 0:
            raise ValueError("it has ended")
        with nogil:
            r = fsp_start_end(&c, &begun, &error)
        if r < 0:
            raise self.plan.error(&error)
        child.begin(begun)
        return child


def start(Plan plan not None, int stdin=-1, int stdout=-1, int stderr=-1):
    """spawn() that does not wait until the program executes.

    Start.fd is readable when it executes or has failed to (-1: it has already); then Start.end()
    is due. A Start that is dropped before is killed and reaped. None, and nothing was started, if
    spawn() is the way. Raises what spawn() does, as end() will.
    """
    cdef fsp_stdio io
    cdef fsp_error error
    cdef Start start = Start.__new__(Start)
    cdef int r
    check_way()
    io.fd[0] = stdin
    io.fd[1] = stdout
    io.fd[2] = stderr
    # With the GIL, so that no other thread forks, and takes the other end of fd along. (Where there
    # is none, a fork waits until every thread is somewhere else: PyOS_BeforeFork stops the world.)
    r = fsp_start_begin(plan.get(), &io, &start.c, &error)
    if r < 0:
        raise plan.error(&error)
    if r == 0:
        return None
    start.plan = plan
    start.fd = start.c.fd
    return start


def adopt(int pid):
    """A Child for a process that someone else started, or None.

    It must be a child of this process that nobody reaps at the same time. None where there are no
    pidfds, or where there is no such child.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    return holding(fsp_child(pid, pidfd))
