/* A worker's thread, and its border to the reactor's. */
#include "_relay.h"
#include "_relay_sys.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

int64_t monotonic_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static uint32_t *next_of(struct conn *c, size_t next) { return (uint32_t *)((char *)c + next); }

/* Append *c*; *next*: which of its links (BY_TIMER, BY_TOLD). */
void queue_put(struct worker *w, struct queue *queue, struct conn *c, size_t next)
{
    *next_of(c, next) = NONE;
    if (queue->head == NONE)
        queue->head = SLOT_OF(c->id);
    else
        *next_of(slot_at(w, queue->tail), next) = SLOT_OF(c->id);
    queue->tail = SLOT_OF(c->id);
}

/* Append all of *from* and leave it empty. */
static void queue_move(struct worker *w, struct queue *queue, struct queue *from, size_t next)
{
    if (from->head == NONE)
        return;
    if (queue->head == NONE)
        queue->head = from->head;
    else
        *next_of(slot_at(w, queue->tail), next) = from->head;
    queue->tail = from->tail;
    from->head = NONE;
}

static void write_eventfd(int fd)
{
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* --- the thread ---------------------------------------------------------------------------------------------------- */

/* Under one lock: word out, submissions and orders in, and how long to sleep. Returns epoll_wait's timeout. */
static int exchange(struct worker *w, bool *stopping)
{
    int64_t until = w->again != NONE ? 0 : wheel_next_ms(w);
    if (until > w->busy_ms + NAP_MS && w->busy_ms + NAP_MS > w->now_ms)
        until = w->busy_ms + NAP_MS;

    pthread_mutex_lock(&w->lock);
    bool was_empty = w->told.head == NONE && w->over.head == NONE;
    queue_move(w, &w->told, &w->told_now, BY_TOLD);
    queue_move(w, &w->over, &w->over_now, BY_TIMER);
    bool tell = was_empty && !(w->told.head == NONE && w->over.head == NONE);
    uint32_t slot = w->inbox.head, killed = NONE;
    w->inbox.head = NONE;
    for (uint32_t next; w->killed != NONE; w->killed = next) {
        struct conn *c = slot_at(w, w->killed);
        next = c->kill_next;
        if (c->state != OVER) { /* else it may be given back as soon as the lock is open */
            c->kill_next = killed;
            killed = w->killed;
        }
    }
    *stopping = w->stopping;
    if (slot != NONE || killed != NONE || *stopping)
        until = 0;
    w->sleeps_until_ms = until;
    w->eager = w->unadopted > 0;
    pthread_mutex_unlock(&w->lock);

    if (tell)
        write_eventfd(w->signal);
    while (slot != NONE) {
        struct conn *c = slot_at(w, slot);
        slot = c->timer.next;
        conn_adopt(w, c);
    }
    while (killed != NONE) {
        struct conn *c = slot_at(w, killed);
        killed = c->kill_next;
        if (c->state != OVER)
            conn_end(w, c, c->kill_reason, true);
    }
    if (until == INT64_MAX)
        return -1;
    int64_t wait = until - w->now_ms;
    return wait < 0 ? 0 : wait + 1;
}

static void end_all(struct worker *w)
{
    for (uint32_t slot = 0; slot < w->slots_used; slot++) {
        struct conn *c = slot_at(w, slot);
        if (c->adopted && c->state != OVER)
            conn_end(w, c, SHUTDOWN, true);
    }
}

static void serve(struct worker *w, const struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t data = events[i].data.u64, id = data & ~1ull;
        if (data == WAKE_ID)
            continue;
        struct conn *c = slot_at(w, SLOT_OF(id));
        if (PEEK(c->id) == id && c->state != OVER)
            conn_ready(w, c, data & 1, events[i].events);
    }
}

