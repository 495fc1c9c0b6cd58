"""Processes of one plan that are forked on demand."""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING

from fastspawn._cfastspawn cimport *
from fastspawn._core.engine cimport EngineCore, Origin
from fastspawn._core.plan cimport Plan, nanoseconds


cdef class TemplateCore(Origin):
    """Processes of one plan, stopped before main, and forked on demand; see fastspawn.Template."""

    cdef EngineCore engine

    def _open(self, EngineCore engine not None, Plan plan not None, Plan start not None,
              bytes library, timeout, unsigned int flags, bint reset=False):
        """Let every spawner of the engine start its process, and with reset its residents."""
        cdef int r
        if self.c != NULL:
            raise RuntimeError("the template is open already")
        engine.check_running()
        r = fsp_template_new(engine.c, plan.get(), start.get(), PyBytes_AS_STRING(library),
                             nanoseconds(timeout), flags, &self.c)
        if r == 0 and reset:
            r = fsp_reset_new(engine.c, self.c, &self.residents)
        if r < 0:
            self._close()
            raise OSError(-r, os.strerror(-r))
        self.engine = engine

    def _close(self):
        """End its processes; jobs that were submitted still end."""
        self.end()

    cdef end(self):
        # No method of Python's, which a class has lost when it is deallocated at the very end.
        cdef fsp_template *c
        cdef fsp_reset *residents
        with cython.critical_section(self):
            c = self.c
            residents = self.residents
            self.c = NULL
            self.residents = NULL
        if residents != NULL:
            fsp_reset_free(residents)
        if c != NULL:
            fsp_template_free(c)

    def __dealloc__(self):
        if self.c != NULL:
            self.end()

    @cython.critical_section
    def _state(self):
        """(ready, failures, why it failed last, its OSError or None, its exit status)"""
        cdef fsp_template_state s
        if self.c == NULL:
            raise RuntimeError("the template is not open")
        fsp_template_get_state(self.c, &s)
        error = OSError(s.error.err, os.strerror(s.error.err)) if s.error.err else None
        return s.ready, s.failures, <int>s.why, error, s.status

    @cython.critical_section
    def _changed(self):
        """The file that last made a process stale; empty: none did."""
        cdef char buf[4096]
        if self.c == NULL:
            return b""
        return buf[:fsp_template_changed(self.c, buf, sizeof(buf))]

    @cython.critical_section
    def _makers(self):
        """Whose the threads are for which a process was refused last; empty: none was."""
        cdef char buf[4096]
        if self.c == NULL:
            return b""
        return buf[:fsp_template_makers(self.c, buf, sizeof(buf))]

    @cython.critical_section
    def _no_checkpoint(self):
        """Why a fork that called checkpoint() could not become a template process; 0: none did."""
        cdef fsp_template_state s
        if self.c == NULL:
            return 0
        fsp_template_get_state(self.c, &s)
        return <int>s.no_checkpoint

    @property
    @cython.critical_section
    def stats(self):
        """A dict: template processes wanted and ready, jobs by fork and by exec, processes that
        died and were replaced, forks that became template processes at a checkpoint. With
        residents: those there are, jobs that they did and reset after, jobs with which they left,
        residents ever made and retired, whether there are none any more, the system call that the
        last one left at, errno of what could not be had, system calls of those jobs, pages and ns
        that their resets took.
        """
        cdef fsp_template_state s
        cdef fsp_reset_state r
        if self.c == NULL:
            return {}
        fsp_template_get_state(self.c, &s)
        stats = {
            "processes": s.spawners, "ready": s.ready, "forked": s.forked, "direct": s.direct,
            "restarted": s.restarted, "checkpoints": s.checkpoints, "at_effect": s.at_effect,
            "stopped_by": s.stopped_by, "stale": s.stale, "useless": s.useless,
        }
        if self.residents != NULL:
            fsp_reset_get_state(self.residents, &r)
            stats.update({
                "residents": r.residents, "resets": r.resets, "leaves": r.leaves, "made": r.made,
                "retired": r.retired, "without": r.off, "left_by": r.left_by,
                "reset_error": r.error, "reset_calls": r.calls, "reset_pages": r.pages,
                "reset_ns": r.restore_ns,
            })
        return stats

    @cython.critical_section
    def _left_by(self):
        """Jobs with which a resident left, by the system call; -1: at a signal."""
        cdef unsigned call
        cdef uint64_t count
        counts = {}
        if self.residents != NULL:
            for call in range(FSP_CALLS + 1):
                count = fsp_reset_left_by(self.residents, call)
                if count:
                    counts[call if call < FSP_CALLS else -1] = count
        return counts
