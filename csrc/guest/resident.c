/*
 * resident.c - the life of a resident (template/resident.h).
 *
 *   the template:  resident_prepare()  takes the image, once
 *   its fork:      resident_live()     is frozen here; returns when a job begins, for each anew
 *
 * What serves is the "machine", on a stack of its own: below the frame of a signal that is taken
 * there once.  That frame is made to lead back into resident_live(), and each job begins by the
 * return from it, which sets all registers, what is in vector registers too, and the mask of
 * signals.  exit_group(2) leads to the machine again (rerun.c), below the same frame, with all
 * signals blocked until the next return.
 *
 * The template's memory, and so the image, is what it is right after the handlers that libraries
 * have before forks; so each job begins as a fork does: with random bytes of its own (fresh.c), its
 * environment, the handlers for a child.
 *
 * Nothing here but the calls in resident_prepare() enters libc, whose memory may just be put back.
 */
#include "reset.h"

#ifdef __linux__
#ifdef FSP_HAVE_RESIDENTS
#include <dlfcn.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define HIGH     512 /* where our descriptors begin, if that many may be open */
#define BELOW    512 /* what the machine leaves free below the frame */
#define US_OF(t) ((t).tv_sec * 1000000 + (t).tv_usec)

#ifndef ARCH_SHSTK_STATUS /* Linux 6.6 */
#define ARCH_SHSTK_STATUS 0x5005
#endif

static struct {
    ptrdiff_t at;
    size_t size; /* 0: there is none */
} rseq;

/* glibc 2.35.  dlsym takes locks: not where the program may hold them. */
void resident_find(void) {
    const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
    const unsigned *size = offset ? dlsym(RTLD_DEFAULT, "__rseq_size") : NULL;
    if (size == NULL) return;
    rseq.at = *offset;
    rseq.size = *size;
}

static void block_all(uint64_t *before) {
    static const uint64_t all = ~(uint64_t)0;
    raw(rt_sigprocmask, SIG_SETMASK, &all, before, sizeof all);
}

static bool is_signalled(void) {
    uint64_t pending = 0;
    raw(rt_sigpending, &pending, sizeof pending);
    return pending != 0;
}

static _Noreturn void end(void) {
    for (;;) raw(exit_group, 0);
}

/* ---- the spawner's word ---- */

struct job {
    struct fsp_resident_job told;
    int fd[3], nfds;
};

static int take_fds(const struct msghdr *msg, int fd[3]) {
    const struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    if (c == NULL || c->cmsg_type != SCM_RIGHTS) return 0;
    size_t size = c->cmsg_len - CMSG_LEN(0);
    copy_bytes(fd, CMSG_DATA(c), size);
    return (int)(size / sizeof(int));
}

