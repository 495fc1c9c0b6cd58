/*
 * tap.h - tests that print TAP, and that leave nothing behind.
 *
 * A program calls tap_begin, RUNs its tests, and returns tap_end().  A test is one TAP line: it
 * fails with the first CHECK that fails (the later ones still run and are shown), when it leaves a
 * descriptor, a child or a thread behind or has lost one, and when it takes longer than a test can.
 */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>

#define RUN(test)         tap_run(#test, test)
#define CHECK(condition)  tap_check((condition) ? 1 : 0, __FILE__, __LINE__, #condition)
#define CHECK_INT(is, be) tap_check_int((long long)(is), (long long)(be), __FILE__, __LINE__, #is)
#define CHECK_STR(is, be) tap_check_str(is, be, __FILE__, __LINE__, #is)
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!CHECK(condition)) return;                                                             \
    } while (0)

/* Poll until the condition holds; false when it does not for longer than anything here takes. */
#define WAIT_UNTIL(condition)                                                                      \
    ({                                                                                             \
        int wait_left_ = TAP_PATIENCE_MS;                                                          \
        while (!(condition) && wait_left_-- > 0) tap_millisecond();                                \
        wait_left_ >= 0;                                                                           \
    })
#define TAP_PATIENCE_MS 300000

void tap_begin(void);
int tap_end(void); /* the exit status */

/* Say what the next tests run with, NULL to say nothing. */
void tap_with(const char *what);

void tap_run(const char *name, void (*test)(void));
bool tap_check(bool ok, const char *file, int line, const char *what);
bool tap_check_int(long long is, long long be, const char *file, int line, const char *what);
bool tap_check_str(const char *is, const char *be, const char *file, int line, const char *what);
void tap_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tap_millisecond(void);

/*
 * Run a part of a test in a forked process of its own, for what cannot be undone: its failures are
 * the test's.  What it leaves behind counts too.
 */
void tap_fork(void (*part)(void *), void *arg);

/* The same, for parts that run side by side. */
int tap_fork_start(void (*part)(void *), void *arg);
bool tap_fork_end(int pid); /* did it pass? */

#endif
