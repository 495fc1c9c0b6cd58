/*
 * rawsys.h - system calls that touch nothing of libc.
 *
 * For code that runs in a child on its parent's memory, where even errno belongs to someone
 * else.  Each returns a result or -errno.  On architectures without an entry here, libc's
 * syscall() serves: it writes errno in the memory of a parent that is suspended, which then
 * overwrites it.
 */
#ifndef FSP_RAWSYS_H
#define FSP_RAWSYS_H

#include "sys.h"

#ifdef __linux__

/* The kernel's sigaction, which is not libc's. */
struct ksigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

#if defined(__x86_64__) && !defined(__ILP32__)

static inline FSP_UNINSTRUMENTED long raw6(long nr, long a, long b, long c, long d, long e,
                                           long f) {
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

/*
 * A clone whose child starts in fn(arg) on the new stack that the system call's own arguments
 * name.  It never returns here: only the parent does.
 */
#define FSP_HAVE_RAW_CLONE 1
static inline long raw_clone(long nr, long a, long b, long c, long d, long e, int (*fn)(void *),
                             void *arg) {
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register int (*r12)(void *) __asm__("r12") = fn;
    register void *r13 __asm__("r13") = arg;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t" /* the outermost frame */
                     "mov %%r13, %%rdi\n\t"
                     "call *%%r12\n\t"
                     "mov %%eax, %%edi\n\t"
                     "mov $60, %%eax\n\t" /* exit */
                     "syscall\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r12), "r"(r13)
                     : "rcx", "r11", "memory", "cc");
    return ret;
}

#elif defined(__aarch64__)

static inline FSP_UNINSTRUMENTED long raw6(long nr, long a, long b, long c, long d, long e,
                                           long f) {
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}

#define FSP_HAVE_RAW_CLONE 1
static inline long raw_clone(long nr, long a, long b, long c, long d, long e, int (*fn)(void *),
                             void *arg) {
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register int (*x19)(void *) __asm__("x19") = fn;
    register void *x20 __asm__("x20") = arg;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t" /* the outermost frame */
                     "mov x0, x20\n\t"
                     "blr x19\n\t"
                     "mov x8, #93\n\t" /* exit */
                     "svc #0\n\t"
                     "brk #0\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x19), "r"(x20)
                     : "x30", "memory", "cc");
    return x0;
}

#else

static inline FSP_UNINSTRUMENTED long raw6(long nr, long a, long b, long c, long d, long e,
                                           long f) {
    long r = syscall(nr, a, b, c, d, e, f);
    return r == -1 ? -errno : r;
}

#endif

/* The last two arguments of clone(2), whose order differs. */
#ifdef __aarch64__
#define FSP_CLONE_TID(tid, tls) tls, tid
#else
#define FSP_CLONE_TID(tid, tls) tid, tls
#endif

/* raw(name, args...): behind the seam, arguments widened as the kernel reads them. */
#ifdef __clang_analyzer__ /* it has to see that the kernel may write to what it is passed */
long raw_seen(long nr, void *a, void *b, void *c, void *d, void *e, void *f);
#define RAW_ARG(x) ((void *)(long)(x))
#define RAW_CALL   raw_seen
#else
#define RAW_ARG(x) ((long)(x))
#define RAW_CALL   raw6
#endif
#define RAW_6(nr, a, b, c, d, e, f, ...)                                                           \
    RAW_CALL(nr, RAW_ARG(a), RAW_ARG(b), RAW_ARG(c), RAW_ARG(d), RAW_ARG(e), RAW_ARG(f))
#define raw(name, ...)                                                                             \
    ({                                                                                             \
        long raw_r_ = -(long)fsp_fault(#name);                                                     \
        if (raw_r_ == 0) raw_r_ = RAW_6(SYS_##name, __VA_ARGS__, 0, 0, 0, 0, 0, 0);                \
        raw_r_;                                                                                    \
    })

#endif
#endif
