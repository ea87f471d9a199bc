/* The bench's backend and load generator: one thread, epoll, no allocation while it runs.
 *
 *   load backend PORT                          serve until killed
 *   load messages PORT CONNECTIONS BYTES SECONDS   keep-alive ping-pong
 *   load connections PORT CONCURRENCY SECONDS      connect, one exchange, close
 *   load bulk PORT STREAMS MEGABYTES SECONDS       downloads of MEGABYTES each, one after the other on each stream
 *   load idle PORT CONNECTIONS                 open, one exchange each, say so, hold until standard input closes
 *
 * The first byte of a connection tells the backend what to do: 'e' echo everything; 'b' and eight bytes of a count
 * (native order): send so many bytes, then close. Results are one line of JSON. All on 127.0.0.1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FD = 1 << 17, PIECE = 1 << 18, EVENTS = 512, EXCHANGE = 64, BUCKETS = 4096 };

static char buffer[PIECE];
static struct {
    char mode;          /* backend: 0 until the first byte */
    int want;           /* client: bytes of the answer still to come */
    int64_t left;       /* bulk: bytes still to send or to receive */
    int64_t began_ns;
} state[MAX_FD];
static int64_t histogram[BUCKETS]; /* 16 buckets for each power of two of nanoseconds */
static int poller;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void observe(int64_t ns) {
    int power = 63 - __builtin_clzll((uint64_t)ns | 16);
    histogram[power * 16 + (int)((ns >> (power - 4)) & 15)]++;
}

static double quantile_us(double q) {
    int64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += histogram[i];
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (total && seen >= q * total) return (16 + i % 16 + 1) * (double)(1LL << (i / 16)) / 16 / 1000;
    }
    return 0;
}

static struct sockaddr_in address(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return a;
}

static void watch(int op, int fd, uint32_t events) {
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, op, fd, &e) < 0) die("epoll_ctl");
}

static void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* ---- backend ---- */

static void send_bulk(int fd) {
    for (int turns = 0; state[fd].left > 0 && turns < 8; turns++) {
        ssize_t n = send(fd, buffer, state[fd].left < PIECE ? state[fd].left : PIECE, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN) close(fd);
            return;
        }
        state[fd].left -= n;
    }
    if (state[fd].left == 0) close(fd);
}

static void serve(int fd, uint32_t events) {
    if (events & EPOLLOUT) {
        send_bulk(fd);
        return;
    }
    ssize_t n = recv(fd, buffer, PIECE, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) close(fd);
        return;
    }
    if (!state[fd].mode) state[fd].mode = buffer[0];
    if (state[fd].mode == 'e') {
        if (send(fd, buffer, n, MSG_NOSIGNAL) != n) close(fd);
    } else {
        memcpy(&state[fd].left, buffer + 1, 8);
        watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    }
}

static void backend(int port) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = address(port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    no_delay(listener); /* accepted sockets inherit it */
    if (bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 4096) < 0) die("listen");
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    for (;;) {
        struct epoll_event ready[EVENTS];
        int count = epoll_wait(poller, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd != listener) {
                serve(fd, ready[i].events);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                state[fd].mode = 0;
                watch(EPOLL_CTL_ADD, fd, EPOLLIN);
            }
        }
    }
}

/* ---- clients ---- */

static int open_client(int port) {
    struct sockaddr_in a = address(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) die("socket");
    no_delay(fd);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS) die("connect");
    watch(EPOLL_CTL_ADD, fd, EPOLLOUT);
    state[fd].began_ns = now_ns();
    return fd;
}

static void request(int fd, int size) {
    if (send(fd, buffer, size, MSG_NOSIGNAL) != size) die("send");
    state[fd].want = size;
}

/* Take what came of an answer; whether it is whole. */
static int answered(int fd) {
    ssize_t n = recv(fd, buffer, PIECE, 0);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n <= 0) die("an answer was cut off");
    state[fd].want -= n;
    return state[fd].want <= 0;
}

