/* The bench's backend and clients: single-threaded, epoll, cheap enough never to be the bottleneck.
 *
 *   load backend ECHO ONCE BULK      serve on three ports of 127.0.0.1 until killed
 *   load small PORT CONNS SECONDS    64-byte messages to and fro on CONNS connections; prints messages
 *   load connect PORT CONNS SECONDS  connect, one message, closed by the backend; prints connections
 *   load bulk PORT CONNS BYTES       each connection downloads BYTES; prints bytes
 *   load idle PORT CONNS             one message on each, prints "ready", holds them until standard input ends
 *
 * Client modes print "<count> <seconds> <failures>".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE = 64, CHUNK = 256 * 1024, FDS = 65536 };
enum kind { ECHO = 1, ONCE, BULK, LISTEN_ECHO, LISTEN_ONCE, LISTEN_BULK };

static int ep;
static unsigned char kinds[FDS];
static long long left[FDS]; /* bulk: bytes still to send (backend) or to receive (client) */
static char chunk[CHUNK];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) { perror(what); exit(1); }

static void watch(int fd, unsigned events, int op) {
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (epoll_ctl(ep, op, fd, &e) < 0) die("epoll_ctl");
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static void nodelay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void serve(int port, enum kind kind) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in a = loopback(port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&a, sizeof a) < 0 || listen(fd, 4096) < 0) die("listen");
    kinds[fd] = kind;
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
}

static void pump(int fd) { /* backend's bulk: send until the kernel has enough */
    while (left[fd] > 0) {
        ssize_t n = send(fd, chunk, left[fd] < CHUNK ? left[fd] : CHUNK, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN) close(fd);
            return;
        }
        left[fd] -= n;
    }
    close(fd);
}

static void backend_event(int fd, unsigned events) {
    if (kinds[fd] >= LISTEN_ECHO) {
        int client;
        while ((client = accept4(fd, 0, 0, SOCK_NONBLOCK)) >= 0) {
            kinds[client] = kinds[fd] - LISTEN_ECHO + ECHO;
            left[client] = -1;
            nodelay(client);
            watch(client, EPOLLIN, EPOLL_CTL_ADD);
        }
        return;
    }
    if (kinds[fd] == BULK && left[fd] >= 0) {
        pump(fd);
        return;
    }
    char buffer[4096];
    ssize_t n = recv(fd, buffer, sizeof buffer - 1, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) close(fd);
        return;
    }
    if (kinds[fd] == BULK) {
        buffer[n] = 0;
        left[fd] = atoll(buffer);
        watch(fd, EPOLLOUT, EPOLL_CTL_MOD);
        pump(fd);
        return;
    }
    if (send(fd, buffer, n, MSG_NOSIGNAL) < 0 || kinds[fd] == ONCE) close(fd);
    (void)events;
}

static int begin(int port) { /* a client's connection, message sent as soon as it is connected */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = loopback(port);
    if (fd < 0) die("socket");
    nodelay(fd);
    if (connect(fd, (void *)&a, sizeof a) < 0 && errno != EINPROGRESS) die("connect");
    kinds[fd] = 0;
    watch(fd, EPOLLOUT, EPOLL_CTL_ADD);
    return fd;
}

int main(int argc, char **argv) {
    struct epoll_event events[512];
    ep = epoll_create1(0);
    if (argc == 5 && !strcmp(argv[1], "backend")) {
        for (int i = 0; i < 3; i++) serve(atoi(argv[2 + i]), LISTEN_ECHO + i);
        for (;;) {
            int n = epoll_wait(ep, events, 512, -1);
            for (int i = 0; i < n; i++) backend_event(events[i].data.fd, events[i].events);
        }
    }
    if (argc < 4) die("usage");
    const char *mode = argv[1];
    int port = atoi(argv[2]), conns = atoi(argv[3]), bulk = !strcmp(mode, "bulk"), idle = !strcmp(mode, "idle");
    int once = !strcmp(mode, "connect");
    double seconds = !bulk && !idle ? atof(argv[4]) : 1e9, start = now();
    long long count = 0, failures = 0, open = conns, ready = 0;
    for (int i = 0; i < conns; i++) begin(port);
    while (open > 0 && now() - start < seconds) {
        int n = epoll_wait(ep, events, 512, 100);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (events[i].events & EPOLLOUT) { /* connected: say the first thing */
                char line[MESSAGE] = {0};
                if (bulk) snprintf(line, sizeof line, "%s\n", argv[4]);
                watch(fd, EPOLLIN, EPOLL_CTL_MOD);
                if (send(fd, line, sizeof line, MSG_NOSIGNAL) < 0) failures++;
                continue;
            }
            ssize_t got = recv(fd, chunk, CHUNK, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got > 0) {
                kinds[fd] = 1; /* answered */
                if (bulk) count += got;
                else if (idle) ready++;
                else if (!once) { count++; if (send(fd, chunk, got, MSG_NOSIGNAL) < 0) failures++; }
                continue;
            }
            if (once && got == 0 && kinds[fd]) count++;
            else if (!(bulk && got == 0)) failures++;
            close(fd);
            if (once) begin(port); else open--;
        }
        if (idle && ready >= open) {
            printf("ready %lld\n", failures);
            fflush(stdout);
            while (read(0, chunk, CHUNK) > 0) {}
            return 0;
        }
    }
    printf("%lld %.6f %lld\n", count, now() - start, failures);
    return 0;
}
