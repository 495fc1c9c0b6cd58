"""Lines to a descriptor that may not take them now."""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport ENOMEM
from libc.stdint cimport uint64_t
from libc.string cimport memset

from fastspawn._cfastspawn cimport *
from fastspawn._core.plan cimport nanoseconds


cdef class Outlet:
    """Lines to a descriptor that may not take them now, written by a thread: see csrc/log/outlet.c.

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
        with cython.critical_section(self):
            if self.c == NULL:
                return False
            return fsp_outlet_put(self.c, PyBytes_AS_STRING(lines), <size_t>len(lines)) == 0

    @property
    def state(self):
        """Bytes that wait, lines that were dropped, errno of the latest write (0: it went well)."""
        cdef fsp_outlet_state state
        memset(&state, 0, sizeof(state))
        with cython.critical_section(self):
            if self.c != NULL:
                fsp_outlet_get_state(self.c, &state)
        return state.queued, state.dropped, state.error

    def close(self, timeout):
        """Write what waits, for at most so many seconds; False: it was given up."""
        cdef fsp_outlet *c
        cdef uint64_t ns = nanoseconds(timeout)
        cdef int r = 1
        with cython.critical_section(self):
            c = self.c
            self.c = NULL
        if c != NULL:
            with nogil:
                r = fsp_outlet_free(c, ns)
        return r == 1

    def __dealloc__(self):
        if self.c != NULL:
            fsp_outlet_free(self.c, 0)
