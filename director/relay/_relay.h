/* The native relay: worker threads that move bytes between two connected sockets, outside the interpreter.
 *
 * Each worker has an epoll object and a table of slots; a slot is one connection. The way of a connection:
 *
 *   reactor's thread                          worker
 *   slot_take, fill it in
 *   epoll_ctl both descriptors, then inbox -> adopt: into the timer wheel
 *                                             events and timers: conn_*, stream_pump
 *                                             conn_end: close both, leave word in the outbox
 *   drain the outbox, slot_give
 *
 * Who may touch what:
 *
 * - A slot is given out and taken back by the reactor's thread alone; in between it is the worker's, but for the
 *   fields marked otherwise. A worker forgets a slot for good before it puts it in the outbox, and slots go there only
 *   between two batches of events: so nothing of a batch can concern a slot that was given out since.
 * - Descriptors stay registered under (generation, slot, side). An event whose generation is not the slot's is stale,
 *   say because a forked child still holds a descriptor that was closed here, and is ignored.
 * - Inbox and outbox are under the worker's lock, held for a few pointer moves at a time.
 * - Submitting costs no system call beyond the two epoll_ctl: what happens at the descriptors wakes the worker, and an
 *   eventfd does where it would sleep past the new connection's deadline.
 *
 * Times are of CLOCK_MONOTONIC, in milliseconds or, named so, in microseconds. Functions that can fail on the kernel's or the allocator's refusal say
 * so; such a refusal ends one connection with RELAY_ERROR and leaves the others alone.
 */
#ifndef TXDIRECTOR_RELAY_H
#define TXDIRECTOR_RELAY_H

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

/* One read by copying, and so what a stalled direction may hold. A read that fills it proves bulk. */
#define CHUNK_BYTES 32768
/* Below this much in a turn a direction is no bulk any more: two splices cost more than copying so little. */
#define BULK_BYTES 16384
/* What one direction may move before the others get their turn. Tests build with less. */
#ifndef TURN_BYTES
#define TURN_BYTES 524288
#endif
/* Chunks kept for the next stall; more are freed when they come back. */
#define IDLE_CHUNKS 64

/* What a pipe of full size is said to hold: 16 pages, the kernel's default. */
#define PIPE_BYTES 65536
/* A large pipe; as many as stay, with the others, within two thirds of an ordinary user's pages. Each round trip through
 * one moves eight times as much: bulk costs half. */
#define LARGE_PIPE_BYTES 524288
#define LARGE_PIPES 32
/* Asked of one splice. */
#define SPLICE_BYTES 524288
/* In use and idle, over all workers: half of what an ordinary user may have (pipe-user-pages-soft). */
#define MAX_PIPES 512
/* Kept for the next burst; more are closed when they come back. */
#define IDLE_PIPES 64
/* After the kernel refused a pipe, this many requests are answered "none" before it is asked again. */
#define PIPE_PATIENCE 1000

/* Events taken from the kernel at once. */
#define BATCH 256
/* A worker that has just been busy looks at its inbox at least this often, so that submitting need not wake it. */
#define NAP_MS 1000
/* What threads are called, with the worker's number behind it: `top -H` shows it. 15 characters at most. */
#define THREAD_NAME "relay-"
/* What the scheduler lets a worker run at a time (EEVDF). Its default of about 3 ms is also the time that a worker, waking
 * up on the interpreter's core, may have to wait; a short slice lets it preempt. */
#define SLICE_NS 100000
/* How long a reset may wait for the other side's send queue to empty. */
#define RST_GRACE_MS 1000

/* Deadlines: see _relay_wheel.c. */
#define TICK_MS 10
#define WHEEL_TICKS 2048
#define HORIZON_TICKS 1600

/* A handle is generation, worker and slot over one bit, which is a side in epoll's data. A generation comes again after
 * 2^39 uses of one slot: years at ten thousand connections a second. */
#define SLOT_BITS 20
#define WORKER_BITS 4
#define MAX_WORKERS (1 << WORKER_BITS)
#define ID_OF(generation, worker, slot)                                                                              \
    ((uint64_t)(generation) << (SLOT_BITS + WORKER_BITS + 1) | (uint64_t)(worker) << (SLOT_BITS + 1) |               \
     (uint64_t)(slot) << 1)
#define SLOT_OF(id) ((uint32_t)((id) >> 1) & ((1u << SLOT_BITS) - 1))
#define WORKER_OF(id) ((unsigned)((id) >> (SLOT_BITS + 1)) & (MAX_WORKERS - 1))
/* Epoll's data of the eventfd: no slot has generation 0. */
#define WAKE_ID 0

/* Slots are allocated this many at a time, and kept until the relay stops. */
#define SLAB_SLOTS 512
#define SLABS ((1u << SLOT_BITS) / SLAB_SLOTS)
#define NONE UINT32_MAX

