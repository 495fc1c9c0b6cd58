from fastspawn._cfastspawn cimport *
from fastspawn._core.plan cimport Plan


cdef class Origin:
    cdef fsp_template *c
    cdef fsp_reset *residents
    """NULL: it has none"""


cdef class Terminal:
    cdef fsp_size size


cdef class Job:
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

    cdef bint is_live(self) noexcept
    cdef deliver_chunks(self, fsp_chunk *chunk)
    cdef settle(self)
    cdef hear(self, fsp_news *news)


cdef class EngineCore:
    cdef fsp_engine *c
    cdef readonly set watching
    """called, with no argument, whenever there is news of templates or their residents"""
    cdef uint64_t told
    cdef readonly Py_ssize_t live
    """jobs that have not ended"""
    cdef object interrupt

    cdef failed(self, exc)
    cdef quiet(self)
