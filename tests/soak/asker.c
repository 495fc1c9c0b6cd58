/*
 * asker.c - so many requests to answer.c's programs, and whether each answer is its request's own.
 *
 *     asker PORT PATH COUNT CONNECTIONS FIRST NUMBERS GIVEN DRAWN
 *
 * A thread for each of CONNECTIONS, which asks again as soon as it was answered. Nonces go up from
 * FIRST by 64, so that every status is 0. GIVEN: 1, the nonce is in the query, too; 0, "-" is. The
 * NUMBERS random ones of each answer go to the file DRAWN, 8 bytes each. Exits with 1 at the first
 * answer that is not its request's own, or that does not come.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST    4 /* random numbers in an answer */
#define PATIENT 240

static struct {
    int port, numbers, given;
    const char *path;
    uint64_t first, count;
    _Atomic uint64_t next;
    FILE *drawn;
} run;

struct in {
    int fd;
    size_t from, to;
    char data[4096];
};

static _Noreturn void fail(const char *what, ...) {
    va_list words;
    va_start(words, what);
    fputs("asker: ", stderr);
    vfprintf(stderr, what, words);
    fputc('\n', stderr);
    exit(1);
}

/* ---- what comes in -------------------------------------------------------------------------- */

static char next_byte(struct in *in) {
    if (in->from == in->to) {
        ssize_t n = recv(in->fd, in->data, sizeof in->data, 0);
        if (n <= 0) fail("no answer: %s", n ? strerror(errno) : "closed");
        in->from = 0, in->to = (size_t)n;
    }
    return in->data[in->from++];
}

static void next_line(struct in *in, char *line, size_t size) {
    size_t n = 0;
    for (char c; (c = next_byte(in)) != '\n';) {
        if (n + 1 == size) fail("a line that is too long");
        line[n++] = c;
    }
    line[n - (n && line[n - 1] == '\r')] = '\0';
}

static size_t take(struct in *in, size_t n, char *body, size_t at, size_t size) {
    if (n >= size - at) fail("a body that is too long");
    while (n--) body[at++] = next_byte(in);
    body[at] = '\0';
    return at;
}

static void read_chunks(struct in *in, char *body, size_t size) {
    char line[256];
    for (size_t at = 0, n = 1; n; next_line(in, line, sizeof line)) {
        next_line(in, line, sizeof line);
        n = strtoul(line, NULL, 16);
        at = take(in, n, body, at, size);
    }
}

/* Returns the status. */
static int read_answer(struct in *in, char *body, size_t size) {
    char line[256];
    size_t length = 0;
    int status, chunked = 0;
    next_line(in, line, sizeof line);
    if (sscanf(line, "HTTP/1.1 %d ", &status) != 1) fail("a first line: %s", line);
    while (next_line(in, line, sizeof line), line[0]) {
        if (strncasecmp(line, "content-length:", 15) == 0) length = strtoul(line + 15, NULL, 10);
        chunked |= strcasecmp(line, "transfer-encoding: chunked") == 0;
    }
    if (chunked)
        read_chunks(in, body, size);
    else
        take(in, length, body, 0, size);
    return status;
}

/* ---- a request ------------------------------------------------------------------------------ */

static int connect_to(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patient = {.tv_sec = PATIENT};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) fail("%s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patient, sizeof patient);
    return fd;
}

static void ask(int fd, uint64_t nonce, const char *given) {
    char input[64], text[512];
    int size = snprintf(input, sizeof input, "%ju none\n", (uintmax_t)nonce);
    int n = snprintf(text, sizeof text,
                     "POST %s?n=%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s",
                     run.path, given, size, input);
    if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n) fail("sent in part");
}

static void check(int status, const char *body, uint64_t nonce, const char *given) {
    char own[160];
    uint64_t drawn[MOST];
    int n = snprintf(own, sizeof own, "%ju %s %s 0", (uintmax_t)nonce, given, given), found = 0;
    const char *at = body + n;
    if (status != 200 || strncmp(body, own, (size_t)n)) goto wrong;
    for (char *end; *at == ' ' && found < MOST; at = end)
        drawn[found++] = strtoull(at + 1, &end, 16);
    if (strcmp(at, "\n") || found != run.numbers) goto wrong;
    fwrite(drawn, sizeof *drawn, (size_t)found, run.drawn);
    return;
wrong:
    fail("%d %s for %s", status, body, own);
}

static void *client(void *unused) {
    struct in in = {.fd = connect_to(run.port)};
    char body[1024], given[32] = "-";
    for (uint64_t i; (i = run.next++) < run.count;) {
        uint64_t nonce = run.first + i * 64;
        if (run.given) snprintf(given, sizeof given, "g%ju", (uintmax_t)nonce * 7);
        ask(in.fd, nonce, given);
        check(read_answer(&in, body, sizeof body), body, nonce, given);
    }
    close(in.fd);
    return unused;
}

int main(int argc, char **argv) {
    if (argc != 9) fail("8 arguments");
    int clients = atoi(argv[4]);
    pthread_t *threads = calloc((size_t)clients, sizeof *threads);
    run.port = atoi(argv[1]);
    run.path = argv[2];
    run.count = strtoull(argv[3], NULL, 10);
    run.first = strtoull(argv[5], NULL, 10);
    run.numbers = atoi(argv[6]);
    run.given = atoi(argv[7]);
    run.drawn = fopen(argv[8], "ab");
    if (!threads || !run.drawn) fail("%s", strerror(errno));
    for (int i = 0; i < clients; i++)
        if (pthread_create(&threads[i], NULL, client, NULL)) fail("no thread");
    for (int i = 0; i < clients; i++) pthread_join(threads[i], NULL);
    return fclose(run.drawn) != 0;
}