/* False: nobody wants it any more. */
static bool receive(struct job *job) {
    struct resident *r = resident;
    _Alignas(struct cmsghdr) char control[CMSG_LEN(3 * sizeof(int))]; /* no room for a fourth */
    struct iovec parts[2] = {
        {&job->told,                   sizeof job->told                      },
        {r->told + FSP_SNAP_PLAN_FROM, FSP_SNAP_PLAN_MAX - FSP_SNAP_PLAN_FROM}
    };
    struct msghdr msg = {.msg_iov = parts,
                         .msg_iovlen = 2,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    long n;
    do n = raw(recvmsg, r->socket, &msg, MSG_CMSG_CLOEXEC);
    while (n == -EINTR);
    if (n < (long)sizeof job->told) return false;
    job->nfds = take_fds(&msg, job->fd);
    return true;
}

/* ---- a job begins ---- */

/* False: it cannot have them. */
static bool place(const struct job *job) {
    struct resident *r = resident;
    long done = 0;
    for (int i = 0; i < 3 && done >= 0; i++) {
        int from = job->told.fd[i];
        bool came = from >= 0 && from < job->nfds;
        r->touched[i] = from != FSP_SNAP_OWN;
        r->whose[i] = came ? WHOSE_JOBS : from == FSP_SNAP_NULL ? WHOSE_NULL : WHOSE_SHARED;
        if (came)
            done = reset_dup(job->fd[from], i, 0);
        else if (from == FSP_SNAP_NULL)
            done = reset_dup(r->null, i, 0);
    }
    for (int i = 0; i < job->nfds; i++) raw(close, job->fd[i]);
    return done >= 0;
}

/* As the program may write over it, each job has it anew. */
static void give_plan(const struct fsp_resident_job *job) {
    struct resident *r = resident;
    struct fsp_plan *plan = (struct fsp_plan *)r->plan;
    if (job->plan_size == 0 && r->told_size == 0) return; /* the template's serves */
    if (job->plan_size) r->told_size = job->plan_size;
    if (job->plan_size) r->told_at = job->plan_at;
    pages_plan(r->told_size);
    copy_bytes(r->plan + FSP_SNAP_PLAN_FROM, r->told + FSP_SNAP_PLAN_FROM,
               r->told_size - FSP_SNAP_PLAN_FROM);
    fsp_plan_relocate(plan, r->told_at);
}

static struct fsp_resident_usage usage_of(const struct rusage *u, const struct rusage *base) {
    return (struct fsp_resident_usage){
        .user = US_OF(u->ru_utime) - US_OF(base->ru_utime),
        .system = US_OF(u->ru_stime) - US_OF(base->ru_stime),
        .minor_faults = u->ru_minflt - base->ru_minflt,
        .major_faults = u->ru_majflt - base->ru_majflt,
        .blocks_in = u->ru_inblock - base->ru_inblock,
        .blocks_out = u->ru_oublock - base->ru_oublock,
        .waits = u->ru_nvcsw - base->ru_nvcsw,
        .preemptions = u->ru_nivcsw - base->ru_nivcsw,
        .max_rss = u->ru_maxrss,
    };
}

_Noreturn static void go_on(void) {
    __asm__ volatile("mov %0, %%rsp\n\t"
                     "mov $15, %%eax\n\t" /* rt_sigreturn: it reads the frame from here on */
                     "syscall\n\t"
                     "hlt"
                     :
                     : "r"(resident->frame)
                     : "memory");
    __builtin_unreachable();
}

static _Noreturn void wait_for_job(void) {
    static const struct rusage none;
    struct resident *r = resident;
    struct job job;
    if (is_signalled() || !receive(&job) || is_signalled()) end();
    if (!place(&job)) end(); /* it has not begun: another does it */
    r->number = job.told.number;
    r->calls = 0;
    raw(getrusage, RUSAGE_SELF, &r->base);
    pages_begin();
    give_plan(&job.told);
    r->record->before = usage_of(&r->base, &none);
    r->record->begun = r->number;
    go_on();
}

/* ---- and ends ---- */

static uint64_t now_ns(void) {
    struct timespec t;
    raw(clock_gettime, CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The kernel divides what was used into user and system anew each time: neither grows alone. */
static void note_use(void) {
    struct resident *r = resident;
    struct rusage usage;
    raw(getrusage, RUSAGE_SELF, &usage);
    struct fsp_resident_usage used = usage_of(&usage, &r->base);
    if (used.user < 0) {
        used.system += used.user;
        used.user = 0;
    }
    if (used.system < 0) {
        used.user += used.system;
        used.system = 0;
    }
    if (used.user < 0) used.user = 0;
    r->record->usage = used;
}

static void restore(void) {
    struct resident *r = resident;
    uint64_t start = now_ns();
    mapped_restore();
    frozen_restore();
    pages_restore();
    state_restore();
    r->reply.pages = (uint32_t)r->hot_pages;
    r->reply.restore_ns = (uint32_t)(now_ns() - start);
    if (r->checked) compare_all();
}

static _Noreturn void ended(int status) {
    struct resident *r = resident;
    r->ending = status;
    state_let_go();
    note_use();
    r->record->status = status << 8;
    r->record->done = r->number;
    r->ending = 0;
    if (r->checked) restore(); /* what it tells is of this job then */
    reset_send(FSP_RESIDENT_DONE, status);
    if (!r->checked) restore();
    wait_for_job();
}

static _Noreturn void again(int status) {
    struct resident *r = resident;
    block_all(NULL);
    if (!r->lives) /* it left, just now */
        for (;;) raw(exit_group, status);
    uintptr_t top = ((uintptr_t)r->frame - BELOW) & ~(uintptr_t)15;
    /* The program may count downwards, and may have asked for alignment checks: C has neither. */
    __asm__ volatile("mov %0, %%rsp\n\t"
                     "pushfq\n\t"
                     "andq %3, (%%rsp)\n\t"
                     "popfq\n\t"
                     "call *%1\n\t"
                     "hlt"
                     :
                     : "r"(top), "r"(ended), "D"(status), "i"(~0x40400)
                     : "memory");
    __builtin_unreachable();
}

/* ---- it is born ---- */

/* Where the frame leads: the program's own stack is as it was left. */
__asm__(".pushsection .text\n"
        ".type resident_switch, @function\n"
        "resident_switch:\n\t"
        "push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n\t"
        "mov %rdi, %rax\n\t"
        "mov %rsp, %rdi\n\t"
        "mov %rax, %rsp\n\t"
        "call *%rsi\n\t"
        "hlt\n"
        ".type resident_back, @function\n"
        "resident_back:\n\t"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp\n\t"
        "ret\n\t"
        ".popsection");
HIDDEN void resident_switch(char *top, void (*machine)(char *sp));
HIDDEN void resident_back(void);

static bool has_shadow_stack(void) {
    unsigned long features = 0;
    return raw(arch_prctl, ARCH_SHSTK_STATUS, &features) == 0 && features != 0;
}

static int freeze(void) {
    struct resident *r = resident;
    if (rseq.size) {
        r->rseq = (char *)__builtin_thread_pointer() + rseq.at;
        r->rseq_size = rseq.size < 32 ? 32 : (rseq.size + 31) / 32 * 32;
    }
    int error = state_freeze();
    if (error == 0) error = pages_freeze();
    mapped_freeze();
    if (error == 0 && r->checked) error = compare_freeze();
    return error;
}

static _Noreturn void born(ucontext_t *context) {
    struct resident *r = resident;
    greg_t *registers = context->uc_mcontext.gregs;
    block_all(NULL);
    r->frame = context;
    registers[REG_RSP] = (greg_t)(uintptr_t)r->program_sp;
    registers[REG_RIP] = (greg_t)(uintptr_t)resident_back;
    *(uint64_t *)&context->uc_sigmask = r->mask & ~SIGNAL_BIT(SIGSYS);
    r->blocks_sigsys = r->blocked_sigsys = r->mask & SIGNAL_BIT(SIGSYS);
    int error = freeze();
    r->reply.pages = (uint32_t)r->private_pages;
    r->reply.scans = (uint32_t)r->compared;
    reset_send(error ? FSP_RESIDENT_REFUSED : FSP_RESIDENT_READY, error ? error : (int)r->pages);
    if (error) end();
    r->reply.scans = 0;
    wait_for_job();
}

static void refuse(int error) {
    reset_send(FSP_RESIDENT_REFUSED, error);
    end();
}

/* On the machine's stack. */
static void be_born(char *sp) {
    struct resident *r = resident;
    r->program_sp = sp;
    int error = r->failed;
    if (error == 0 && has_shadow_stack()) error = -EOPNOTSUPP;
    if (error == 0) error = rerun_watch();
    if (error < 0) refuse(error);
    uint64_t only_this = ~SIGNAL_BIT(SIGSYS);
    raw(rt_sigprocmask, SIG_SETMASK, &only_this, &r->mask, sizeof only_this);
    raw(tgkill, raw(getpid, 0), raw(gettid, 0), SIGSYS);
    end(); /* the handler does not return here */
}

/* The template had no memory for it. */
static _Noreturn void refuse_without(int socket) {
    const struct fsp_resident_reply reply = {.kind = FSP_RESIDENT_REFUSED, .value = -ENOMEM};
    raw(sendto, socket, &reply, sizeof reply, MSG_NOSIGNAL, NULL, 0);
    end();
}

static int choose_high(void) {
    struct rlimit limit = {0};
    if (raw(prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) < 0) return HIGH;
    return limit.rlim_cur < HIGH + HIGH / 4 ? (int)(limit.rlim_cur / 2) : HIGH;
}

/* A fork may have become a template itself: what it has is that of the one before. */
static void drop_other(void) {
    struct resident *r = resident;
    if (r->image) raw(munmap, r->image, r->image_pages * PAGE);
    reset_unmap(r->in_image, r->image_pages);
    resident = NULL;
    reset_unmap(r, sizeof *r);
}

void resident_prepare(void) {
    if (resident && resident->image_of != (int)raw(getpid, 0)) drop_other();
    if (resident) return;
    resident = reset_map(sizeof *resident);
    if (resident == NULL) return;
    resident->high = choose_high();
    resident->failed = image_take();
}

void resident_live(const struct residence *here) {
    struct resident *r = resident;
    if (r == NULL) refuse_without(here->socket);
    r->lives = true;
    r->here = *here;
    r->born = born;
    r->again = again;
    r->high = choose_high();
    r->nown = 0; /* what the template has is not to be kept */
    raw(close, r->template_uffd);
    r->template_uffd = -1;
    r->template_pages = reset_keep(r->template_pages);
    r->socket = reset_keep(here->socket);
    r->record = here->record;
    r->plan = here->plan;
    r->checked = here->flags & FSP_SNAP_CHECKED;
    r->plain = here->flags & FSP_SNAP_PLAIN;
    resident_switch(r->machine + sizeof r->machine, be_born);
}

#else

void resident_find(void) {}

void resident_prepare(void) {}

void image_forget(void) {}

/* Its socket says no more: it cannot be one here. */
void resident_live(const struct residence *here) {
    (void)here;
}

#endif
#endif
