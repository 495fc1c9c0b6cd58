"""What the end of a program needs of C that has come to a checkpoint (_checkpoint/ending.py)."""

import atexit
import gc
import sys

from libc.stdlib cimport getenv


cdef extern from "ending.h":
    void fsp_record_exits(object)
    bint fsp_record_sys_exit(object, object)
    void fsp_forget_outermost()
    void fsp_start_recording()
    object fsp_get_latest_exit()
    object fsp_get_exit_at()

    int fsp_exit_at_once() nogil
    bint fsp_has_finalizer(object)
    bint fsp_has_one_thread()


cdef extern from "Python.h":
    void PyObject_CallFinalizer(object)
    void PyErr_SetObject(object, object)
    void PyErr_Print()
    void PyErr_Clear()
    void PyErr_WriteUnraisable(object)
    int Py_MakePendingCalls() except -1
    void *PyEval_GetFrame()


cdef extern from "<stdio.h>" nogil:
    ctypedef struct FILE
    int fflush(FILE *)


cdef extern from "<unistd.h>" nogil:
    void _exit(int)


# ---- how the program ends ----

cdef void start_recording() noexcept:
    fsp_start_recording()


def _record_exits(type kind not None):
    """In a fork remember the latest instance of this subclass of SystemExit (or itself)."""
    fsp_record_exits(kind)


def _record_sys_exit(function, outermost):
    """The same for sys.exit and the outermost frame; false if it is not the one known here."""
    return fsp_record_sys_exit(function, outermost)


def _forget_outermost():
    """Let the frame go: its globals live as long, and the program's streams in them."""
    fsp_forget_outermost()


def _leave(int status):
    """Flush C's streams and end the process."""
    with nogil:
        fflush(NULL)
        _exit(status)


def _leave_by(exc not None):
    """Let the interpreter handle this SystemExit, while it finalizes: it ends the process then.

    It prints what is no number to sys.stderr, as it did when the program ended by this.
    """
    fsp_exit_at_once()
    PyErr_SetObject(type(exc), exc)
    PyErr_Print()


cdef class _Outermost:
    """The outermost frame, at whose end the interpreter's begins.

    ``returns``: the opcodes that end it without an exception.
    """

    cdef object frame, code, returns

    def __init__(self, frame, returns):
        self.frame = frame
        self.code = frame.f_code.co_code
        self.returns = returns

    def status(self, shown):
        """What the process ends with: a number, or the SystemExit that the interpreter makes one
        of; None: not known.  ``shown()`` is what it has shown last."""
        cdef int last = self.frame.f_lasti
        if (<bytes>self.code)[last] in self.returns:
            return 0
        error = shown()
        exit = fsp_get_latest_exit()
        if exit is None:
            return 1 if isinstance(error, Exception) and self.was_left_by(error, last) else None
        if error is None and self.was_exit(exit, last) and _is_plain(exit):
            return exit
        return None

    cdef bint was_left_by(self, BaseException error, int last) except -1:
        """... so that nothing ran after it?"""
        trace = error.__traceback__
        return trace is not None and trace.tb_frame is self.frame and trace.tb_lasti == last

    cdef bint was_exit(self, exit, int last) except -1:
        """The same of one that only a handler would have given a traceback.  Before Python 3.12
        f_lasti is noted where sys.exit() makes it."""
        raised_at = fsp_get_exit_at()
        if raised_at is None:
            return self.was_left_by(exit, last)
        return exit.__traceback__ is None and raised_at == last


cdef bint _is_plain(exit) except -1:
    """Nothing of the program's own runs when the interpreter looks at it once more."""
    if getattr(type(exit), "code", None) is not SystemExit.code:
        return False
    code = exit.code
    return code is None or isinstance(code, int) or type(code) is str


cdef dict _of_sys = vars(sys)


def _shown():
    """The exception that the interpreter has shown last (sys.last_exc; last_value before 3.12)."""
    error = _of_sys.get("last_exc")
    return _of_sys.get("last_value") if error is None else error


def _inspects():
    """Does the interpreter go on to ask for more (Py_RunMain)?"""
    cdef const char *inspect = getenv(b"PYTHONINSPECT")
    return inspect != NULL and inspect[0] != b"\0"


# ---- what is to be done at its end ----

cdef object _get_objects = gc.get_objects
cdef object _count_handlers = atexit._ncallbacks
cdef list _callbacks = gc.callbacks
cdef object _get_trace = sys.gettrace, _get_profile = sys.getprofile
cdef object _get_tool = sys.monitoring.get_tool if hasattr(sys, "monitoring") else None


def _made_below():
    """What was made below the checkpoint and has a finalizer (tp_finalize), as it was made: what
    the collector sees is all that is not frozen."""
    return [
        thing
        for generation in (2, 1, 0)
        for thing in <list?>_get_objects(generation)
        if fsp_has_finalizer(thing)
    ]


cdef bint _made_nothing() except -1:
    """... nothing of the kind: so in most requests."""
    for thing in <list?>_get_objects():
        if fsp_has_finalizer(thing):
            return False
    return True


cdef bint _is_watched() except -1:
    """Does a tracer, a profiler or the like see what the interpreter runs?"""
    if _get_trace() is not None or _get_profile() is not None:
        return True
    return _get_tool is not None and any([_get_tool(i) is not None for i in range(6)])


cdef bint _flush(stream) except -1:
    """False: it fails."""
    try:
        stream.flush()
    except Exception:
        return False
    return True


