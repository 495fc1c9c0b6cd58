"""Children on the engine's threads, and the way back from them.

An engine and its jobs are one event loop's. What another thread does to them is made safe for
memory, no more: without a GIL, C's pointers change and are used in a critical section of the engine
(of the template, for its own), which costs nothing where there is a GIL.
"""

import errno
import os
import sys
from operator import index

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINVAL, ENOMEM, EPIPE
from libc.stdlib cimport free

from fastspawn._cfastspawn cimport *
from fastspawn._core.child cimport struct_rusage
from fastspawn._core.plan cimport Plan
from fastspawn._core.ways cimport check_way


class _Stream:
    """The type of STREAM."""

    def __repr__(self) -> str:
        return "fastspawn.STREAM"


STREAM = _Stream()


class _Inherit:
    """The type of INHERIT."""

    def __repr__(self):
        return "fastspawn._core.INHERIT"


INHERIT = _Inherit()
"""stdin is our own."""


cdef class Terminal:
    """As the input of a job: it runs on a new terminal of this size (Linux; else
    NotImplementedError), in a session of its own, all of which ends with it.

    Job.write() is what is typed, what it shows is its output, and Job.write_eof() hangs up. Raises
    OverflowError for a size that is not from 0 to 65535.
    """

    def __init__(self, unsigned short cols, unsigned short rows):
        self.size = fsp_size(cols, rows)


cdef class Job:
    """A command handed to an engine. Its sink hears of it on the event loop's thread."""

    @property
    def rusage(self):
        """resource.struct_rusage of the child, once it has ended."""
        return None if self.returncode is None else struct_rusage(&self.status.usage)

    cdef bint is_live(self) noexcept:
        """Does C still have the job, and the engine that it is of?"""
        return self.c != NULL and self.engine.c != NULL

    def write(self, data):
        """Queue bytes for stdin (STREAM only).

        False when more than 256 KiB are queued: stop until the sink's on_drain(). Bytes for a
        child that has ended are dropped. Raises BrokenPipeError after write_eof().
        """
        cdef Py_buffer view
        cdef int r
        if not self.is_live():
            return True
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        with cython.critical_section(self.engine):
            r = fsp_job_write(self.c, view.buf, <size_t>view.len) if self.is_live() else 0
        PyBuffer_Release(&view)
        if r == -ENOMEM:
            raise MemoryError()
        if r < 0:
            raise OSError(-r, os.strerror(-r))
        return r == 0

    def write_eof(self):
        """Close stdin after what is queued."""
        with cython.critical_section(self.engine):
            if self.is_live():
                fsp_job_write_eof(self.c)

    def resize(self, unsigned short cols, unsigned short rows):
        """Its terminal has another size."""
        with cython.critical_section(self.engine):
            if self.is_live():
                fsp_job_resize(self.c, fsp_size(cols, rows))

    def pause_reading(self, int stream=0):
        """Take no more output: at most 256 KiB more come to the sink, then the child waits."""
        self.paused[stream != 0] = True

    def resume_reading(self, int stream=0):
        """Go on after pause_reading()."""
        cdef int i = stream != 0
        with cython.critical_section(self.engine):
            self.paused[i] = False
            if self.unconsumed[i] and self.is_live():
                fsp_job_consumed(self.c, i, self.unconsumed[i])
            self.unconsumed[i] = 0

    def adopt(self, sink, bint notify=False):
        """Give a spare to a request: from now on the sink is told, and the time limits count.

        What goes to stdin is to be written after this. A spare that ended before is told by
        on_exit with spare true. With notify, on_start(job) says that it was in time.
        """
        with cython.critical_section(self.engine):
            self.sink = sink
            if self.is_live():
                fsp_job_adopt(self.c, notify)

    def cancel(self):
        """TERM to the process group, KILL after the grace; on_exit still comes."""
        with cython.critical_section(self.engine):
            if self.is_live():
                fsp_job_cancel(self.c)

    def send_signal(self, sig, bint group=False):
        """Send a signal to the child, or to its group; does nothing once it has ended."""
        cdef int number = index(sig)
        with cython.critical_section(self.engine):
            if self.is_live():
                fsp_job_signal(self.c, group, number)

    cdef deliver_chunks(self, fsp_chunk *chunk):
        """Every chunk is freed, whatever the sink does."""
        cdef fsp_chunk *next
        cdef bytes data
        while chunk != NULL:
            data = PyBytes_FromStringAndSize(chunk.data, <Py_ssize_t>chunk.len)
            stream = chunk.stream
            next = chunk.next
            free(chunk)
            chunk = next
            with cython.critical_section(self.engine):
                if self.paused[stream]:
                    self.unconsumed[stream] += <size_t>len(data)
                else:
                    fsp_job_consumed(self.c, stream, <size_t>len(data))
            try:
                if stream == 0:
                    self.sink.on_output(data)
                else:
                    self.sink.on_errors(data)
            except BaseException as exc:
                self.engine.failed(exc)

    cdef settle(self):
        """Copy how it ended, and let C go."""
        cdef fsp_outcome *o = fsp_job_outcome(self.c)
        cdef fsp_job *c
        with cython.critical_section(self.engine):
            c = self.c
            self.c = NULL
        self.output = self.errors = b""
        try:
            self.output = PyBytes_FromStringAndSize(o.output[0].data, <Py_ssize_t>o.output[0].len)
            self.errors = PyBytes_FromStringAndSize(o.output[1].data, <Py_ssize_t>o.output[1].len)
        except MemoryError as exc: # it ends all the same
            self.error = exc
        self.timed_out = o.timed_out
        self.truncated = o.truncated
        self.cancelled = o.cancelled
        self.lost = o.status.lost
        self.spare = o.spare
        self.wall = o.wall * 1e-9
        self.status = o.status
        if o.pid > 0:
            if self.pid is None:
                self.pid = o.pid
            # What asyncio reports for a child that someone else reaped.
            self.returncode = 255 if o.status.lost else o.status.code
        elif o.timed_out: # while it waited for a template process
            self.returncode = o.status.code
        if o.error.err:
            self.error = self.plan.error(&o.error)
        self.input = None
        fsp_job_free(c)

    cdef hear(self, fsp_news *news):
        cdef bint ended = news.ended, drained = news.drained
        cdef fsp_chunk *chunks = news.chunks
        news.chunks = NULL
        if news.started:
            self.pid = fsp_job_outcome(self.c).pid
            try:
                self.sink.on_start(self)
            except BaseException as exc:
                self.engine.failed(exc)
        if chunks != NULL:
            if self.pid is None:
                self.pid = fsp_job_outcome(self.c).pid
            self.deliver_chunks(chunks)
        if drained and not ended:
            try:
                self.sink.on_drain()
            except BaseException as exc:
                self.engine.failed(exc)
        if not ended:
            return
        self.settle()
        with cython.critical_section(self.engine):
            sink = self.sink
            self.sink = None
            self.engine.live -= 1
        Py_DECREF(self)
        try:
            sink.on_exit(self)
        except BaseException as exc:
            self.engine.failed(exc)
        if self.engine.live == 0:
            self.engine.quiet()