/* Tallies are allocated this many at a time, and kept until the relay stops: a quarter of a million hosts. */
#define SLAB_TALLIES 256
#define TALLY_SLABS 1024
/* A host that begins to speak after so long, without having been asked, pushes. Longer than a throttled cgroup's pause
 * (quotas are of 100 ms by default), so that an answer in several pieces is no push. As in turnarounds.py. */
#define STILL_US 150000

/* Read and written without a lock, by one writer. */
#define PEEK(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define POST(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)

enum side { CLIENT, HOST, NOBODY };

/* Why a connection ended, as far as the relay finds out by itself; `kill` brings others. Order of REASONS. */
enum reason {
    CLIENT_CLOSED,
    HOST_CLOSED,
    CLIENT_RESET,
    HOST_RESET,
    CLIENT_LOST,
    HOST_LOST,
    IDLE_TIMEOUT,
    HALF_CLOSED_TIMEOUT,
    MAX_AGE,
    SHUTDOWN,
    RELAY_ERROR,
    NO_REASON = UINT8_MAX,
};

enum state { CONNECTING, RELAYING, OVER };

/* Of an end: the descriptor's ... */
enum {
    READABLE = 1,  /* not known to block */
    WRITABLE = 2,  /* not known to block */
    WAITS = 4,     /* registered for writability */
    FINISHING = 8, /* the peer's FIN is announced; bytes may be left before it */
    URGENT = 16,   /* TCP urgent data was seen: a read stops before its mark, so a short one proves nothing */
    BROKEN = 32,   /* reset, timed out or unreachable */
    /* ... and of the stream that starts there */
    BULK = 64,    /* worth a pipe */
    AT_END = 128, /* read to its end */
    DONE = 256,   /* its end is passed on, or what is left is of no use */
    ASKED = 1024, /* the client's: its bytes came after the host's last */
    /* of the descriptor again */
    LOST = 512, /* broken, because the peer answers no more */
};

/* Bytes that were read and that the other end would not take. */
struct chunk {
    struct chunk *next; /* in the pool */
    uint32_t start, size;
    uint32_t room; /* CHUNK_BYTES for the pool's */
    char bytes[];
};

struct pipe {
    struct pipe *next; /* in the pool */
    int reader, writer;
    size_t held;
};

/* A descriptor, and the stream that starts there and ends at the other end. */
struct end {
    int fd;
    uint32_t flags;
    struct chunk *hold;
    struct pipe *pipe; /* borrowed while something is inside */
    int64_t moved;     /* bytes the other end took; starts below 0 by the length of a preface. Others may PEEK */
};

struct link {
    uint32_t next, prev;
};

/* A slot. Kept small: thousands sit idle. */
struct conn {
    struct end end[2];
    uint64_t id;         /* its handle; of the next use while free. Written by the reactor's thread; others PEEK */
    void *token;         /* the reactor's thread's */
    int64_t started_ms;
    int64_t active_us;   /* last progress in either direction. Others may PEEK */
    int64_t reset_by_ms; /* when the other end is reset at the latest */
    uint32_t connect_ticks, idle_ticks, half_closed_ticks, max_age_ticks; /* 0: no such limit */
    struct link timer;   /* in a bucket of the wheel; `next` also in inbox, outbox and free list */
    struct link again;   /* in the list of those whose turn was over with more to do */
    uint32_t told_next;  /* in the outbox of established connects */
    uint32_t kill_next;
    int error;           /* errno of a failed connect, else 0 */
    uint32_t tally;      /* where its turnarounds are counted; 0: nowhere */
    uint16_t bucket;     /* of the wheel; WHEEL_TICKS: outside */
    uint8_t state;       /* others may PEEK */
    uint8_t again_sides; /* bits 1 << side; 0: not in the list */
    uint8_t reset_from;  /* the side that broke */
    uint8_t reason;      /* whose FIN or RST came first; in the end, why it is over */
    uint8_t kill_reason; /* the reactor's thread's; NO_REASON: nobody ordered it */
    bool refused;        /* epoll would not have it. The reactor's thread's, before the inbox */
    bool adopted;        /* came through the inbox */
    bool connected;      /* the connect succeeded */
    bool resets;         /* is to be closed by RST */
    bool stalled;        /* counted in the gauge */
};

/* What the connections of one host did, as one worker saw it. The worker writes, others PEEK. */
struct tally {
    int64_t count, micros; /* turnarounds, and their time */
    int64_t unasked;       /* times that the host began to speak after a silence, without having been asked */
};

/* A queue of slots, linked by `timer.next` or `told_next`. */
struct queue {
    uint32_t head, tail;
};

struct worker {
    pthread_t thread;
    unsigned number;
    int epoll;
    int wake;         /* eventfd, edge-triggered, never read */
    int signal;       /* eventfd that the reactor reads; all workers' */
    uint32_t pipe_share, large_pipe_share; /* of MAX_PIPES and LARGE_PIPES */

    struct conn *slabs[SLABS]; /* written by the reactor's thread before a slot of it is used */
    struct tally *tallies[TALLY_SLABS]; /* likewise */