/* Ask for short slices; a kernel that knows none (before 6.12) ignores it or refuses, and all is as usual. */
static void be_prompt(void)
{
    struct { /* struct sched_attr, which the C library's headers cannot stand beside their own */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = sizeof attributes, .policy = SCHED_OTHER, .nice = getpriority(PRIO_PROCESS, 0),
                    .runtime = SLICE_NS};
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static void *work(void *argument)
{
    struct worker *w = argument;
    char name[16];
    snprintf(name, sizeof name, THREAD_NAME "%u", w->number);
    prctl(PR_SET_NAME, name);
    be_prompt();
    struct epoll_event events[BATCH];
    bool stopping = false;
    for (;;) {
        int timeout = exchange(w, &stopping);
        if (stopping)
            break;
        timeout = gate(timeout);
        int count = epoll_wait(w->epoll, events, BATCH, timeout);
        w->now_us = monotonic_us();
        w->now_ms = w->now_us / 1000;
        if (count > 0) {
            w->busy_ms = w->now_ms;
            serve(w, events, count);
        }
        uint32_t slot = w->again; /* a turn for each that was there; those that come back wait for the next round */
        w->again = NONE;
        while (slot != NONE) {
            struct conn *c = slot_at(w, slot);
            slot = c->again.next;
            conn_again(w, c);
        }
        wheel_run(w, conn_look);
        POST(w->rounds, w->rounds + 1);
    }
    end_all(w);
    exchange(w, &stopping);
    return NULL;
}

/* --- the reactor's side -------------------------------------------------------------------------------------------- */

int worker_start(struct worker *w, unsigned number, unsigned workers, unsigned pipes, int signal)
{
    memset(w, 0, sizeof *w);
    w->number = number;
    w->signal = signal;
    w->pipe_share = pipes / workers;
    w->large_pipe_share = LARGE_PIPES / workers;
    w->free = w->again = w->killed = NONE;
    w->inbox.head = w->told.head = w->over.head = w->told_now.head = w->over_now.head = NONE;
    w->told_drained.head = w->over_drained.head = NONE;
    w->now_us = monotonic_us();
    w->now_ms = w->now_us / 1000;
    wheel_init(w);
    pthread_mutex_init(&w->lock, NULL);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = w->epoll < 0 || w->wake < 0 ? errno : 0;
    if (error == 0 && sys_epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake, EPOLLIN | EPOLLET, WAKE_ID) < 0)
        error = errno;
    if (error == 0) {
        sigset_t all, before; /* signals are the interpreter's; SIGPIPE, which splice may raise, nobody's */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        error = pthread_create(&w->thread, NULL, work, w);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (error != 0)
        worker_close(w);
    return error;
}

/* Hand over *c*, whose ends, token and limits are filled in. Failure comes out as an event. */
void worker_submit(struct worker *w, struct conn *c)
{
    uint32_t read_events = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET;
    bool refused =
        sys_epoll_ctl(w->epoll, EPOLL_CTL_ADD, c->end[CLIENT].fd, read_events, c->id | CLIENT) < 0 ||
        sys_epoll_ctl(w->epoll, EPOLL_CTL_ADD, c->end[HOST].fd, read_events | EPOLLOUT, c->id | HOST) < 0;
    int64_t look_ms = c->connect_ticks > 0 ? c->started_ms + (int64_t)c->connect_ticks * TICK_MS : INT64_MAX;
    pthread_mutex_lock(&w->lock);
    c->refused = refused;
    queue_put(w, &w->inbox, c, BY_TIMER);
    w->slots_used = w->slot_count;
    bool wake = refused || w->eager || look_ms < w->sleeps_until_ms;
    pthread_mutex_unlock(&w->lock);
    if (wake)
        write_eventfd(w->wake);
}

/* The first order counts. */
void worker_kill(struct worker *w, struct conn *c, uint8_t reason)
{
    bool wake = false;
    if (c->kill_reason != NO_REASON)
        return;
    pthread_mutex_lock(&w->lock);
    if (PEEK(c->state) != OVER) {
        c->kill_reason = reason;
        c->kill_next = w->killed;
        w->killed = SLOT_OF(c->id);
        wake = w->sleeps_until_ms != 0;
    }
    pthread_mutex_unlock(&w->lock);
    if (wake)
        write_eventfd(w->wake);
}

/* For how long the thread has owed a round. It may sleep without end while there is nothing to do, so each look that finds
 * the last one paid asks for the next. */
int64_t worker_owes_ms(struct worker *w)
{
    int64_t now_ms = monotonic_us() / 1000, rounds = PEEK(w->rounds);
    if (w->asked_ms != 0 && rounds == w->asked_rounds)
        return now_ms - w->asked_ms;
    w->asked_ms = now_ms;
    w->asked_rounds = rounds;
    write_eventfd(w->wake);
    return 0;
}

void worker_stop(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_mutex_unlock(&w->lock);
    write_eventfd(w->wake);
    pthread_join(w->thread, NULL);
}

/* Release everything. The thread is gone, or never was. */
void worker_close(struct worker *w)
{
    if (w->epoll >= 0)
        close(w->epoll);
    if (w->wake >= 0)
        close(w->wake);
    pools_close(w);
    pthread_mutex_destroy(&w->lock);
}
