/*
 * Load at a fixed rate: a request goes out when it is due, answered or not the others.
 *
 *     pace PORT RATE SECONDS CONNECTIONS EXPECTED
 *
 * One thread, and CONNECTIONS kept open to 127.0.0.1, so that it takes as little as can be of the
 * machine that it shares with the server: a write, a read and two waits for each request. The
 * request that is due goes out on the connection that was used last of those that are free; where
 * none is, it waits, and its latency, which counts from the moment at which it was due, grows.
 * Every status and every body is compared. One line of JSON goes to stdout, times in microseconds:
 *
 *     answers, wrong, told (the first that was wrong), seconds
 *     p50_us, p99_us, p999_us, max_us     from the moment at which a request was due
 *     sent_p99_us, late_p99_us            from the sending; of the sending behind that moment
 *
 * Not done here: TLS, pipelining, answers beyond 64 KiB.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND  1000000000ull
#define PATIENT (30 * SECOND) /* for the last answers */
#define NOBODY  (-1l)

static const char request[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

struct connection {
    int fd;
    long serves; /* which request; NOBODY: it is free */
    size_t have;
    char data[65536];
};

static struct {
    int port, poller;
    long count;
    uint64_t start, interval_ps; /* 1 ns in 70 us would be a request in each second */
    const char *expected;
    struct connection *connection;
    /* Who has waited longest is next: none waits for so long that a server would close it. */
    long *idle, nidle, first, connections;
    uint32_t *late, *took; /* ns, of each request */
    long answers, wrong;
    char told[160];
} run;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static uint64_t due(long i) {
    return run.start + (uint64_t)i * run.interval_ps / 1000;
}

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "pace: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- connections ---- */

static void open_connection(struct connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)run.port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0) fail("fcntl");
    if (epoll_ctl(run.poller, EPOLL_CTL_ADD, c->fd, &event) < 0) fail("epoll_ctl");
    c->have = 0;
    c->serves = NOBODY;
}

static void reopen(struct connection *c) {
    close(c->fd);
    open_connection(c);
}

static void release(struct connection *c) {
    c->have = 0;
    c->serves = NOBODY;
    run.idle[(run.first + run.nidle++) % run.connections] = c - run.connection;
}

static struct connection *take(void) {
    struct connection *c = &run.connection[run.idle[run.first]];
    run.first = (run.first + 1) % run.connections;
    run.nidle--;
    return c;
}

/* ---- one answer ---- */

static void is_wrong(const char *why, const struct connection *c) {
    if (run.wrong++ == 0) {
        snprintf(run.told, sizeof run.told, "%s: %.60s", why, c->have ? c->data : "");
        for (char *p = run.told; *p; p++) /* it goes into JSON */
            if ((unsigned char)*p < ' ' || *p == '"' || *p == '\\' || *p & 0x80) *p = ' ';
    }
}

static const char *header(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, length) == 0) return line + length + strspn(line + length, " ");
    }
    return NULL;
}

/* Chunks put together at `body`: their length, or -1: more of them have to come. */
static long join(char *body, const char *end) {
    char *to = body, *from = body;
    for (;;) {
        char *data = strstr(from, "\r\n");
        if (data == NULL) return -1;
        size_t size = strtoul(from, NULL, 16);
        data += 2;
        if (size > (size_t)(end - data) || (size_t)(end - data) - size < 2) return -1;
        if (size == 0) return to - body;
        memmove(to, data, size);
        to += size;
        from = data + size + 2;
    }
}

/* Its body is complete: its length.  -1: not yet. */
static long body_of(struct connection *c, char **body) {
    char *end = strstr(c->data, "\r\n\r\n");
    if (end == NULL) return -1;
    *body = end + 4;
    end[2] = '\0'; /* the end of the head */
    const char *length = header(c->data, "content-length:");
    long size = -1, there = (long)(c->data + c->have - *body);
    if (length) {
        size = atol(length);
        if (size > there) size = -1;
    } else {
        /* Joined in a copy: what is here may have to be read on. */
        static char copy[sizeof c->data];
        memcpy(copy, *body, (size_t)there + 1);
        size = join(copy, copy + there);
        if (size >= 0) memcpy(*body, copy, (size_t)size);
    }
    end[2] = '\r';
    return size;
}

static void answered(struct connection *c, const char *body, long size) {
    int right = strncmp(c->data, "HTTP/1.1 200 ", 13) == 0 && size == (long)strlen(run.expected) &&
                memcmp(body, run.expected, (size_t)size) == 0;
    if (!right) is_wrong("answer", c);
    run.took[c->serves] = (uint32_t)(now() - due(c->serves) - run.late[c->serves]);
    run.answers++;
    const char *connection = header(c->data, "connection:");
    if (connection && strncasecmp(connection, "close", 5) == 0) reopen(c);
    release(c);
}

