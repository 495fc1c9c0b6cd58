"""The binding of the C core (csrc/fastspawn.h): plans, the caller's path, the engine's path.

It converts, and keeps objects alive for as long as C looks at them; what a program should use
is built on it in command.py and engine.py.
"""

import errno
import os
import resource
import stat
import subprocess as _subprocess
import sys
from subprocess import DEVNULL as _DEVNULL
from subprocess import PIPE as _PIPE
from subprocess import STDOUT as _STDOUT

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EACCES, EINTR, EINVAL, EMFILE, ENFILE, ENOMEM, ENOTDIR
from libc.math cimport ceil
from libc.stdlib cimport free
from libc.string cimport memchr, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

from fastspawn._cfastspawn cimport *

cdef extern from "Python.h":
    bytes PyUnicode_EncodeFSDefault(object text)

cdef extern from *:
    """
    #ifdef __APPLE__
    #include <crt_externs.h>
    #define FSP_ENVIRON (*_NSGetEnviron())
    #else
    #include <unistd.h>
    extern char **environ;
    #define FSP_ENVIRON environ
    #endif
    """
    char **FSP_ENVIRON


cdef extern from "<limits.h>":
    size_t NGROUPS_MAX


cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
    int poll(pollfd *fds, unsigned long n, int timeout)
    short POLLIN


class _Stream:
    """The type of STREAM."""

    def __repr__(self) -> str:
        return "fastspawn.STREAM"


STREAM = _Stream()

cdef enum:
    PATH_SIZE = 4096
    MAX_WAIT = 3600000 # ms at a time
    NS = 1000000000


cdef uint64_t nanoseconds(object seconds) except? 0:
    """0 is "none" where C has that meaning; a shorter positive time is the shortest there."""
    if seconds is None:
        return 0
    cdef double value = seconds
    if not value >= 0:
        raise ValueError(f"a time must not be negative: {seconds!r}")
    if value >= 1e10:
        return <uint64_t>1e19
    return <uint64_t>(value * NS)


cdef uint64_t monotonic() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * NS + <uint64_t>now.tv_nsec


# ---- plans -------------------------------------------------------------------------------------


cdef class _Strings:
    """A NULL-terminated char*[] and the bytes objects that it points into."""

    cdef list items
    cdef const char **array

    def __cinit__(self, list items):
        cdef Py_ssize_t i
        self.items = items
        self.array = <const char **>PyMem_Malloc((len(items) + 1) * sizeof(char *))
        if self.array == NULL:
            raise MemoryError()
        for i in range(len(items)):
            self.array[i] = PyBytes_AS_STRING(items[i])
        self.array[len(items)] = NULL

    def __dealloc__(self):
        PyMem_Free(self.array)


cdef bytes _encode(value):
    """os.fsencode, refusing what execve would cut short."""
    cdef bytes data
    if type(value) is str:
        data = PyUnicode_EncodeFSDefault(value)
    elif type(value) is bytes:
        data = value
    else:
        data = os.fsencode(value)
    if memchr(PyBytes_AS_STRING(data), 0, <size_t>PyBytes_GET_SIZE(data)) != NULL:
        raise ValueError("embedded null byte")
    return data


def _encode_env(env):
    entries = []
    for key, value in env.items():
        key = _encode(key)
        if b"=" in key or not key:
            raise ValueError("illegal environment variable name")
        entries.append(key + b"=" + _encode(value))
    return entries


cdef bytes _search(env):
    """The directories that a program without a slash is looked for in, as os.get_exec_path says."""
    cdef object path = None
    environ = os.environ if env is None else env
    if type(environ) is _Environ:
        # Past its mapping, which runs a lot of Python for what is a bytes object in a dict.
        path = environ._data.get(b"PATH")
    elif type(environ) is dict and not _bytes_warning and b"PATH" not in environ:
        path = environ.get("PATH")
    if type(path) is bytes:
        return path
    if type(path) is str:
        return PyUnicode_EncodeFSDefault(path)
    return b":".join([os.fsencode(directory) for directory in os.get_exec_path(env)])


cdef object _Environ = type(os.environ)
cdef bint _bytes_warning = sys.flags.bytes_warning > 0

# Until 3.11.7 and 3.12.1 the standard library takes whatever fails before the exec for a failure
# to enter the working directory.
cdef bint _names_cwd = "noexec:chdir" not in _subprocess.Popen._execute_child.__code__.co_consts


cdef fsp_io _io(object how, bint is_err) except *:
    if how is None:
        return FSP_IO_INHERIT
    if how == _PIPE:
        return FSP_IO_PIPE
    if how == _DEVNULL:
        return FSP_IO_NULL
    if how == _STDOUT and is_err:
        return FSP_IO_STDOUT
    raise ValueError(
        f"{'stderr' if is_err else 'stdout'} must be None, PIPE, DEVNULL"
        f"{' or STDOUT' if is_err else ''}, not {how!r}"
    )


