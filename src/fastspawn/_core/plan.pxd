from libc.stdint cimport uint64_t

from fastspawn._cfastspawn cimport *

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


cdef uint64_t nanoseconds(object seconds) except? 0
cdef fsp_io stdio(object how, bint is_err) except *
cdef list strings(char *const *array)


cdef class Strings:
    cdef list items
    cdef const char **array


cdef class Plan:
    cdef fsp_plan *c
    cdef fsp_job_options options
    cdef readonly object executable
    cdef readonly object cwd
    cdef readonly object cgroup

    cdef _simple(self, list argv, executable, env, cwd)
    cdef _options(self, stdout, stderr, timeout, kill_grace, drain, max_output)
    cdef _flatten(self, fsp_spec *spec, list argv, executable, env, cwd)
    cdef _make(
        self, fsp_spec *spec, list argv, executable, env, cwd, list keep, list rlimits, groups
    )
    cdef fsp_plan *get(self) except NULL
    cdef object error(self, const fsp_error *e)
