"""What fastspawn.checkpoint() needs of C, in a template and at the begin of its forks."""

import errno
import os

from cpython.ref cimport Py_INCREF
from libc.string cimport strcmp

from fastspawn._cfastspawn cimport *
from fastspawn._core.ending cimport start_recording
from fastspawn._core.plan cimport FSP_ENVIRON, Strings, strings


cdef extern from "checkpoint.h":
    int (*fastspawn_freeze)(
        const char *const *files, int known, void (*before)() noexcept, void (*after)() noexcept
    )
    int (*fastspawn_serve)()
    char *const *(*fastspawn_arguments)()
    const char *(*fastspawn_makers)()



cdef extern from "Python.h":
    void PyOS_BeforeFork() noexcept
    void PyOS_AfterFork_Child()
    void PyOS_AfterFork_Parent() noexcept


def _arguments():
    """The argv of the request that this process serves, in bytes; None outside a template."""
    if fastspawn_arguments == NULL or fastspawn_arguments() == NULL:
        return None
    return strings(fastspawn_arguments())


def _makers():
    """Whose the threads are for which _freeze() was refused (csrc/template/snapshot.h)."""
    return b"" if fastspawn_makers == NULL else <bytes>fastspawn_makers()


def _has_other_arguments(list before not None):
    """Are those of this request not these?"""
    cdef char *const *arg = fastspawn_arguments()
    cdef size_t i = 0
    if arg == NULL:
        return False
    for known in before:
        if arg[i] == NULL or strcmp(arg[i], <bytes?>known) != 0:
            return True
        i += 1
    return arg[i] != NULL


def _environment():
    """The environment that C sees, as a list of NAME=VALUE in bytes."""
    return strings(<char *const *>FSP_ENVIRON)


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


cdef class _Hooks:
    """The first hook of a fork: has the lists of all hooks (``lists``) as they were (``full``)."""

    cdef tuple lists, full

    def __init__(self, tuple lists, tuple full):
        self.lists = lists
        self.full = full

    def __call__(self):
        for hooks, full in zip(self.lists, self.full):
            hooks[:] = full


def _freeze(list files not None, bint has_loop):
    """fastspawn_freeze(), with Python's hooks around each fork; see there for the result.

    Returns -ENOTSUP where there is no preloaded object.
    """
    cdef Strings names
    cdef int r
    cdef int known = FSP_REFUSED_LOOP if has_loop else FSP_REFUSED_NOT
    if fastspawn_freeze == NULL or fastspawn_serve == NULL:
        return -errno.ENOTSUP
    names = Strings(files)
    r = fastspawn_freeze(names.array, known, PyOS_BeforeFork, PyOS_AfterFork_Parent)
    if r == 0:
        start_recording()
        PyOS_AfterFork_Child()
    return r


def _serve():
    """fastspawn_serve(), the same way."""
    cdef int r = fastspawn_serve()
    if r:
        start_recording()
        PyOS_AfterFork_Child()
    return r