    /* the reactor's thread */
    uint32_t free, slot_count, open, connecting;
    int64_t asked_ms, asked_rounds; /* when it was asked for a round, and how many it had made; asked_ms 0: never */
    struct queue told_drained, over_drained;

    /* under the lock */
    pthread_mutex_t lock;
    struct queue inbox, told, over; /* in; connected, over: out */
    uint32_t killed;                /* orders, newest first, by `kill_next` */
    int64_t sleeps_until_ms; /* 0: awake, and looks at the inbox before it sleeps */
    bool eager;              /* wake it for whatever comes into the inbox */
    bool stopping;
    uint32_t slots_used; /* as of the last submission */

    /* the worker */
    int64_t now_us, now_ms;
    struct queue told_now, over_now; /* on their way to the outbox */
    uint32_t again;
    uint32_t unadopted; /* over, but not seen in the inbox yet */
    int64_t busy_ms; /* when it last had something to do */
    uint32_t bucket[WHEEL_TICKS];
    uint64_t occupied[WHEEL_TICKS / 64];
    int64_t served_tick; /* all before, and this one, were looked at */
    struct chunk *chunks;
    uint32_t idle_chunks;
    struct pipe *pipes;
    uint32_t idle_pipes;
    uint32_t refusals_left;
    char scratch[CHUNK_BYTES];

    /* gauges and totals: the worker writes, others PEEK */
    int64_t rounds;
    int64_t moved[2], spliced;
    uint32_t stalled, pipe_count;
};

/* _relay_pool.c */
struct conn *slot_at(struct worker *w, uint32_t slot);
struct conn *slot_take(struct worker *w);
void slot_give(struct worker *w, struct conn *c);
struct chunk *chunk_of(const void *bytes, size_t size);
struct chunk *chunk_borrow(struct worker *w, const char *bytes, size_t size);
void chunk_return(struct worker *w, struct chunk *chunk);
struct pipe *pipe_borrow(struct worker *w);
void pipe_return(struct worker *w, struct pipe *pipe);
void pipe_drop(struct worker *w, struct pipe *pipe);
void pools_close(struct worker *w);

/* _relay_tally.c: which tallies are taken, for the reactor's thread; 0 is none */
struct tallies {
    struct tally_use *uses[TALLY_SLABS];
    uint32_t free, count;
};
uint32_t tally_take(struct tallies *t, struct worker *const *workers, unsigned worker_count); /* 0: no memory */
void tally_give(struct tallies *t, struct worker *const *workers, unsigned worker_count, uint32_t number);
bool tally_enter(struct tallies *t, uint32_t number); /* a connection; false: no such tally */
void tally_leave(struct tallies *t, struct worker *const *workers, unsigned worker_count, uint32_t number);
struct tally tally_read(const struct tallies *t, struct worker *const *workers, unsigned worker_count, uint32_t number);
void tallies_close(struct tallies *t);

/* _relay_wheel.c */
void wheel_init(struct worker *w);
void wheel_put(struct worker *w, struct conn *c, int64_t at_ms);
void wheel_sooner(struct worker *w, struct conn *c, int64_t at_ms);
void wheel_drop(struct worker *w, struct conn *c);
int64_t wheel_next_ms(const struct worker *w);
void wheel_run(struct worker *w, void (*look)(struct worker *, struct conn *));

/* _relay_stream.c */
enum pumped {
    PUMPED,    /* until something blocked, ended or broke */
    TURN_OVER, /* there is more, but others come first */
    REFUSED,   /* the kernel or the allocator has no memory for us; the peers are not to blame */
};
enum pumped stream_pump(struct worker *w, struct conn *c, enum side side);
void stream_discard(struct worker *w, struct end *source);
bool is_lost(int error); /* no reset: keepalive or the retransmissions ended it, for want of an answer */

/* _relay_conn.c: what events, timers and orders mean for a connection. Each may end it. */
void conn_adopt(struct worker *w, struct conn *c);
void conn_ready(struct worker *w, struct conn *c, enum side side, uint32_t mask);
void conn_again(struct worker *w, struct conn *c);
void conn_look(struct worker *w, struct conn *c);
void conn_end(struct worker *w, struct conn *c, uint8_t reason, bool reset);

/* _relay_worker.c: for the reactor's thread */
int worker_start(struct worker *w, unsigned number, unsigned workers, unsigned pipes, int signal); /* 0 or an errno */
void worker_submit(struct worker *w, struct conn *c);
void worker_kill(struct worker *w, struct conn *c, uint8_t reason);
int64_t worker_owes_ms(struct worker *w);
void worker_stop(struct worker *w); /* returns when the thread is gone */
void worker_close(struct worker *w);
int64_t monotonic_us(void);

void queue_put(struct worker *w, struct queue *queue, struct conn *c, size_t next);
#define BY_TIMER offsetof(struct conn, timer.next)
#define BY_TOLD offsetof(struct conn, told_next)

static inline bool is_empty(const struct end *source) { return source->hold == NULL && source->pipe == NULL; }

#endif
