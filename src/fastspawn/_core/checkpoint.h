/*
 * checkpoint.h - what checkpoint.pyx cannot say in Cython.
 */
#ifndef FASTSPAWN_CORE_CHECKPOINT_H
#define FASTSPAWN_CORE_CHECKPOINT_H

#include <stddef.h>

/* They are of the preloaded object (csrc/guest/preload.c), and of no other program's. */
#ifdef __linux__
extern int fastspawn_freeze(const char *const *files, int known, void (*before)(void),
                            void (*after)(void)) __attribute__((weak));
extern int fastspawn_serve(void) __attribute__((weak));
extern char *const *fastspawn_arguments(void) __attribute__((weak));
extern const char *fastspawn_makers(void) __attribute__((weak));
#else
#define fastspawn_freeze ((int (*)(const char *const *, int, void (*)(void), void (*)(void)))NULL)
#define fastspawn_serve  ((int (*)(void))NULL)
#define fastspawn_arguments ((char *const *(*)(void))NULL)
#define fastspawn_makers    ((const char *(*)(void))NULL)
#endif

#endif