static void hear(struct connection *c) {
    ssize_t n = read(c->fd, c->data + c->have, sizeof c->data - 1 - c->have);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        if (c->serves != NOBODY) { /* it gets no answer any more */
            is_wrong("closed", c);
            run.took[c->serves] = UINT32_MAX;
            run.answers++;
            reopen(c);
            release(c);
        } else
            reopen(c); /* one that nobody used for a while */
        return;
    }
    c->have += (size_t)n;
    c->data[c->have] = '\0';
    char *body;
    long size = body_of(c, &body);
    if (size >= 0) answered(c, body, size);
}

/* ---- the run ---- */

static void ask(long i) {
    struct connection *c = take();
    c->serves = i;
    run.late[i] = (uint32_t)(now() - due(i));
    if (write(c->fd, request, sizeof request - 1) == sizeof request - 1) return;
    reopen(c); /* closed just now */
    c->serves = i;
    if (write(c->fd, request, sizeof request - 1) != sizeof request - 1) fail("write");
}

static int wait_until(uint64_t moment, struct epoll_event *events, int max) {
    uint64_t t = now(), left = moment > t ? moment - t : 0;
    struct timespec timeout = {(time_t)(left / SECOND), (long)(left % SECOND)};
    int n = (int)syscall(SYS_epoll_pwait2, run.poller, events, max, &timeout, NULL, 0);
    if (n < 0 && errno != EINTR) fail("epoll_pwait2");
    return n;
}

static void attack(void) {
    struct epoll_event events[64];
    run.start = now() + SECOND / 100;
    for (long next = 0; run.answers < run.count;) {
        while (next < run.count && run.nidle && due(next) <= now()) ask(next++);
        uint64_t until = next < run.count && run.nidle ? due(next) : now() + PATIENT;
        int n = wait_until(until, events, 64);
        if (n == 0 && (next == run.count || run.nidle == 0)) {
            errno = ETIMEDOUT;
            fail("answers");
        }
        for (int i = 0; i < n; i++) hear(events[i].data.ptr);
    }
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile(const uint32_t *sorted, double q) {
    return sorted[(long)(q * (double)(run.count - 1) + 0.5)] / 1e3;
}

static void tell(double seconds) {
    size_t count = (size_t)run.count;
    qsort(run.took, count, sizeof *run.took, compare);
    qsort(run.late, count, sizeof *run.late, compare);
    printf("\"sent_p99_us\":%.1f,\"late_p99_us\":%.1f,\"seconds\":%.6f,\"answers\":%ld,"
           "\"wrong\":%ld,\"told\":\"%s\"}\n",
           quantile(run.took, 0.99), quantile(run.late, 0.99), seconds, run.answers, run.wrong,
           run.told);
}

static void tell_of_due(void) {
    size_t count = (size_t)run.count;
    uint32_t *all = calloc(count, sizeof *all);
    if (all == NULL) fail("memory");
    for (size_t i = 0; i < count; i++) {
        uint64_t sum = (uint64_t)run.late[i] + run.took[i];
        all[i] = sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
    }
    qsort(all, count, sizeof *all, compare);
    printf("{\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,", quantile(all, 0.5),
           quantile(all, 0.99), quantile(all, 0.999), quantile(all, 1));
    free(all);
}

int main(int argc, char **argv) {
    long rate = argc == 6 ? atol(argv[2]) : 0;
    double seconds = argc == 6 ? atof(argv[3]) : 0;
    run.connections = argc == 6 ? atol(argv[4]) : 0;
    if (rate < 1 || run.connections < 1 || seconds <= 0) {
        fprintf(stderr, "usage: pace PORT RATE SECONDS CONNECTIONS EXPECTED\n");
        return 2;
    }
    run.port = atoi(argv[1]);
    run.expected = argv[5];
    run.interval_ps = SECOND * 1000 / (uint64_t)rate;
    run.count = (long)((double)rate * seconds);
    if (run.count < 1) run.count = 1;
    run.connection = calloc((size_t)run.connections, sizeof *run.connection);
    run.idle = calloc((size_t)run.connections, sizeof *run.idle);
    run.late = calloc((size_t)run.count, sizeof *run.late);
    run.took = calloc((size_t)run.count, sizeof *run.took);
    run.poller = epoll_create1(EPOLL_CLOEXEC);
    if (!run.connection || !run.idle || !run.late || !run.took || run.poller < 0) fail("memory");
    prctl(PR_SET_TIMERSLACK, 1); /* 50 us by default */
    for (long i = 0; i < run.connections; i++) {
        open_connection(&run.connection[i]);
        release(&run.connection[i]);
    }
    attack();
    double took = (double)(now() - run.start) / 1e9;
    tell_of_due();
    tell(took);
    return 0;
}
