"""A plan: what to run, made of Python's objects, and the errors of that."""

import errno
import os
import stat
import subprocess as _subprocess
import sys
from subprocess import DEVNULL as _DEVNULL
from subprocess import PIPE as _PIPE
from subprocess import STDOUT as _STDOUT

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EACCES, ENOTDIR
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memchr, memset

from fastspawn._cfastspawn cimport *

cdef extern from "Python.h":
    bytes PyUnicode_EncodeFSDefault(object text)

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define FSP_NO_GIL 1
    #else
    #define FSP_NO_GIL 0
    #endif
    """
    bint FSP_NO_GIL


cdef extern from "<limits.h>":
    size_t NGROUPS_MAX


cdef enum:
    PATH_SIZE = 4096
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


cdef class Strings:
    """A NULL-terminated char*[] and the bytes objects that it points into."""

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


cdef fsp_io stdio(object how, bint is_err) except *:
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
        self.options.out = stdio(stdout, False)
        self.options.err = stdio(stderr, True)
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
        cdef Strings c_argv = Strings(args)
        cdef Strings c_envp = None
        if env is not None:
            c_envp = Strings(_encode_env(env))
        elif FSP_NO_GIL:
            c_envp = Strings([key + b"=" + value for key, value in os.environ._data.copy().items()])
        cdef bytes file = args[0] if executable is None else _encode(executable)
        cdef bytes search = _search(env)
        cdef bytes directory = None if cwd is None else _encode(cwd)
        spec.file = PyBytes_AS_STRING(file)
        spec.argv = c_argv.array
        # Without env what execv() would pass on, os.putenv() included. It changes only under the
        # GIL, and is copied before that is let go.
        # Without a GIL it may change at any time, so that it is os.environ alone.
        spec.envp = <const char **>FSP_ENVIRON if c_envp is None else c_envp.array
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
        for entry in strings(fsp_plan_environment(self.get())):
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


cdef list strings(char *const *array):
    cdef list items = []
    while array != NULL and array[0] != NULL:
        items.append(<bytes>array[0])
        array += 1
    return items