cdef class Origin:
    """Where a job's child may come from, if not from an exec."""


cdef class EngineCore:
    """Spawner threads and the way back from them; see fastspawn.Engine."""

    def __cinit__(self):
        self.watching = set()

    def check_running(self):
        """Raise RuntimeError if the engine does not run in this process."""
        if self.c == NULL:
            raise RuntimeError("the engine is not running")
        if fsp_engine_forked(self.c):
            raise RuntimeError("the engine belongs to the process that forked this one")

    def _open(self, unsigned spawners):
        """Start the threads; returns the descriptor that becomes readable with news."""
        cdef int r
        cdef fsp_engine *c = NULL
        if self.c != NULL:
            raise RuntimeError("the engine is running already")
        check_way()
        with nogil:
            r = fsp_engine_new(spawners, NULL, &c)
        if r < 0:
            raise OSError(-r, os.strerror(-r))
        self.c = c
        return fsp_engine_fd(c)

    def _stop(self):
        """Kill what runs and refuse what comes; each job still ends."""
        with cython.critical_section(self):
            if self.c != NULL:
                fsp_engine_stop(self.c)

    def _free(self):
        """Wait for the threads (and, before that, for killed children)."""
        cdef fsp_engine *c
        with cython.critical_section(self):
            c = self.c
            self.c = NULL
        with nogil:
            fsp_engine_free(c)

    def __dealloc__(self):
        # Jobs hold the engine, so there are none.
        fsp_engine_free(self.c)

    cdef failed(self, exc):
        """A sink raised: the rest of the batch still gets its news."""
        if isinstance(exc, Exception):
            self._on_error(exc)
        else:
            self.interrupt = exc

    def _on_error(self, exc):
        sys.excepthook(type(exc), exc, exc.__traceback__)

    cdef quiet(self):
        self._on_quiet()

    def _on_quiet(self):
        pass

    def _drain(self):
        """Tell every sink its news: the callback of the engine's descriptor."""
        cdef fsp_job *c
        cdef fsp_job *next
        cdef Job job
        cdef uint64_t told
        with cython.critical_section(self):
            if self.c == NULL:
                return
            c = fsp_engine_take(self.c)
            told = fsp_engine_told(self.c)
        while c != NULL:
            next = fsp_job_next(c)
            job = <Job>fsp_job_user(c)  # a reference of our own: hear() drops submit()'s
            job.hear(fsp_job_news(c))
            c = next
        if told != self.told:
            self.told = told
            for callback in list(self.watching):
                callback()
        if self.interrupt is not None:
            exc, self.interrupt = self.interrupt, None
            raise exc

    def submit(self, Plan command not None, sink, input=None, bint stream=True,
               bint notify=False, Origin template=None, bint spare=False):
        """Hand over a command; never blocks, and reports spawn failures through the sink.

        input: bytes for stdin, None for /dev/null, STREAM for Job.write(), INHERIT, or a
        Terminal (without a template). With stream, the output of a child that lives longer than 10 ms or writes more than 64 KiB goes to
        sink.on_output and sink.on_errors as it comes; without, all of it is in the job at
        on_exit. With notify, sink.on_start(job) is called when it runs. sink.on_exit(job) is
        called exactly once, last. With a template, the child is a fork of that. A spare (whose
        input is STREAM) runs ahead of its request: see Job.adopt().

        Raises RuntimeError when the engine does not run (here).
        """
        cdef fsp_job_options options = command.options
        cdef Job job = Job.__new__(Job)
        cdef int r
        if self.c == NULL or fsp_engine_forked(self.c):
            self.check_running()
        if input is None:
            options.in_ = FSP_IO_NULL
        elif input is STREAM:
            options.in_ = FSP_IO_PIPE
            options.flags |= FSP_JOB_FEED
        elif input is INHERIT:
            options.in_ = FSP_IO_INHERIT
        elif type(input) is Terminal:
            options.in_ = FSP_IO_TERMINAL
            options.flags |= FSP_JOB_FEED
            options.size = (<Terminal>input).size
        else:
            if type(input) is not bytes:
                input = bytes(memoryview(input))
            options.in_ = FSP_IO_PIPE
            options.input = PyBytes_AS_STRING(input)
            options.input_len = <size_t>PyBytes_GET_SIZE(input)
        if stream:
            options.flags |= FSP_JOB_STREAM
        if notify:
            options.flags |= FSP_JOB_STARTED
        if spare:
            options.flags |= FSP_JOB_SPARE
        options.user = <void *>job
        job.engine = self
        job.plan = command
        job.sink = sink
        job.input = input
        with cython.critical_section(self, self if template is None else template):
            if template is not None:
                options.snapshot = template.c
                options.reset = template.residents
            r = -EPIPE if self.c == NULL else fsp_engine_submit(
                self.c, command.get(), &options, &job.c)
            if r >= 0:
                Py_INCREF(job)
                self.live += 1
        if r == -ENOMEM:
            raise MemoryError()
        if r == -EINVAL:
            raise ValueError("a job on a terminal cannot be a fork")
        if r == -errno.ENOTSUP:
            raise NotImplementedError("terminals are for Linux only")
        if r < 0:
            raise RuntimeError("the engine is closing")
        return job

    @property
    @cython.critical_section
    def stats(self):
        """A dict: children started, jobs finished, spawns retried, jobs running and pending,
        spawner threads, and how many of them own their descriptor table."""
        cdef fsp_engine_stats s
        if self.c == NULL:
            return {}
        fsp_engine_get_stats(self.c, &s)
        return {
            "started": s.started, "finished": s.finished, "retried": s.retried,
            "running": s.running, "pending": s.pending, "spawners": s.spawners,
            "private_tables": s.private_tables,
        }
