/*
 * parts.h - the parts of the module: what Cython makes of each is a module of its own.
 */
#ifndef FASTSPAWN_CORE_PARTS_H
#define FASTSPAWN_CORE_PARTS_H

#include <Python.h>

#define FSP_PARTS(DO)       DO(ways) DO(plan) DO(child) DO(talk)
#define FSP_PARTS_LATER(DO) DO(engine) DO(template) DO(ending) DO(checkpoint) DO(outlet)

struct fsp_part {
    const char *name;
    PyModuleDef *(*init)(void);
};

/* What PyInit_* returns is the definition (PyModuleDef_Init). */
#define FSP_DEFINE(part)                                                                           \
    PyMODINIT_FUNC PyInit_##part(void);                                                            \
    static PyModuleDef *fsp_init_##part(void) {                                                    \
        return (PyModuleDef *)PyInit_##part();                                                     \
    }
#define FSP_LIST(part) {#part, fsp_init_##part},

FSP_PARTS(FSP_DEFINE)
FSP_PARTS_LATER(FSP_DEFINE)

static const struct fsp_part fsp_parts[] = {
    FSP_PARTS(FSP_LIST){NULL, NULL}
};
static const struct fsp_part fsp_parts_later[] = {
    FSP_PARTS_LATER(FSP_LIST){NULL, NULL}
};

#endif
