/* System calls and allocations as the relay makes them; with RELAY_FAULTS tests can have them fail. */
#ifndef TXDIRECTOR_RELAY_SYS_H
#define TXDIRECTOR_RELAY_SYS_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum site { AT_RECV, AT_SEND, AT_SPLICE, AT_PIPE, AT_EPOLL_ADD, AT_EPOLL_MOD, AT_ALLOCATION, SITES };

#ifdef RELAY_FAULTS
bool fault(enum site site); /* sets errno when the call is to fail */
void fault_order(enum site site, int error, int skip, int count);
int gate(int timeout); /* epoll_wait's timeout, once the worker may look at its events */
void gate_hold(bool hold);
void gate_look(int rounds);
#else
static inline bool fault(enum site site) { return (void)site, false; }
static inline int gate(int timeout) { return timeout; }
#endif

static inline ssize_t sys_recv(int fd, void *into, size_t size)
{
    return fault(AT_RECV) ? -1 : recv(fd, into, size, MSG_DONTWAIT);
}

static inline ssize_t sys_send(int fd, const void *bytes, size_t size)
{
    return fault(AT_SEND) ? -1 : send(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static inline ssize_t sys_splice(int from, int to, size_t size)
{
    return fault(AT_SPLICE) ? -1 : splice(from, NULL, to, NULL, size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}

static inline int sys_pipe(int ends[2])
{
    return fault(AT_PIPE) ? -1 : pipe2(ends, O_NONBLOCK | O_CLOEXEC);
}

static inline int sys_epoll_ctl(int epoll, int operation, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    return fault(operation == EPOLL_CTL_ADD ? AT_EPOLL_ADD : AT_EPOLL_MOD) ? -1
                                                                           : epoll_ctl(epoll, operation, fd, &event);
}

static inline void *sys_allocate(size_t size)
{
    return fault(AT_ALLOCATION) ? NULL : malloc(size);
}

#endif
