"""The binding of the C core (csrc/fastspawn.h), in parts that follow its rooms.

It converts, and keeps objects alive for as long as C looks at them; what a program should use
is built on it in the modules of the package. Each part uses only those above it:

    ways        the way to spawn, and what else counts for every child of this process
    plan        what to run
    child       a child on the caller's thread
    talk        the same with its pipes
    engine      children on the engine's threads
    template    children that are forks
    ending      how a program ends that has come to a checkpoint
    checkpoint  what a program needs that becomes a template
    outlet      lines for a log

The parts are modules that are compiled one by one, and linked with the core into one shared object:
its state exists once, and its symbols are nobody else's. The import system finds in a shared object
only the module that this is named for; the others are made here (PEP 489), and their names are in
here, too. Who only runs programs does not pay for the parts from ``engine`` on: they are made when
a name is first asked for that is not there.
"""

import sys
from _thread import RLock as _RLock

cdef extern from "Python.h":
    ctypedef struct PyModuleDef
    object PyModule_FromDefAndSpec(PyModuleDef *, object)
    int PyModule_ExecDef(object, PyModuleDef *) except -1

cdef extern from "parts.h":
    struct fsp_part:
        const char *name
        PyModuleDef *(*init)() except NULL
    const fsp_part *fsp_parts
    const fsp_part *fsp_parts_later


cdef object _lock = _RLock()
"""Its holder makes parts."""
cdef bint _complete = False


cdef _make(str name, PyModuleDef *definition):
    """The part of this name, as the import system would make it."""
    spec = type(__spec__)(f"{__name__}.{name}", __loader__, origin=__file__)
    module = PyModule_FromDefAndSpec(definition, spec)
    module.__spec__ = spec
    sys.modules[spec.name] = module
    try:
        PyModule_ExecDef(module, definition)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


cdef _make_all(const fsp_part *part):
    names = globals()
    while part.name != NULL:
        name = part.name.decode()
        module = _make(name, part.init())
        names[name] = module
        for each, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__:
                names[each] = value
        part += 1


cdef _make_later():
    global _complete
    with _lock:
        if not _complete:
            _make_all(fsp_parts_later)
            _complete = True


def __getattr__(str name):
    if name[:2] != "__":
        if not _complete:
            _make_later()
        if name in globals(): # another thread may have made it meanwhile
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    _make_later()
    return sorted(globals())


_make_all(fsp_parts)
