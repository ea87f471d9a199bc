/* What a client sees of an address, and which machines answer for it, every millisecond.
 *
 *   watch connects ADDRESS PORT EVERY                   TCP handshakes as any client makes them, one every EVERY milliseconds
 *   watch answers ADDRESS PORT INTERFACE OWN MAC...     who answers: ARP asked of everybody, a SYN to each of the MACs
 *
 * A line of output for each success: "BEGAN DONE" of a handshake, or "AT arp|syn MAC"; times in nanoseconds of
 * CLOCK_BOOTTIME. At the end of its standard input it says "ticks COUNT late WORST_NS" and ends. For "answers" the kernel
 * resets what it did not ask for, which is as well: the other side keeps no half-open connections.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { TICK_NS = 1000000, PATIENCE_TICKS = 100, MAX_FD = 4096, EVENTS = 64, MOST_MACHINES = 8, FRAME = 2048 };

static int poller;
static struct sockaddr_in target;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void add(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

/* --- handshakes */

static int64_t began[MAX_FD];
static int waiting[PATIENCE_TICKS];

static void drop(int fd)
{
    struct linger reset = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    began[fd] = 0;
}

static void connected(int fd)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (!began[fd])
        return;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (!error)
        printf("%lld %lld\n", (long long)began[fd], (long long)now_ns());
    drop(fd);
}

static void begin_one(uint64_t tick)
{
    int *slot = &waiting[tick % PATIENCE_TICKS];
    if (*slot > 0 && began[*slot])
        drop(*slot);
    *slot = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || fd >= MAX_FD)
        die("socket");
    began[fd] = now_ns();
    if (connect(fd, (struct sockaddr *)&target, sizeof target) < 0 && errno != EINPROGRESS) {
        drop(fd);
        return;
    }
    *slot = fd;
    add(fd, EPOLLOUT | EPOLLERR | EPOLLHUP);
}

/* --- who answers */

static int packets, machines;
static uint8_t own_mac[6], macs[MOST_MACHINES][6], arp[42], syn[54];
static struct in_addr own;

static uint16_t sum(const uint8_t *bytes, int count, uint32_t total)
{
    for (int i = 0; i < count; i += 2)
        total += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (uint16_t)total;
}

static void put16(uint8_t *place, uint16_t value)
{
    place[0] = value >> 8;
    place[1] = value & 0xff;
}

static void read_mac(const char *text, uint8_t *mac)
{
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6)
        die(text);
}

static void open_packets(const char *interface)
{
    struct sockaddr_ll where = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    socklen_t length = sizeof where;
    int yes = 1;
    packets = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
    where.sll_ifindex = (int)if_nametoindex(interface);
    if (packets < 0 || bind(packets, (struct sockaddr *)&where, sizeof where) < 0)
        die(interface);
    setsockopt(packets, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes);
    getsockname(packets, (struct sockaddr *)&where, &length);
    memcpy(own_mac, where.sll_addr, 6);
    add(packets, EPOLLIN);
}

static void prepare(void)
{
    static const uint8_t kind[] = {0, 1, 8, 0, 6, 4, 0, 1};
    memset(arp, 0xff, 6);
    memcpy(arp + 6, own_mac, 6);
    put16(arp + 12, ETH_P_ARP);
    memcpy(arp + 14, kind, 8);
    memcpy(arp + 22, own_mac, 6);
    memcpy(arp + 28, &own, 4);
    memcpy(arp + 38, &target.sin_addr, 4);

    memcpy(syn + 6, own_mac, 6);
    put16(syn + 12, ETH_P_IP);
    uint8_t *ip = syn + 14, *tcp = syn + 34;
    ip[0] = 0x45;
    put16(ip + 2, 40);
    ip[8] = 64;
    ip[9] = IPPROTO_TCP;
    memcpy(ip + 12, &own, 4);
    memcpy(ip + 16, &target.sin_addr, 4);
    put16(ip + 10, (uint16_t)~sum(ip, 20, 0));
    memcpy(tcp + 2, &target.sin_port, 2);
    tcp[12] = 5 << 4;
    tcp[13] = TH_SYN;
    put16(tcp + 14, 64240);
}

static void ask(uint64_t tick)
{
    uint8_t *tcp = syn + 34;
    send(packets, arp, sizeof arp, 0);
    for (int i = 0; i < machines; i++) {
        memcpy(syn, macs[i], 6);
        put16(tcp, (uint16_t)(20000 + (tick * machines + i) % 40000));
        put16(tcp + 4, (uint16_t)(tick * 7919));
        put16(tcp + 16, 0);
        put16(tcp + 16, (uint16_t)~sum(tcp, 20, sum(syn + 26, 8, IPPROTO_TCP + 20)));
        send(packets, syn, sizeof syn, 0);
    }
}

static void say(const char *what, const uint8_t *mac)
{
    printf("%lld %s %02x:%02x:%02x:%02x:%02x:%02x\n", (long long)now_ns(), what, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

static void hear(void)
{
    uint8_t frame[FRAME];
    ssize_t count;
    while ((count = recv(packets, frame, sizeof frame, 0)) > 0) {
        const uint8_t *ip = frame + 14, *tcp = frame + 34;
        if (count >= 42 && frame[12] == 8 && frame[13] == 6) {
            if (frame[21] == 2 && !memcmp(frame + 28, &target.sin_addr, 4))
                say("arp", frame + 22);
        } else if (count >= 54 && frame[12] == 8 && frame[13] == 0 && ip[9] == IPPROTO_TCP && !memcmp(ip + 12, &target.sin_addr, 4)) {
            if (!memcmp(tcp, &target.sin_port, 2) && (tcp[13] & (TH_SYN | TH_ACK | TH_RST)) == (TH_SYN | TH_ACK))
                say("syn", frame + 6);
        }
    }
}

int main(int count, char **words)
{
    int answers = count > 6 && !strcmp(words[1], "answers");
    if (count < 5)
        return 2;
    int every = answers ? 1 : atoi(words[4]);
    poller = epoll_create1(0);
    target.sin_family = AF_INET;
    target.sin_port = htons((uint16_t)atoi(words[3]));
    inet_aton(words[2], &target.sin_addr);
    if (answers) {
        inet_aton(words[5], &own);
        for (int i = 6; i < count && machines < MOST_MACHINES; i++)
            read_mac(words[i], macs[machines++]);
        open_packets(words[4]);
        prepare();
    }
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec each = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};
    timerfd_settime(timer, 0, &each, NULL);
    add(timer, EPOLLIN);
    add(STDIN_FILENO, EPOLLIN);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);

    uint64_t ticks = 0, woken = 0, expired;
    int64_t last = now_ns(), late = 0;
    struct epoll_event events[EVENTS];
    char rest[64];
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == timer) {
                if (read(timer, &expired, sizeof expired) < 0)
                    continue;
                int64_t now = now_ns();
                if (woken++ && now - last - TICK_NS > late)
                    late = now - last - TICK_NS;
                last = now;
                ticks++;
                if (answers)
                    ask(ticks);
                else if (ticks % (uint64_t)every == 0)
                    begin_one(ticks / (uint64_t)every);
            } else if (fd == STDIN_FILENO) {
                if (read(fd, rest, sizeof rest) == 0) {
                    printf("ticks %llu late %lld\n", (unsigned long long)ticks, (long long)late);
                    return 0;
                }
            } else if (answers) {
                hear();
            } else {
                connected(fd);
            }
        }
    }
}