cdef class _AtExit:
    """The last exit handler: the interpreter flushes its streams next, and then it collects.

    If there is nothing to do but to flush, the process ends here; else ``otherwise()`` is called.
    ``streams``: what sys.stdout and sys.stderr were at the checkpoint (None: there may be more to
    flush). ``callback``: our own of the collector.
    """

    cdef _Outermost outermost
    cdef object stdout, stderr
    cdef object callback, otherwise
    cdef Py_ssize_t handlers

    def __init__(self, _Outermost outermost, tuple streams, callback, otherwise):
        self.outermost = outermost
        self.stdout, self.stderr = streams or (None, None)
        self.callback = callback
        self.otherwise = otherwise

    def register(self, list others not None):
        """In a fork; with those that run at the end of each."""
        atexit._clear()
        atexit.register(self)
        for handler in others:
            atexit.register(handler)
        self.handlers = 1 + len(others)

    def __call__(self):
        if PyEval_GetFrame() != NULL:
            return  # it is the program that calls them
        if self.is_idle():
            self.leave()
        self.otherwise()

    cdef bint is_idle(self) except -1:
        """Handlers of the program's own may hold what goes when they do, right after this; its own
        callbacks of the collector are to hear of the collection."""
        if self.stdout is None or _count_handlers() != self.handlers:
            return False
        if len(_callbacks) != 1 or _callbacks[0] is not self.callback:
            return False
        if _of_sys.get("stdout") is not self.stdout or _of_sys.get("stderr") is not self.stderr:
            return False
        return fsp_has_one_thread() and not _is_watched() and not _inspects() and _made_nothing()

    cdef leave(self):
        """Returns if the status is not known, or if flushing fails."""
        status = self.outermost.status(_shown)
        if isinstance(status, SystemExit):
            status = _number_of(status)
        if status is not None and _flush(self.stdout) and _flush(self.stderr):
            _leave(status)


cdef _number_of(exit):
    """The status for this code, if that is simple."""
    code = exit.code
    if code is None:
        return 0
    return int(code) if type(code) is int and code in _NUMBERS else None


cdef object _NUMBERS = range(-(1 << 31), 1 << 31)


# ---- before the exit handlers ----

cdef class _AtShutdown:
    """threading._shutdown, which the interpreter calls first of all at its end.

    If that and all exit handlers have nothing to do, the process ends here.  ``general``: those that
    run at the end of each fork, of the standard library.
    """

    cdef _AtExit at_exit
    cdef readonly object original
    cdef list atexits
    cdef object registry  # weakref.finalize's, if its handler is there
    cdef _Logging logging
    cdef bint is_known

    def __init__(self, _AtExit at_exit, threading, list general not None):
        self.at_exit = at_exit
        self.original = threading._shutdown
        self.atexits = getattr(threading, "_threading_atexits", [None])
        self.is_known = True
        for handler in general:
            try:
                self.know(handler)
            except AttributeError:
                self.is_known = False

    cdef know(self, handler):
        logging = sys.modules.get("logging")
        finalize = sys.modules["weakref"].finalize
        if handler == finalize._exitfunc:
            self.registry = finalize._registry
        elif handler is getattr(logging, "shutdown", None):
            self.logging = _Logging(logging)
        else:
            self.is_known = False

    def __call__(self):
        if PyEval_GetFrame() == NULL:
            PyErr_Clear()  # a SystemExit that cannot be told leaves its error, from Python 3.12 on
            self.try_to_leave()
        return self.original()

    cdef try_to_leave(self):
        if self.is_known:
            try:
                Py_MakePendingCalls()  # the interpreter does so before its exit handlers
            except BaseException as error:
                PyErr_SetObject(type(error), error)
                PyErr_WriteUnraisable(self)
            if self.is_idle() and (self.logging is None or _flush(self.at_exit.stderr)):
                self.at_exit.leave()

    cdef bint is_idle(self) except -1:
        if self.atexits or self.registry or not self.at_exit.is_idle():
            return False
        return self.logging is None or self.logging.is_idle()


cdef class _Logging:
    """logging.shutdown() flushes standard error and does nothing else as long as there is no handler
    but the one of last resort, as it was made."""

    cdef list handlers
    cdef object last
    cdef dict own
    cdef Py_ssize_t size
    cdef type kind
    cdef list methods

    def __init__(self, logging):
        self.handlers = logging._handlerList
        self.last = logging.lastResort
        self.kind = logging._StderrHandler
        self.own = vars(self.last)
        self.size = len(self.own)
        self.methods = [getattr(self.kind, name) for name in _METHODS]

    cdef bint is_idle(self) except -1:
        if len(self.handlers) != 1 or self.handlers[0]() is not self.last:
            return False
        if type(self.last) is not self.kind or len(self.own) != self.size:
            return False
        return [getattr(self.kind, name) for name in _METHODS] == self.methods


cdef tuple _METHODS = ("acquire", "flush", "close", "release")


# ---- at the collection ----

cdef class _AtCollection:
    """A callback of the collector, without a frame of its own: as if it were the collector.

    ``begin(phase)`` gives what is to be finalized (tp_finalize, once in a life), and ``end()``
    follows; None: nothing is to do.
    """

    cdef object begin, end

    def __init__(self, begin, end):
        self.begin = begin
        self.end = end

    def __call__(self, str phase, info):
        cdef list things = self.begin(phase)
        if things is None:
            return
        for thing in things:
            PyObject_CallFinalizer(thing)
        del things
        self.end()
