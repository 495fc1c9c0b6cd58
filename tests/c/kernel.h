/*
 * kernel.h - a kernel that is another, for this process and its children: real filters (seccomp(2))
 * and a real tracer (ptrace(2)).
 */
#ifndef KERNEL_H
#define KERNEL_H

#include "support.h"

#ifdef __linux__

/* This system call is refused from now on. */
void kernel_without(long nr, int err);
/* The same where its argument number `arg`, as far as the mask goes, is `value`. */
void kernel_without_where(long nr, int err, unsigned arg, uint32_t mask, uint32_t value);

#if defined(__x86_64__) && !defined(__ILP32__)
#define KERNEL_CAN_TRACE 1
#include <sys/user.h>

/* To be called first in a part that is traced. */
void kernel_traced(void);
/* Trace such a process to its end, with its system calls rewritten before and (not NULL) looked at
 * after they are made; its status as wait(2) has it. */
int kernel_trace(pid_t pid, void (*before)(struct user_regs_struct *),
                 void (*after)(struct user_regs_struct *));
#endif

#endif
#endif
