/*
 * kernel.c - see kernel.h.
 */
#include "kernel.h"

#ifdef __linux__
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "tap.h"

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))

void kernel_without_where(long nr, int err, unsigned arg, uint32_t mask, uint32_t value) {
    struct sock_filter filter[] = {
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 4),
        LOAD(args[arg]), /* its lower half: all are little-endian */
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {LENGTH(filter), filter};
    CHECK_INT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_INT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

void kernel_without(long nr, int err) {
    kernel_without_where(nr, err, 0, 0, 0);
}

#ifdef KERNEL_CAN_TRACE
#include <sys/ptrace.h>

void kernel_traced(void) {
    CHECK_INT(ptrace(PTRACE_TRACEME, 0, NULL, NULL), 0);
    raise(SIGSTOP);
}

int kernel_trace(pid_t pid, void (*before)(struct user_regs_struct *),
                 void (*after)(struct user_regs_struct *)) {
    struct user_regs_struct regs;
    int status = 0, sig = 0;
    bool entry = true;
    CHECK_INT(waitpid(pid, &status, 0), pid); /* it stops itself */
    CHECK_INT(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL), 0);
    while (ptrace(PTRACE_SYSCALL, pid, NULL, sig) == 0 && waitpid(pid, &status, 0) == pid &&
           WIFSTOPPED(status)) {
        sig = WSTOPSIG(status);
        if (sig != (SIGTRAP | 0x80)) continue;
        sig = 0;
        if (entry && ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0) {
            before(&regs);
            CHECK_INT(ptrace(PTRACE_SETREGS, pid, NULL, &regs), 0);
        } else if (after && ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0) {
            after(&regs);
        }
        entry = !entry;
    }
    return status;
}
#endif
#endif