static void messages(int port, int connections, int size, double seconds, int new_each_time) {
    int64_t done = 0, start = now_ns(), end = start + (int64_t)(seconds * 1e9), now = start;
    memset(buffer, 'e', sizeof buffer);
    for (int i = 0; i < connections; i++) open_client(port);
    while (now < end) {
        struct epoll_event ready[EVENTS];
        int count = epoll_wait(poller, ready, EVENTS, 1000);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (ready[i].events & EPOLLOUT) {
                watch(EPOLL_CTL_MOD, fd, EPOLLIN);
                request(fd, size);
            } else if (answered(fd)) {
                now = now_ns();
                observe(now - state[fd].began_ns);
                done++;
                buffer[0] = 'e';
                if (new_each_time) {
                    close(fd);
                    open_client(port);
                } else {
                    state[fd].began_ns = now;
                    request(fd, size);
                }
            }
        }
        now = now_ns();
    }
    printf("{\"done\": %lld, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", (long long)done,
           (now - start) / 1e9, quantile_us(0.5), quantile_us(0.99));
}

static void bulk(int port, int streams, int64_t size, double seconds) {
    int64_t received = 0, start = now_ns(), end = start + (int64_t)(seconds * 1e9);
    for (int i = 0; i < streams; i++) open_client(port);
    while (now_ns() < end) {
        struct epoll_event ready[EVENTS];
        int count = epoll_wait(poller, ready, EVENTS, 1000);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (ready[i].events & EPOLLOUT) {
                char ask[9] = {'b'};
                memcpy(ask + 1, &size, 8);
                if (send(fd, ask, 9, MSG_NOSIGNAL) != 9) die("send");
                watch(EPOLL_CTL_MOD, fd, EPOLLIN);
                state[fd].left = size;
                continue;
            }

            ssize_t n = recv(fd, buffer, PIECE, 0);
            if (n < 0 && errno == EAGAIN) continue;
            if (n < 0) die("recv");
            received += n;
            state[fd].left -= n;
            if (n == 0) {
                if (state[fd].left) die("a download was cut off");
                close(fd);
                open_client(port);
            }
        }
    }
    printf("{\"done\": %lld, \"seconds\": %.6f}\n", (long long)received, (now_ns() - start) / 1e9);
}

static void idle(int port, int connections) {
    int left = connections;
    memset(buffer, 'e', sizeof buffer);
    for (int opened = 0; left > 0;) {
        struct epoll_event ready[EVENTS];
        for (int burst = 0; opened < connections && burst < 64; burst++, opened++) open_client(port);
        int count = epoll_wait(poller, ready, EVENTS, 1000);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (ready[i].events & EPOLLOUT) {
                watch(EPOLL_CTL_MOD, fd, EPOLLIN);
                request(fd, EXCHANGE);
            } else if (answered(fd)) {
                left--;
            }
        }
    }
    printf("{\"done\": %d}\n", connections);
    fflush(stdout);
    while (read(0, buffer, 1) > 0) {
    }
}

int main(int argc, char **argv) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < MAX_FD ? limit.rlim_max : MAX_FD;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(0);
    int port = argc > 2 ? atoi(argv[2]) : 0;
    if (argc == 3 && !strcmp(argv[1], "backend")) backend(port);
    else if (argc == 6 && !strcmp(argv[1], "messages")) messages(port, atoi(argv[3]), atoi(argv[4]), atof(argv[5]), 0);
    else if (argc == 5 && !strcmp(argv[1], "connections")) messages(port, atoi(argv[3]), EXCHANGE, atof(argv[4]), 1);
    else if (argc == 6 && !strcmp(argv[1], "bulk")) bulk(port, atoi(argv[3]), atoll(argv[4]) << 20, atof(argv[5]));
    else if (argc == 4 && !strcmp(argv[1], "idle")) idle(port, atoi(argv[3]));
    else return 2;
    return 0;
}
