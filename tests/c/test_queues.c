/*
 * test_queues.c - the engine's heap, slots and pipes by themselves.
 */
#include "engine/engine.h"

#include "support.h"
#include "tap.h"

#define JOBS 400

static struct fsp_job jobs[JOBS];

static unsigned long state = 1;

static unsigned long draw(unsigned long below) {
    state = state * 6364136223846793005ul + 1442695040888963407ul;
    return (state >> 33) % below;
}

static struct fsp_job *earliest(const bool *in) {
    struct fsp_job *first = NULL;
    for (int i = 0; i < JOBS; i++)
        if (in[i] && (!first || jobs[i].next_due < first->next_due)) first = &jobs[i];
    return first;
}

static void the_heap_knows_what_is_next(void) {
    static bool in[JOBS];
    struct fsp_heap heap = {0};
    size_t n = 0;
    memset(in, 0, sizeof in);
    for (int step = 0; step < 20000; step++) {
        size_t i = draw(JOBS);
        if (!in[i]) {
            jobs[i].next_due = draw(1000);
            CHECK_INT(fsp_heap_reserve(&heap), 0);
            fsp_heap_add(&heap, &jobs[i]);
            n++;
            in[i] = true;
        } else if (draw(3)) {
            jobs[i].next_due = draw(1000);
            fsp_heap_moved(&heap, &jobs[i]);
        } else {
            fsp_heap_remove(&heap, &jobs[i]);
            n--;
            in[i] = false;
        }
        REQUIRE(CHECK_INT(heap.n, n));
        if (n) REQUIRE(heap.jobs[0]->next_due == earliest(in)->next_due);
        for (size_t j = 0; j < n; j++) REQUIRE(heap.jobs[j]->heap_index == j);
    }
    while (heap.n) {
        REQUIRE(heap.jobs[0]->next_due == earliest(in)->next_due);
        in[heap.jobs[0] - jobs] = false;
        fsp_heap_remove(&heap, heap.jobs[0]);
    }
    free(heap.jobs);
}

/* What a poller still says of a job that has ended is no one's, whoever has its slot now. */
static void a_name_is_good_for_one_job(void) {
    struct fsp_slots slots = {0};
    enum fsp_source source;
    static uint64_t token[JOBS][4];
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < JOBS; i++) {
            CHECK_INT(fsp_slots_reserve(&slots), 0);
            fsp_slots_add(&slots, &jobs[i]);
            for (int s = 0; s < 4; s++) {
                uint64_t old = token[i][s];
                token[i][s] = fsp_slots_token(&slots, &jobs[i], (enum fsp_source)s);
                CHECK(token[i][s] != UINT64_MAX); /* which is the waker's */
                if (round) CHECK(fsp_slots_find(&slots, old, &source) == NULL);
            }
        }
        for (int i = 0; i < JOBS; i++)
            for (int s = 0; s < 4; s++) {
                CHECK(fsp_slots_find(&slots, token[i][s], &source) == &jobs[i]);
                CHECK_INT(source, s);
            }
        for (int i = 0; i < JOBS; i++) {
            fsp_slots_remove(&slots, &jobs[i]);
            CHECK(fsp_slots_find(&slots, token[i][0], &source) == NULL);
        }
    }
    CHECK(fsp_slots_find(&slots, (uint64_t)1 << 32 | 1 << 20, &source) == NULL);
    free(slots.slot);
}

static void growth_may_fail(void) {
    struct fsp_heap heap = {0};
    struct fsp_slots slots = {0};
    faults_arm("realloc", ENOMEM, 0, 2);
    CHECK_INT(fsp_heap_reserve(&heap), -ENOMEM);
    CHECK_INT(fsp_slots_reserve(&slots), -ENOMEM);
    CHECK_INT(fsp_heap_reserve(&heap), 0);
    CHECK_INT(fsp_slots_reserve(&slots), 0);
    faults_off();
    free(heap.jobs);
    free(slots.slot);
}

static bool is_nonblocking(int fd) {
    return fcntl(fd, F_GETFL) & O_NONBLOCK;
}

static void expect_pipe(const int fd[2], bool first_is_ours) {
    char byte;
    CHECK_INT(is_nonblocking(fd[0]), first_is_ours);
    CHECK_INT(is_nonblocking(fd[1]), !first_is_ours);
    CHECK(fcntl(fd[0], F_GETFD) == FD_CLOEXEC && fcntl(fd[1], F_GETFD) == FD_CLOEXEC);
    CHECK(write(fd[1], "x", 1) == 1 && read(fd[0], &byte, 1) == 1 && byte == 'x');
}

/* Whether opened ahead or not: each is handed out once, and only our end does not block. */
static void pipes_opened_ahead(void) {
    struct fsp_pipes pipes = {0};
    int fd[FSP_PIPES_AHEAD + 2][2];
    fsp_pipes_fill(&pipes);
    CHECK_INT(pipes.n, FSP_PIPES_AHEAD);
    for (size_t i = 0; i < LENGTH(fd); i++) {
        CHECK_INT(fsp_pipe_from_child(&pipes, fd[i]), 0);
        expect_pipe(fd[i], true);
        for (size_t j = 0; j < i; j++) CHECK(fd[i][0] != fd[j][0] && fd[i][1] != fd[j][1]);
    }
    CHECK_INT(pipes.n, 0);
    for (size_t i = 0; i < LENGTH(fd); i++) {
        close(fd[i][0]);
        close(fd[i][1]);
    }
    CHECK_INT(fsp_pipe_to_child(fd[0]), 0);
    expect_pipe(fd[0], false);
    close(fd[0][0]);
    close(fd[0][1]);
    fsp_pipes_fill(&pipes);
    fsp_pipes_close(&pipes);
    CHECK_INT(pipes.n, 0);
}

static void pipes_may_fail(void) {
    struct fsp_pipes pipes = {0};
    static const char *const calls[] = {"pipe2", "fcntl"};
    int fd[2];
    for (size_t i = 0; i < LENGTH(calls); i++)
        for (long k = 0; k <= FSP_PIPES_AHEAD; k++) {
            faults_arm(calls[i], EMFILE, k, FAULTS_ALL);
            fsp_pipes_fill(&pipes);
            CHECK_INT(pipes.n, k < FSP_PIPES_AHEAD ? k : FSP_PIPES_AHEAD);
            fsp_pipes_close(&pipes);
            CHECK_INT(fsp_pipe_from_child(&pipes, fd), -EMFILE);
            CHECK_INT(fsp_pipe_to_child(fd), -EMFILE);
            faults_off();
        }
}

int main(int argc, char **argv) {
    support_begin(argc, argv);
    tap_begin();
    RUN(the_heap_knows_what_is_next);
    RUN(a_name_is_good_for_one_job);
    RUN(growth_may_fail);
    RUN(pipes_opened_ahead);
    RUN(pipes_may_fail);
    return tap_end();
}
