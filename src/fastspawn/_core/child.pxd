from fastspawn._cfastspawn cimport *


cdef object struct_rusage(const rusage *u)


cdef struct Held:
    fsp_child c
    fsp_status status
    bint ended
    unsigned users # who waits on the descriptor: threads, and event loops
    bint listed # among those whose descriptors let_go() looks at
    Held *older
    Held *newer


cdef class Child:
    cdef Held h
    cdef readonly int pid

    cdef void begin(self, fsp_child c) noexcept
    cpdef int watch(self) noexcept
    cpdef void unwatch(self) noexcept
