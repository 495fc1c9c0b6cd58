/*
 * ending.h - what ending.pyx cannot say in Cython.
 */
#ifndef FASTSPAWN_CORE_ENDING_H
#define FASTSPAWN_CORE_ENDING_H

#include <Python.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * Every SystemExit is made by the tp_new of its type, whoever raises it; but before Python 3.12
 * sys.exit() makes none unless someone catches it, so there it is let make one, and notes where the
 * outermost frame was.
 */
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
#define fsp_get_exit_at()     fsp_get(fsp_exit_at)

/*
 * Of the functions that exit(3) calls the last one that was registered is the first, and glibc's
 * on_exit(3) tells it the status.
 */
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
#define fsp_has_one_thread()                                                                       \
    (PyThreadState_Next(PyInterpreterState_ThreadHead(PyInterpreterState_Get())) == NULL)

#endif
