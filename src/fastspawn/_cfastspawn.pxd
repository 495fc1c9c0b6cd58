# A transcription of csrc/fastspawn.h, which documents every line of it.

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "<sys/resource.h>" nogil:
    ctypedef unsigned long rlim_t
    struct rlimit:
        rlim_t rlim_cur
        rlim_t rlim_max
    struct timeval:
        long tv_sec
        long tv_usec
    struct rusage:
        timeval ru_utime
        timeval ru_stime
        long ru_maxrss
        long ru_ixrss
        long ru_idrss
        long ru_isrss
        long ru_minflt
        long ru_majflt
        long ru_nswap
        long ru_inblock
        long ru_oublock
        long ru_msgsnd
        long ru_msgrcv
        long ru_nsignals
        long ru_nvcsw
        long ru_nivcsw


cdef extern from "<sys/types.h>" nogil:
    ctypedef int pid_t


cdef extern from "fastspawn.h" nogil:
    enum fsp_stage:
        FSP_STAGE_NONE
        FSP_STAGE_PREPARE
        FSP_STAGE_CLONE
        FSP_STAGE_FDS
        FSP_STAGE_CWD
        FSP_STAGE_SIGNALS
        FSP_STAGE_SESSION
        FSP_STAGE_PGROUP
        FSP_STAGE_CGROUP
        FSP_STAGE_RLIMIT
        FSP_STAGE_GROUPS
        FSP_STAGE_GID
        FSP_STAGE_UID
        FSP_STAGE_PRIVS
        FSP_STAGE_DEATH
        FSP_STAGE_EXEC

    enum fsp_refusal:
        FSP_REFUSED_NOT
        FSP_REFUSED_SPAWN
        FSP_REFUSED_EXIT
        FSP_REFUSED_TIME
        FSP_REFUSED_BUILD
        FSP_REFUSED_THREADS
        FSP_REFUSED_PROC
        FSP_REFUSED_KERNEL
        FSP_REFUSED_EFFECT
        FSP_REFUSED_INPUTS
        FSP_REFUSED_MEMORY
        FSP_REFUSED_ATFORK
        FSP_REFUSED_TID
        FSP_REFUSED_LIBC
        FSP_REFUSED_DISPATCH
        FSP_REFUSED_VDSO
        FSP_REFUSED_TSC
        FSP_REFUSED_LOCKS
        FSP_REFUSED_UNFORKED
        FSP_REFUSED_LOOP
        FSP_REFUSED_SEED
        FSP_REFUSED_DRAWN
        FSP_REFUSED_EARLY
        FSP_REFUSED_PIDFD

    struct fsp_error:
        int err
        fsp_stage stage
        int index

    struct fsp_rlimit:
        int resource
        rlimit value

    unsigned FSP_FLAG_SETSID
    unsigned FSP_FLAG_CLOSE_FDS
    unsigned FSP_FLAG_RESTORE_SIGNALS
    unsigned FSP_FLAG_SETPGROUP
    unsigned FSP_FLAG_NO_NEW_PRIVS
    uint32_t FSP_ID_NONE

    struct fsp_spec:
        const char *file
        const char *const *argv
        const char *const *envp
        const char *search
        const char *cwd
        const char *cgroup
        const int *keep_fds
        size_t nkeep_fds
        const fsp_rlimit *rlimits
        size_t nrlimits
        const uint32_t *groups
        size_t ngroups
        uint32_t uid
        uint32_t gid
        int umask
        pid_t pgroup
        int death_signal
        unsigned flags

    struct fsp_plan
    int fsp_plan_new(const fsp_spec *spec, fsp_plan **out)
    void fsp_plan_unref(fsp_plan *plan)
    char *const *fsp_plan_environment(const fsp_plan *plan)
    int fsp_plan_resolve(const fsp_plan *plan, uint64_t max_age, char *buf, size_t size)

    struct fsp_child:
        pid_t pid
        int pidfd

    struct fsp_stdio:
        int fd[3]

    int fsp_spawn(const fsp_plan *plan, const fsp_stdio *io, unsigned flags,
                  const uint64_t *mask, fsp_child *child, fsp_error *error)

    struct fsp_start:
        fsp_child child
        int fd

    # The struct has the name of the function.
    int fsp_start_begin "fsp_start"(fsp_plan *plan, const fsp_stdio *io, fsp_start *start,
                                    fsp_error *error)
    int fsp_start_end(fsp_start *start, fsp_child *child, fsp_error *error)
    void fsp_start_drop(fsp_start *start)

    void fsp_ignore_signals(uint32_t set)
    int fsp_backend_select(const char *name)
    const char *fsp_backend_name()
    const char *fsp_backend_list(size_t i)

    struct fsp_status:
        int code
        int lost
        rusage usage

    int fsp_wait(fsp_child *child, int block, fsp_status *status)
    int fsp_reap(const fsp_child *child, int block, fsp_status *status)
    int fsp_look(const fsp_child *child, fsp_status *status)
    int fsp_kill(const fsp_child *child, int group, int sig)

    enum fsp_io:
        FSP_IO_INHERIT
        FSP_IO_NULL
        FSP_IO_PIPE
        FSP_IO_STDOUT
        FSP_IO_TERMINAL

    struct fsp_buf:
        char *data
        size_t len
        size_t cap

    struct fsp_talk:
        fsp_child child
        fsp_status status
        fsp_buf output[2]
        int fd[3]

    int fsp_talk_start(fsp_plan *plan, const fsp_io *how, const void *input,
                       size_t input_len, fsp_talk *talk, fsp_error *error)
    # The struct of the same name.
    int fsp_talk_on "fsp_talk"(fsp_talk *talk, uint64_t deadline, fsp_error *error)
    void fsp_talk_end(fsp_talk *talk)

    struct fsp_engine
    struct fsp_job

    struct fsp_limits:
        uint64_t timeout
        uint64_t kill_grace
        uint64_t drain
        uint64_t max_output

    unsigned FSP_JOB_STREAM
    unsigned FSP_JOB_FEED
    unsigned FSP_JOB_STARTED
    unsigned FSP_JOB_SPARE

    struct fsp_template:
        pass

    struct fsp_reset:
        pass

    struct fsp_size:
        unsigned short cols
        unsigned short rows

    struct fsp_job_options:
        # "in" is a keyword here
        fsp_io in_ "in"
        fsp_io out
        fsp_io err
        fsp_limits limits
        unsigned flags
        fsp_size size
        const void *input
        size_t input_len
        void *user
        fsp_template *snapshot
        fsp_reset *reset

    struct fsp_outcome:
        fsp_error error
        fsp_status status
        pid_t pid
        uint64_t wall
        fsp_buf output[2]
        unsigned timed_out
        unsigned truncated
        unsigned cancelled
        unsigned spare

    struct fsp_chunk:
        fsp_chunk *next
        int stream
        size_t len
        char data[1]

    struct fsp_news:
        unsigned started
        unsigned drained
        unsigned ended
        fsp_chunk *chunks

    struct fsp_template_state:
        unsigned spawners
        unsigned ready
        unsigned failures
        fsp_refusal why
        fsp_error error
        int status
        fsp_refusal no_checkpoint
        uint64_t forked
        uint64_t direct
        uint64_t restarted
        uint64_t checkpoints
        unsigned at_effect
        int stopped_by
        uint64_t stale
        unsigned useless

    int fsp_template_new(fsp_engine *engine, fsp_plan *plan, fsp_plan *start,
                         const char *library, uint64_t timeout, unsigned flags,
                         fsp_template **out)
    void fsp_template_get_state(fsp_template *t, fsp_template_state *out)
    size_t fsp_template_changed(fsp_template *t, char *buf, size_t size)
    size_t fsp_template_makers(fsp_template *t, char *buf, size_t size)
    void fsp_template_free(fsp_template *t)

    struct fsp_reset_state:
        uint64_t resets
        uint64_t leaves
        uint64_t retired
        uint64_t made
        unsigned residents
        unsigned off
        int left_by
        int error
        uint64_t calls
        uint64_t pages
        uint64_t restore_ns

    const unsigned FSP_CALLS
    int fsp_reset_new(fsp_engine *engine, fsp_template *t, fsp_reset **out)
    void fsp_reset_get_state(fsp_reset *reset, fsp_reset_state *out)
    uint64_t fsp_reset_left_by(fsp_reset *reset, unsigned call)
    void fsp_reset_free(fsp_reset *reset)

    struct fsp_engine_stats:
        uint64_t started
        uint64_t finished
        uint64_t retried
        unsigned running
        unsigned pending
        unsigned spawners
        unsigned private_tables

    int fsp_engine_new(unsigned spawners, const uint64_t *mask, fsp_engine **out)
    int fsp_engine_fd(const fsp_engine *engine)
    uint64_t fsp_engine_told(const fsp_engine *engine)
    fsp_job *fsp_engine_take(fsp_engine *engine)
    fsp_job *fsp_job_next(const fsp_job *job)
    fsp_news *fsp_job_news(fsp_job *job)
    void fsp_engine_stop(fsp_engine *engine)
    void fsp_engine_free(fsp_engine *engine)
    int fsp_engine_forked(const fsp_engine *engine)
    # The struct of the same name.
    void fsp_engine_get_stats "fsp_engine_stats"(fsp_engine *engine, fsp_engine_stats *out)
    int fsp_engine_submit(fsp_engine *engine, fsp_plan *plan, const fsp_job_options *options,
                          fsp_job **out)
    void *fsp_job_user(const fsp_job *job)
    fsp_outcome *fsp_job_outcome(fsp_job *job)
    int fsp_job_write(fsp_job *job, const void *data, size_t len)
    void fsp_job_write_eof(fsp_job *job)
    void fsp_job_consumed(fsp_job *job, int stream, size_t len)
    void fsp_job_adopt(fsp_job *job, int tell)
    void fsp_job_cancel(fsp_job *job)
    void fsp_job_signal(fsp_job *job, int group, int sig)
    void fsp_job_resize(fsp_job *job, fsp_size size)
    void fsp_job_free(fsp_job *job)

    struct fsp_outlet:
        pass
    struct fsp_outlet_state:
        size_t queued
        uint64_t dropped
        int error

    int fsp_outlet_new(int fd, size_t capacity, fsp_outlet **out)
    int fsp_outlet_put(fsp_outlet *o, const void *data, size_t len)
    void fsp_outlet_get_state(fsp_outlet *o, fsp_outlet_state *out)
    int fsp_outlet_free(fsp_outlet *o, uint64_t timeout)