cdef _enter(cwd):
    """Raise what chdir() would."""
    try:
        mode = os.stat(cwd).st_mode
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, cwd) from None
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), cwd)
    if not os.access(cwd, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(EACCES, os.strerror(EACCES), cwd)


cdef class Plan:
    """What to run, flattened once: immutable, reusable from any thread.

    Raises ValueError for an empty argv, an embedded null byte or an illegal environment name,
    TypeError for values that are no str, bytes or path.
    """

    cdef fsp_plan *c
    cdef fsp_job_options options
    cdef readonly object executable
    cdef readonly object cwd
    cdef readonly object cgroup

    def __init__(
        self, argv, *, executable=None, env=None, cwd=None, pass_fds=(), close_fds=True,
        restore_signals=True, start_new_session=False, process_group=None, umask=-1,
        rlimits=(), user=None, group=None, extra_groups=None, stdout=_PIPE, stderr=_PIPE,
        timeout=None, kill_grace=0, drain=0, max_output=None, cgroup=None, no_new_privs=False,
        death_signal=0,
    ):
        if self.c != NULL:
            raise TypeError("a plan cannot be initialized twice")
        if isinstance(argv, (str, bytes, os.PathLike)):
            raise TypeError("argv must be a sequence of arguments, not a single one")
        cdef fsp_spec spec
        memset(&spec, 0, sizeof(spec))
        spec.uid = FSP_ID_NONE if user is None else <uint32_t>user
        spec.gid = FSP_ID_NONE if group is None else <uint32_t>group
        spec.umask = umask
        spec.pgroup = 0 if process_group is None else process_group
        if close_fds:
            spec.flags |= FSP_FLAG_CLOSE_FDS
        if restore_signals:
            spec.flags |= FSP_FLAG_RESTORE_SIGNALS
        if start_new_session:
            spec.flags |= FSP_FLAG_SETSID
        if process_group is not None:
            spec.flags |= FSP_FLAG_SETPGROUP
        if no_new_privs:
            spec.flags |= FSP_FLAG_NO_NEW_PRIVS
        spec.death_signal = death_signal
        cdef bytes procs
        if cgroup is not None:
            procs = _encode(cgroup) + b"/cgroup.procs"
            spec.cgroup = PyBytes_AS_STRING(procs)
            self.cgroup = cgroup
        self._options(stdout, stderr, timeout, kill_grace, drain, max_output)
        cdef list args = list(argv)
        self._make(&spec, args, executable, env, cwd, list(pass_fds), list(rlimits), extra_groups)

    cdef _simple(self, list argv, executable, env, cwd):
        """As __init__ with nothing else: none of it is looked at."""
        cdef fsp_spec spec
        memset(&spec, 0, sizeof(spec))
        spec.uid = spec.gid = FSP_ID_NONE
        spec.umask = -1
        spec.flags = FSP_FLAG_CLOSE_FDS | FSP_FLAG_RESTORE_SIGNALS
        self._flatten(&spec, argv, executable, env, cwd)

    cdef _options(self, stdout, stderr, timeout, kill_grace, drain, max_output):
        if max_output is not None and max_output <= 0:
            raise ValueError("max_output must be positive")
        self.options.out = _io(stdout, False)
        self.options.err = _io(stderr, True)
        self.options.limits.timeout = nanoseconds(timeout)
        if timeout is not None and self.options.limits.timeout == 0:
            self.options.limits.timeout = 1
        self.options.limits.kill_grace = nanoseconds(kill_grace)
        self.options.limits.drain = nanoseconds(drain)
        self.options.limits.max_output = 0 if max_output is None else max_output

    cdef _flatten(self, fsp_spec *spec, list argv, executable, env, cwd):
        """Make the plan; what spec has so far is only to be pointed to until then."""
        cdef list args = [_encode(arg) for arg in argv]
        if not args:
            raise ValueError("argv must not be empty")
        cdef _Strings c_argv = _Strings(args)
        cdef _Strings c_envp = None if env is None else _Strings(_encode_env(env))
        cdef bytes file = args[0] if executable is None else _encode(executable)
        cdef bytes search = _search(env)
        cdef bytes directory = None if cwd is None else _encode(cwd)
        spec.file = PyBytes_AS_STRING(file)
        spec.argv = c_argv.array
        # Without env what execv() would pass on, os.putenv() included. It changes only under the
        # GIL, and is copied before that is let go.
        spec.envp = <const char **>FSP_ENVIRON if env is None else c_envp.array
        spec.search = PyBytes_AS_STRING(search)
        if directory is not None:
            spec.cwd = PyBytes_AS_STRING(directory)
        self.executable = argv[0] if executable is None else executable
        self.cwd = cwd
        cdef int r = fsp_plan_new(spec, &self.c)
        if r == -errno.ENOTSUP:
            raise NotImplementedError("cgroup, no_new_privs and death_signal are for Linux only")
        if r < 0:
            raise MemoryError()

    cdef _make(
        self, fsp_spec *spec, list argv, executable, env, cwd, list keep, list rlimits, groups
    ):
        cdef size_t i, ngroups = 0 if groups is None else len(groups)
        cdef size_t nkeep = len(keep), nrlimits = len(rlimits)
        if ngroups > NGROUPS_MAX:
            raise ValueError("too many extra_groups")
        cdef size_t size = nrlimits * sizeof(fsp_rlimit) + (ngroups + nkeep) * sizeof(int)
        cdef fsp_rlimit *c_rlimits = <fsp_rlimit *>PyMem_Malloc(size + 1)
        cdef uint32_t *c_groups
        cdef int *c_keep
        if c_rlimits == NULL:
            raise MemoryError()
        try:
            c_groups = <uint32_t *>(c_rlimits + nrlimits)
            c_keep = <int *>(c_groups + ngroups)
            for i in range(nrlimits):
                which, (soft, hard) = rlimits[i]
                c_rlimits[i].resource = which
                c_rlimits[i].value.rlim_cur = <rlim_t><long long>soft
                c_rlimits[i].value.rlim_max = <rlim_t><long long>hard
            for i in range(ngroups):
                c_groups[i] = groups[i]
            for i in range(nkeep):
                c_keep[i] = keep[i]
                if c_keep[i] < 0:
                    raise ValueError(f"bad value(s) in fds_to_keep: {keep[i]!r}")
            spec.rlimits = c_rlimits
            spec.nrlimits = nrlimits
            spec.groups = NULL if groups is None else c_groups
            spec.ngroups = ngroups
            spec.keep_fds = c_keep
            spec.nkeep_fds = nkeep
            self._flatten(spec, argv, executable, env, cwd)
        finally:
            PyMem_Free(c_rlimits)

    def __dealloc__(self):
        fsp_plan_unref(self.c)

    @property
    def pipes(self):
        """Whether stdout and stderr are pipes of their own."""
        return (self.options.out == FSP_IO_PIPE, self.options.err == FSP_IO_PIPE)

    def resolve(self):
        """The path that a spawn would execute now.

        Raises the OSError that it would give for a program that is missing or may not be
        executed, or for a working directory that cannot be entered.
        """
        cdef char path[PATH_SIZE]
        cdef fsp_plan *plan = self.get()
        if self.cwd is not None:
            _enter(self.cwd)
        cdef int n
        with nogil:
            n = fsp_plan_resolve(plan, 0, path, sizeof(path))
        if n < 0:
            raise OSError(-n, os.strerror(-n), self.executable)
        return os.fsdecode(path[:n])

    def environment(self):
        """The environment it was made with, as a dict of bytes."""
        cdef dict env = {}
        for entry in _list(fsp_plan_environment(self.get())):
            name, equals, value = entry.partition(b"=")
            if equals and name:
                env.setdefault(name, value)
        return env

    cdef fsp_plan *get(self) except NULL:
        if self.c == NULL:
            raise ValueError("the plan was not initialized")
        return self.c

    cdef object error(self, const fsp_error *e):
        """What subprocess raises for the same failure (its _execute_child)."""
        if e.stage == FSP_STAGE_EXEC:
            return OSError(e.err, os.strerror(e.err), self.executable)
        if e.stage == FSP_STAGE_CWD:
            return OSError(e.err, os.strerror(e.err), self.cwd)
        if e.stage == FSP_STAGE_CGROUP:
            return OSError(e.err, os.strerror(e.err), self.cgroup)
        if _names_cwd and e.stage > FSP_STAGE_CLONE:
            return OSError(e.err, os.strerror(e.err), self.cwd)
        return OSError(e.err, os.strerror(e.err))


# ---- the caller's path -------------------------------------------------------------------------


cdef object _rusage(const rusage *u):
    return resource.struct_rusage((
        u.ru_utime.tv_sec + u.ru_utime.tv_usec * 1e-6,
        u.ru_stime.tv_sec + u.ru_stime.tv_usec * 1e-6,
        u.ru_maxrss, u.ru_ixrss, u.ru_idrss, u.ru_isrss, u.ru_minflt, u.ru_majflt, u.ru_nswap,
        u.ru_inblock, u.ru_oublock, u.ru_msgsnd, u.ru_msgrcv, u.ru_nsignals, u.ru_nvcsw,
        u.ru_nivcsw,
    ))


cdef class Child:
    """A child of the caller's, to be waited for by the caller.

    Its descriptor is closed when its end is known and nobody waits on it any more.
    """

    cdef fsp_child c
    cdef fsp_status status
    cdef bint ended
    cdef unsigned users
    """who waits on the descriptor: threads, and event loops"""
    cdef bint held
    """among those whose descriptors let_go() looks at"""
    cdef void *older
    cdef void *newer
    cdef readonly int pid
    cdef readonly int pidfd

    def __cinit__(self):
        self.c.pid = self.c.pidfd = self.pid = self.pidfd = -1

    def __dealloc__(self):
        # Dropped before its end was waited for.
        self.close()

    cdef void begin(self, fsp_child c) noexcept:
        self.c = c
        self.pid = c.pid
        self.pidfd = c.pidfd

    cdef void close(self) noexcept:
        release(self)
        if self.c.pidfd >= 0:
            close(self.c.pidfd)
        self.c.pidfd = -1

    cdef void end(self, const fsp_status *status) noexcept:
        # Of two threads that waited, one may have come too late.
        if not self.ended or self.status.lost:
            self.status = status[0]
        self.ended = True
        self.c.pid = self.pidfd = -1
        self.tidy()

    cdef void tidy(self) noexcept:
        if self.ended and self.users == 0:
            self.close()

    def wait(self, bint block=True):
        """The return code (negative: the signal), or None if it still runs and block is false."""
        cdef fsp_child c = self.c
        cdef fsp_status status
        cdef int r
        if not self.ended:
            self.users += 1
            with nogil:
                r = fsp_reap(&c, block, &status)
            self.users -= 1
            self.tidy()
            if r == 1:
                self.end(&status)
            elif not self.ended:
                if r < 0:
                    raise OSError(-r, os.strerror(-r))
                return None
        return self.status.code

    def await_end(self, double timeout):
        """Wait, at most timeout seconds, until it has ended; or until a signal was handled.

        At once where there is no descriptor.
        """
        cdef pollfd fd
        cdef int ms = <int>ceil(min(max(timeout, 0) * 1000, <double>MAX_WAIT))
        if self.pidfd < 0:
            return
        fd.fd = self.c.pidfd
        fd.events = POLLIN
        self.users += 1
        with nogil:
            poll(&fd, 1, ms)
        self.users -= 1
        self.tidy()
        PyErr_CheckSignals()

    def watch(self):
        """Its descriptor, which stays open until unwatch(); -1 if there is none any more."""
        if self.pidfd >= 0:
            self.users += 1
        return self.pidfd

    def unwatch(self):
        """Once for each watch() that returned a descriptor."""
        self.users -= 1
        self.tidy()

    @property
    def gone(self):
        """True once it is known to have been reaped: its pid may be someone else's."""
        return self.ended

    @property
    def lost(self):
        """True if someone else reaped the child, and the kernel does not know its status.

        It does since Linux 6.15.
        """
        return bool(self.ended and self.status.lost)

    @property
    def rusage(self):
        """resource.struct_rusage, once it has ended; zero if someone else reaped it."""
        return _rusage(&self.status.usage) if self.ended else None

    def kill(self, int sig, bint group=False):
        """Send a signal; ProcessLookupError once it has been reaped."""
        cdef int r = fsp_kill(&self.c, group, sig)
        if r < 0:
            raise OSError(-r, os.strerror(-r))


# Children that a Popen holds.  Someone else may reap them, and nobody ever ask for them again: so
# that their descriptors go, they are looked at when there are twice as many as were left last time.

cdef enum:
    HELD_FIRST = 16

cdef void *newest = NULL
cdef Py_ssize_t n_held = 0
cdef Py_ssize_t look_at = HELD_FIRST


cdef void hold(Child child) noexcept:
    global newest, n_held
    if child.c.pidfd < 0:
        return
    if n_held >= look_at:
        let_go()
    child.older = newest
    if newest != NULL:
        (<Child>newest).newer = <void *>child
    newest = <void *>child
    child.held = True
    n_held += 1


cdef void release(Child child) noexcept:
    global newest, n_held
    if not child.held:
        return
    child.held = False
    n_held -= 1
    if child.older != NULL:
        (<Child>child.older).newer = child.newer
    if child.newer != NULL:
        (<Child>child.newer).older = child.older
    else:
        newest = child.older
    child.older = child.newer = NULL


cdef bint let_go() noexcept:
    """Close the descriptors of those that someone else reaped: were there any?"""
    global look_at
    cdef void *next = newest
    cdef Child child
    cdef fsp_status status
    cdef bint found = False
    while next != NULL:
        child = <Child>next
        next = child.older
        if fsp_look(&child.c, &status) == 1:
            child.end(&status)
            found = True
    look_at = max(HELD_FIRST, 2 * n_held)
    return found


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
    cdef Child child = Child.__new__(Child)
    cdef fsp_child begun
    cdef fsp_plan *c = plan.get()
    cdef int r
    if _backend_error is not None:
        raise ValueError(_backend_error)
    io.fd[0] = stdin
    io.fd[1] = stdout
    io.fd[2] = stderr
    with nogil:
        r = fsp_spawn(c, &io, 0, NULL, &begun, &error)
    if r < 0 and (error.err == EMFILE or error.err == ENFILE) and let_go():
        with nogil:
            r = fsp_spawn(c, &io, 0, NULL, &begun, &error)
    if r < 0:
        raise plan.error(&error)
    child.begin(begun)
    hold(child)
    return child


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
        cdef int r
        if self.c.child.pid < 0:
            raise ValueError("it has ended")
        self.fd = -1
        with nogil:
            r = fsp_start_end(&self.c, &begun, &error)
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
    if _backend_error is not None:
        raise ValueError(_backend_error)
    io.fd[0] = stdin
    io.fd[1] = stdout
    io.fd[2] = stderr
    # With the GIL, so that no other thread forks, and takes the other end of fd along.
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
    cdef Child child
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    child = Child.__new__(Child)
    child.begin(fsp_child(pid, pidfd))
    hold(child)
    return child


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
        if _backend_error is not None:
            raise ValueError(_backend_error)
        how[0] = _io(stdin, False)
        how[1] = _io(stdout, False)
        how[2] = _io(stderr, True)
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
        child.status = self.c.status
        child.ended = self.c.child.pid <= 0
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


def tells_stages():
    """Whether a failed spawn says what failed; if not, subprocess's own code has to find out."""
    return backend() != "posix_spawn"


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


# ---- the engine's path -------------------------------------------------------------------------


cdef class Job:
    """A command handed to an engine. Its sink hears of it on the event loop's thread."""

    cdef fsp_job *c
    cdef EngineCore engine
    cdef object sink
    cdef object input
    cdef bint paused[2]
    cdef size_t unconsumed[2]
    cdef fsp_status status
    cdef readonly Plan plan
    cdef readonly object pid
    """int once it runs, else None"""
    cdef readonly object returncode
    """int once it has ended (negative: the signal), else None"""
    cdef readonly bytes output
    """stdout that on_output did not get, once it has ended"""
    cdef readonly bytes errors
    """stderr that on_errors did not get, once it has ended"""
    cdef readonly object error
    """the OSError (or MemoryError) for which it did not run, or could not be collected"""
    cdef readonly bint timed_out
    cdef readonly bint truncated
    cdef readonly bint cancelled
    cdef readonly bint lost
    cdef readonly bint spare
    """it ended before adopt() reached it: whoever adopted it may try another"""
    cdef readonly double wall
    """seconds from spawn (or adoption) to reap"""

    @property
    def rusage(self):
        """resource.struct_rusage of the child, once it has ended."""
        return None if self.returncode is None else _rusage(&self.status.usage)

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
        r = fsp_job_write(self.c, view.buf, <size_t>view.len)
        PyBuffer_Release(&view)
        if r == -ENOMEM:
            raise MemoryError()
        if r < 0:
            raise OSError(-r, os.strerror(-r))
        return r == 0

    def write_eof(self):
        """Close stdin after what is queued."""
        if self.is_live():
            fsp_job_write_eof(self.c)

    def pause_reading(self, int stream=0):
        """Take no more output: at most 256 KiB more come to the sink, then the child waits."""
        self.paused[stream != 0] = True

    def resume_reading(self, int stream=0):
        """Go on after pause_reading()."""
        cdef int i = stream != 0
        self.paused[i] = False
        if self.unconsumed[i] and self.is_live():
            fsp_job_consumed(self.c, i, self.unconsumed[i])
        self.unconsumed[i] = 0

    def adopt(self, sink, bint notify=False):
        """Give a spare to a request: from now on the sink is told, and the time limits count.

        What goes to stdin is to be written after this. A spare that ended before is told by
        on_exit with spare true. With notify, on_start(job) says that it was in time.
        """
        self.sink = sink
        if self.is_live():
            fsp_job_adopt(self.c, notify)

    def cancel(self):
        """TERM to the process group, KILL after the grace; on_exit still comes."""
        if self.is_live():
            fsp_job_cancel(self.c)

    def send_signal(self, int sig, bint group=False):
        """Send a signal to the child, or to its group; does nothing once it has ended."""
        if self.is_live():
            fsp_job_signal(self.c, group, sig)

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
        cdef fsp_job *c = self.c
        self.output = PyBytes_FromStringAndSize(o.output[0].data, <Py_ssize_t>o.output[0].len)
        self.errors = PyBytes_FromStringAndSize(o.output[1].data, <Py_ssize_t>o.output[1].len)
        self.timed_out = o.timed_out
        self.truncated = o.truncated
        self.cancelled = o.cancelled
        self.lost = o.status.lost
        self.spare = o.spare
        self.wall = o.wall * 1e-9
        self.status = o.status
        if o.pid > 0:
            self.pid = o.pid
            # What asyncio reports for a child that someone else reaped.
            self.returncode = 255 if o.status.lost else o.status.code
        elif o.timed_out: # while it waited for a template process
            self.returncode = o.status.code
        if o.error.err:
            self.error = self.plan.error(&o.error)
        self.c = NULL
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
            self.deliver_chunks(chunks)
        if drained and not ended:
            try:
                self.sink.on_drain()
            except BaseException as exc:
                self.engine.failed(exc)
        if not ended:
            return
        sink = self.sink
        self.sink = None
        self.settle()
        self.engine.live -= 1
        Py_DECREF(self)
        try:
            sink.on_exit(self)
        except BaseException as exc:
            self.engine.failed(exc)
        if self.engine.live == 0:
            self.engine.quiet()


cdef class TemplateCore:
    """Processes of one plan, stopped before main, and forked on demand; see fastspawn.Template."""

    cdef fsp_template *c
    cdef EngineCore engine

    def _open(self, EngineCore engine not None, Plan plan not None, Plan start not None,
              bytes library, timeout, unsigned int flags):
        """Let every spawner of the engine start its process."""
        cdef int r
        if self.c != NULL:
            raise RuntimeError("the template is open already")
        engine.check_running()
        r = fsp_template_new(engine.c, plan.get(), start.get(), PyBytes_AS_STRING(library),
                             nanoseconds(timeout), flags, &self.c)
        if r < 0:
            raise OSError(-r, os.strerror(-r))
        self.engine = engine

    def _close(self):
        """End its processes; jobs that were submitted still end."""
        cdef fsp_template *c = self.c
        if c == NULL:
            return
        self.c = NULL
        fsp_template_free(c)

    def __dealloc__(self):
        if self.c != NULL:
            self._close()

    def _state(self):
        """(ready, failures, why it failed last, its OSError or None, its exit status)"""
        cdef fsp_template_state s
        if self.c == NULL:
            raise RuntimeError("the template is not open")
        fsp_template_get_state(self.c, &s)
        error = OSError(s.error.err, os.strerror(s.error.err)) if s.error.err else None
        return s.ready, s.failures, <int>s.why, error, s.status

    def _changed(self):
        """The file that last made a process stale; empty: none did."""
        cdef char buf[4096]
        if self.c == NULL:
            return b""
        return buf[:fsp_template_changed(self.c, buf, sizeof(buf))]

    def _no_checkpoint(self):
        """Why a fork that called checkpoint() could not become a template process; 0: none did."""
        cdef fsp_template_state s
        if self.c == NULL:
            return 0
        fsp_template_get_state(self.c, &s)
        return <int>s.no_checkpoint

    @property
    def stats(self):
        """A dict: template processes wanted and ready, jobs by fork and by exec, processes that
        died and were replaced, forks that became template processes at a checkpoint."""
        cdef fsp_template_state s
        if self.c == NULL:
            return {}
        fsp_template_get_state(self.c, &s)
        return {
            "processes": s.spawners, "ready": s.ready, "forked": s.forked, "direct": s.direct,
            "restarted": s.restarted, "checkpoints": s.checkpoints, "at_effect": s.at_effect,
            "stopped_by": s.stopped_by, "stale": s.stale, "useless": s.useless,
        }


# They are of the preloaded object (csrc/preload.c), and of no other program's.
cdef extern from *:
    """
    #ifdef __linux__
    extern int fastspawn_freeze(const char *const *files, int known, void (*before)(void),
                                void (*after)(void)) __attribute__((weak));
    extern int fastspawn_serve(void) __attribute__((weak));
    extern char *const *fastspawn_arguments(void) __attribute__((weak));
    #else
    #define fastspawn_freeze \
        ((int (*)(const char *const *, int, void (*)(void), void (*)(void)))NULL)
    #define fastspawn_serve ((int (*)(void))NULL)
    #define fastspawn_arguments ((char *const *(*)(void))NULL)
    #endif
    """
    int (*fastspawn_freeze)(
        const char *const *files, int known, void (*before)() noexcept, void (*after)() noexcept
    )
    int (*fastspawn_serve)()
    char *const *(*fastspawn_arguments)()


cdef extern from "Python.h":
    void PyOS_BeforeFork() noexcept
    void PyOS_AfterFork_Child()
    void PyOS_AfterFork_Parent() noexcept
    void PyObject_CallFinalizer(object)
    void PyErr_SetObject(object, object)
    void PyErr_Print()


# Every SystemExit is made by the tp_new of its type, whoever raises it; but before Python 3.12
# sys.exit() makes none unless someone catches it, so there it is let make one, and notes where the
# outermost frame was.
cdef extern from *:
    """
    typedef PyObject *(*fsp_fast_function)(PyObject *, PyObject *const *, Py_ssize_t);

    static newfunc fsp_new_exit;
    static fsp_fast_function fsp_sys_exit;
    static PyObject *fsp_outermost, *fsp_latest_exit, *fsp_exit_at;
    static int fsp_recording; /* not in a process that did not become a template */

    static PyObject *fsp_record_exit(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
        PyObject *exc = fsp_new_exit(type, args, kwargs);
        if (!fsp_recording) return exc;
        Py_XINCREF(exc);
        Py_XSETREF(fsp_latest_exit, exc);
        Py_CLEAR(fsp_exit_at);
        return exc;
    }

    static void fsp_record_exits(PyObject *type) {
        PyTypeObject *t = (PyTypeObject *)type;
        if (fsp_new_exit == NULL) fsp_new_exit = t->tp_new;
        if (t->tp_new == fsp_new_exit) t->tp_new = fsp_record_exit;
    }

    static PyObject *fsp_exit(PyObject *module, PyObject *const *args, Py_ssize_t n) {
        if (n > 1 || (n == 1 && (PyTuple_Check(args[0]) || PyExceptionInstance_Check(args[0]))))
            return fsp_sys_exit(module, args, n);
        PyObject *exc = PyObject_CallFunctionObjArgs(PyExc_SystemExit, n ? args[0] : NULL, NULL);
        if (exc) PyErr_SetObject(PyExc_SystemExit, exc);
        if (exc && fsp_latest_exit == exc) {
            PyObject *type, *value, *traceback;
            PyErr_Fetch(&type, &value, &traceback);
            Py_XSETREF(fsp_exit_at, PyObject_GetAttrString(fsp_outermost, "f_lasti"));
            PyErr_Restore(type, value, traceback);
        }
        Py_XDECREF(exc);
        return NULL;
    }

    /* All that refer to sys.exit share its definition.  0: it is not what it was. */
    static int fsp_record_sys_exit(PyObject *exit, PyObject *outermost) {
        if (PY_VERSION_HEX >= 0x030c0000) return 1;
        if (!PyCFunction_CheckExact(exit)) return 0;
        PyMethodDef *def = ((PyCFunctionObject *)exit)->m_ml;
        if (def->ml_flags != METH_FASTCALL) return 0;
        Py_INCREF(outermost);
        Py_XSETREF(fsp_outermost, outermost);
        if (fsp_sys_exit == NULL) {
            fsp_sys_exit = (fsp_fast_function)(void (*)(void))def->ml_meth;
            def->ml_meth = (PyCFunction)(void (*)(void))fsp_exit;
        }
        return 1;
    }

    static void fsp_forget_outermost(void) {
        Py_CLEAR(fsp_outermost);
    }

    static PyObject *fsp_get(PyObject *thing) {
        thing = thing ? thing : Py_None;
        Py_INCREF(thing);
        return thing;
    }
    #define fsp_start_recording() (fsp_recording = 1)
    #define fsp_get_latest_exit() fsp_get(fsp_latest_exit)
    #define fsp_get_exit_at() fsp_get(fsp_exit_at)
    """
    void fsp_record_exits(object)
    bint fsp_record_sys_exit(object, object)
    void fsp_forget_outermost()
    void fsp_start_recording()
    object fsp_get_latest_exit()
    object fsp_get_exit_at()


cdef extern from "<stdio.h>" nogil:
    ctypedef struct FILE
    int fflush(FILE *)


cdef extern from "<unistd.h>" nogil:
    void _exit(int)


# Of the functions that exit(3) calls the last one that was registered is the first, and glibc's
# on_exit(3) tells it the status.
cdef extern from *:
    """
    #include <stdlib.h>
    #include <stdio.h>
    #include <unistd.h>

    #ifdef __GLIBC__
    static void fsp_skip_handlers(int status, void *nothing) {
        (void)nothing;
        fflush(NULL);
        _exit(status);
    }
    #define fsp_exit_at_once() on_exit(fsp_skip_handlers, NULL)
    #else
    #define fsp_exit_at_once() 0
    #endif

    #define fsp_has_finalizer(thing) (Py_TYPE(thing)->tp_finalize != NULL)
    """
    int fsp_exit_at_once() nogil
    bint fsp_has_finalizer(object)


def _record_exits(type kind not None):
    """In a fork remember the latest instance of this subclass of SystemExit (or itself)."""
    fsp_record_exits(kind)


def _record_sys_exit(function, outermost):
    """The same for sys.exit and the outermost frame; false if it is not the one known here."""
    return fsp_record_sys_exit(function, outermost)


def _forget_outermost():
    """Let the frame go: its globals live as long, and the program's streams in them."""
    fsp_forget_outermost()


def _latest_exit():
    """The SystemExit that was made last (or None), and the f_lasti of the outermost frame if it
    was by sys.exit (or None; always None from Python 3.12 on)."""
    return fsp_get_latest_exit(), fsp_get_exit_at()


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


def _with_finalizer(list things not None):
    """Those whose type has one (tp_finalize)."""
    return [thing for thing in things if fsp_has_finalizer(thing)]


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


cdef list _list(char *const *array):
    cdef list items = []
    while array != NULL and array[0] != NULL:
        items.append(<bytes>array[0])
        array += 1
    return items


def _arguments():
    """The argv of the request that this process serves, in bytes; None outside a template."""
    if fastspawn_arguments == NULL or fastspawn_arguments() == NULL:
        return None
    return _list(fastspawn_arguments())


def _environment():
    """The environment that C sees, as a list of NAME=VALUE in bytes."""
    return _list(<char *const *>FSP_ENVIRON)


def _keep(object thing):
    """Never free it."""
    Py_INCREF(thing)


cdef extern from "<dlfcn.h>" nogil:
    int RTLD_LAZY
    int RTLD_NOLOAD
    void *dlopen(const char *, int)
    void *dlsym(void *, const char *)


ctypedef void (*sqlite_randomness)(int, void *) noexcept nogil
cdef sqlite_randomness _sqlite_randomness = NULL


def _find_sqlite(file):
    """Look for SQLite in what the module of this file (or the interpreter) is linked with."""
    global _sqlite_randomness
    cdef bytes path = None if file is None else os.fsencode(file)
    cdef void *library = dlopen(NULL if path is None else <char *>path, RTLD_LAZY | RTLD_NOLOAD)
    if library != NULL:
        _sqlite_randomness = <sqlite_randomness>dlsym(library, b"sqlite3_randomness")


def _reseed_sqlite():
    """It forgets its random state; what it draws next, it seeds by the system (sqlite3.h)."""
    if _sqlite_randomness != NULL:
        _sqlite_randomness(0, NULL)


def _freeze(list files not None, bint has_loop):
    """fastspawn_freeze(), with Python's hooks around each fork; see there for the result.

    Returns -ENOTSUP where there is no preloaded object.
    """
    cdef _Strings names
    cdef int r
    cdef int known = FSP_REFUSED_LOOP if has_loop else FSP_REFUSED_NOT
    if fastspawn_freeze == NULL or fastspawn_serve == NULL:
        return -errno.ENOTSUP
    names = _Strings(files)
    r = fastspawn_freeze(names.array, known, PyOS_BeforeFork, PyOS_AfterFork_Parent)
    if r == 0:
        fsp_start_recording()
        PyOS_AfterFork_Child()
    return r


def _serve():
    """fastspawn_serve(), the same way."""
    cdef int r = fastspawn_serve()
    if r:
        fsp_start_recording()
        PyOS_AfterFork_Child()
    return r


cdef class EngineCore:
    """Spawner threads and the way back from them; see fastspawn.Engine."""

    cdef fsp_engine *c
    cdef readonly set watching
    """called, with no argument, whenever there may be news of templates"""
    cdef readonly Py_ssize_t live
    """jobs that have not ended"""
    cdef object interrupt

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
        backend()
        with nogil:
            r = fsp_engine_new(spawners, NULL, &c)
        if r < 0:
            raise OSError(-r, os.strerror(-r))
        self.c = c
        return fsp_engine_fd(c)

    def _stop(self):
        """Kill what runs and refuse what comes; each job still ends."""
        if self.c != NULL:
            fsp_engine_stop(self.c)

    def _free(self):
        """Wait for the threads (and, before that, for killed children)."""
        cdef fsp_engine *c = self.c
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
        if self.c == NULL:
            return
        c = fsp_engine_take(self.c)
        while c != NULL:
            next = fsp_job_next(c)
            job = <Job>fsp_job_user(c)  # a reference of our own: hear() drops submit()'s
            job.hear(fsp_job_news(c))
            c = next
        if self.watching:
            for callback in list(self.watching):
                callback()
        if self.interrupt is not None:
            exc, self.interrupt = self.interrupt, None
            raise exc

    def submit(self, Plan command not None, sink, input=None, bint stream=True,
               bint notify=False, TemplateCore template=None, bint spare=False):
        """Hand over a command; never blocks, and reports spawn failures through the sink.

        input: bytes for stdin, None for /dev/null, or STREAM for Job.write(). With stream, the
        output of a child that lives longer than 10 ms or writes more than 64 KiB goes to
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
        if template is not None:
            options.snapshot = template.c
        options.user = <void *>job
        job.engine = self
        job.plan = command
        job.sink = sink
        job.input = input
        r = fsp_engine_submit(self.c, command.get(), &options, &job.c)
        if r == -ENOMEM:
            raise MemoryError()
        if r < 0:
            raise RuntimeError("the engine is closing")
        Py_INCREF(job)
        self.live += 1
        return job

    @property
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


# ---- signals -----------------------------------------------------------------------------------


def ignore_signals(signals):
    """Have every child ignore these (1 to 31) from now on, whatever this process does with them."""
    cdef uint32_t bits = 0
    for number in signals:
        if not 1 <= number <= 31:
            raise ValueError(f"no standard signal: {number!r}")
        bits |= <uint32_t>1 << <int>(number - 1)
    fsp_ignore_signals(bits)


# ---- outlets -----------------------------------------------------------------------------------


cdef class Outlet:
    """Lines to a descriptor that may not take them now, written by a thread: see csrc/outlet.c.

    fd: stays the caller's. capacity: bytes that may wait. Raises OSError, MemoryError.
    """

    cdef fsp_outlet *c
    cdef readonly size_t capacity

    def __cinit__(self, int fd, size_t capacity):
        cdef int r = fsp_outlet_new(fd, capacity, &self.c)
        self.capacity = capacity
        if r == -ENOMEM:
            raise MemoryError()
        if r < 0:
            raise OSError(-r, os.strerror(-r))

    def put(self, bytes lines not None):
        """Hand over whole lines; False: there was no room, and they are dropped. Never blocks."""
        if self.c == NULL:
            return False
        return fsp_outlet_put(self.c, PyBytes_AS_STRING(lines), <size_t>len(lines)) == 0

    @property
    def state(self):
        """Bytes that wait, lines that were dropped, errno of the latest write (0: it went well)."""
        cdef fsp_outlet_state state
        memset(&state, 0, sizeof(state))
        if self.c != NULL:
            fsp_outlet_get_state(self.c, &state)
        return state.queued, state.dropped, state.error

    def close(self, timeout):
        """Write what waits, for at most so many seconds; False: it was given up."""
        cdef fsp_outlet *c = self.c
        cdef uint64_t ns = nanoseconds(timeout)
        cdef int r = 1
        self.c = NULL
        if c != NULL:
            with nogil:
                r = fsp_outlet_free(c, ns)
        return r == 1

    def __dealloc__(self):
        if self.c != NULL:
            fsp_outlet_free(self.c, 0)


# ---- backends ----------------------------------------------------------------------------------


def backends():
    """The names of the ways to spawn that were built in, in order of preference."""
    cdef size_t i = 0
    names = []
    while fsp_backend_list(i) != NULL:
        names.append(fsp_backend_list(i).decode())
        i += 1
    return names


cdef object _backend_error = None


def backend():
    """The name of the backend that the next spawn tries first.

    Raises ValueError if the one that was asked for is not available.
    """
    if _backend_error is not None:
        raise ValueError(_backend_error)
    return fsp_backend_name().decode()


def select_backend(name=None):
    """Pin a backend for this process; None or "" chooses by what works.

    Raises ValueError for a name that is unknown, or not available on this system; so does every
    spawn until another one is selected.
    """
    global _backend_error
    cdef bytes data = (name or "").encode()
    cdef int r = fsp_backend_select(data)
    _backend_error = None
    if r < 0:
        what = "unknown" if r == -EINVAL else "not available here"
        _backend_error = (
            f"FASTSPAWN_BACKEND={name}: {what} (choose from: {', '.join(backends())})"
        )
        raise ValueError(_backend_error)


# A wrong name is told by whatever wants to spawn, not by the import.
try:
    select_backend(os.environ.get("FASTSPAWN_BACKEND"))
except ValueError:
    pass
