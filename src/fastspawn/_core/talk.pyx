"""A child on the caller's thread with pipes, from spawn to reap: what subprocess.run does."""

import os
import sys
from subprocess import DEVNULL as _DEVNULL
from subprocess import PIPE as _PIPE
from subprocess import STDOUT as _STDOUT

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, ENOMEM
from libc.stdint cimport uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

from fastspawn._cfastspawn cimport *
from fastspawn._core.child cimport Child
from fastspawn._core.plan cimport Plan, nanoseconds, stdio
from fastspawn._core.ways cimport check_way, tells_stages

cdef enum:
    NS = 1000000000


cdef uint64_t monotonic() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * NS + <uint64_t>now.tv_nsec


cdef class Talk:
    """A child on this thread with pipes, from spawn to reap: what subprocess.run does.

    Of stdin, stdout and stderr each is None (the caller's own), PIPE or DEVNULL, and stderr may
    be STDOUT if stdout is redirected. input (bytes-like) goes to stdin, which is then closed.
    Starting it raises what spawn() does, or communicate() does.
    """

    cdef fsp_talk c
    cdef Plan plan
    cdef bint started
    cdef bint piped[2]
    cdef Py_buffer input

    def __init__(self, Plan plan not None, stdin=None, stdout=None, stderr=None, input=None):
        if self.started:
            raise TypeError("a talk cannot be initialized twice")
        self.start(plan, stdin, stdout, stderr, input)

    cdef start(self, Plan plan, stdin, stdout, stderr, input):
        cdef fsp_io[3] how
        cdef fsp_error error
        cdef fsp_plan *c = plan.get()
        cdef int r
        check_way()
        how[0] = stdio(stdin, False)
        how[1] = stdio(stdout, False)
        how[2] = stdio(stderr, True)
        self.piped[0] = how[1] == FSP_IO_PIPE
        self.piped[1] = how[2] == FSP_IO_PIPE
        if input is not None:
            PyObject_GetBuffer(input, &self.input, PyBUF_SIMPLE)
        with nogil:
            r = fsp_talk_start(c, how, self.input.buf, <size_t>self.input.len, &self.c, &error)
        if r < 0:
            raise plan.error(&error)
        self.plan = plan
        self.started = True

    def __dealloc__(self):
        PyBuffer_Release(&self.input)
        if self.started:
            fsp_talk_end(&self.c)
            if self.c.child.pidfd >= 0:
                close(self.c.child.pidfd)

    def communicate(self, timeout=None):
        """Feed and collect until the pipes are at their end, then reap: True.

        False when that took more than timeout seconds. Signal handlers run meanwhile; after what
        they raise, as after False, it can be called again. Raises what spawn() does if the program
        could not be executed; the child has been reaped then.
        """
        cdef uint64_t deadline = <uint64_t>-1
        cdef fsp_error error
        cdef int r
        if not self.started:
            raise ValueError("the talk was not started")
        if timeout is not None:
            deadline = monotonic() + nanoseconds(max(0, timeout))
        while self.c.child.pid > 0:
            PyErr_CheckSignals()
            with nogil:
                r = fsp_talk_on(&self.c, deadline, &error)
            if error.err:
                raise self.plan.error(&error)
            if r == 0:
                return False
            if r == -ENOMEM:
                raise MemoryError()
            if r < 0 and r != -EINTR:
                raise OSError(-r, os.strerror(-r))
        return True

    def close(self):
        """Close the pipes."""
        fsp_talk_end(&self.c)

    def detach(self):
        """A Child for the rest of its life, to be waited for by the caller."""
        cdef Child child = Child.__new__(Child)
        child.begin(self.c.child)
        child.h.status = self.c.status
        child.h.ended = self.c.child.pid <= 0
        self.c.child.pid = self.c.child.pidfd = -1
        return child

    @property
    def returncode(self):
        """int once it has been reaped (negative: the signal; 0 if someone else reaped it)."""
        return self.c.status.code

    cdef object output(self, int stream):
        cdef fsp_buf *buf = &self.c.output[stream]
        if not self.piped[stream] or (buf.len == 0 and self.c.fd[stream + 1] >= 0):
            return None
        return PyBytes_FromStringAndSize(buf.data, <Py_ssize_t>buf.len)

    @property
    def stdout(self):
        """bytes that came so far; None without a pipe, or if nothing came, not even its end."""
        return self.output(0)

    @property
    def stderr(self):
        """As stdout."""
        return self.output(1)


cdef bint _is_stream(how, bint is_err) except -1:
    if how is None:
        return True
    return type(how) is int and (how == _PIPE or how == _DEVNULL or (is_err and how == _STDOUT))


cdef frozenset _usual = frozenset(("stdin", "stdout", "stderr", "executable", "cwd", "env"))


def begin(args, input, dict options, prefix=None):
    """A Talk for arguments of subprocess.run, or None.

    args and options are what subprocess.Popen is called with; what comes before args is prefix (a
    shell and its option). None says that nothing was done: there are other options than stdin,
    stdout and stderr (each None or one of subprocess's numbers), executable, cwd and env, or
    something is wrong with them, which subprocess can tell. Raises what spawn() does, and what an
    audit hook raises.
    """
    cdef Plan plan
    cdef Talk talk
    cdef list argv
    for name in options:
        if name not in _usual:
            return None
    stdin = options.get("stdin")
    stdout = options.get("stdout")
    stderr = options.get("stderr")
    if not _is_stream(stdin, False) or not _is_stream(stdout, False):
        return None
    if not _is_stream(stderr, True) or (stdout is None and stderr == _STDOUT):
        return None
    if input is not None and type(input) is not bytes and type(input) is not bytearray:
        return None
    if isinstance(args, (list, tuple)):
        argv = list(args)
    elif type(args) is str or type(args) is bytes:
        argv = [args]
    else:
        return None
    executable = options.get("executable")
    if prefix is not None:
        argv = [executable or prefix[0], *prefix[1:], *argv]
    cwd = options.get("cwd")
    env = options.get("env")
    plan = Plan.__new__(Plan)
    try:
        plan._simple(argv, executable, env, cwd)
    except Exception:
        return None
    sys.audit("subprocess.Popen", plan.executable, argv, cwd, env)
    talk = Talk.__new__(Talk)
    try:
        talk.start(plan, stdin, stdout, stderr, input)
    except OSError:
        if tells_stages():
            raise
        return None
    return talk
