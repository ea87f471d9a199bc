/* Deadlines that are cheap to set, cheap to drop, and never early.
 *
 * A ring of buckets, one a tick. A connection sits in one bucket, at most HORIZON_TICKS away. Nothing moves when it
 * makes progress: whoever finds it due works out the real deadline and puts it back when that is later. Due times are
 * rounded up to between 1/16 and 1/8 of the wait, so that thousands of idle connections come due together and a worker
 * with nothing else to do wakes less than once a second.
 */
#include "_relay.h"

void wheel_init(struct worker *w)
{
    for (uint32_t i = 0; i < WHEEL_TICKS; i++)
        w->bucket[i] = NONE;
    w->served_tick = w->now_ms / TICK_MS;
}

/* Have *c*, which is outside, come due at *at_ms*, or earlier if that is beyond the horizon. */
void wheel_put(struct worker *w, struct conn *c, int64_t at_ms)
{
    int64_t ticks = at_ms > w->now_ms ? (at_ms - w->now_ms) / TICK_MS + 1 : 1;
    if (ticks > HORIZON_TICKS)
        ticks = HORIZON_TICKS;
    int bits = 32 - __builtin_clz((uint32_t)ticks);
    int64_t step = 1 << (bits > 4 ? bits - 4 : 0);
    int64_t tick = (w->now_ms / TICK_MS + ticks + step - 1) / step * step;
    uint32_t slot = SLOT_OF(c->id), *head = &w->bucket[tick % WHEEL_TICKS];
    c->bucket = tick % WHEEL_TICKS;
    c->timer = (struct link){.next = *head, .prev = NONE};
    if (*head != NONE)
        slot_at(w, *head)->timer.prev = slot;
    *head = slot;
    w->occupied[c->bucket / 64] |= 1ull << c->bucket % 64;
}

void wheel_drop(struct worker *w, struct conn *c)
{
    if (c->bucket == WHEEL_TICKS)
        return;
    if (c->timer.next != NONE)
        slot_at(w, c->timer.next)->timer.prev = c->timer.prev;
    if (c->timer.prev != NONE)
        slot_at(w, c->timer.prev)->timer.next = c->timer.next;
    else if ((w->bucket[c->bucket] = c->timer.next) == NONE)
        w->occupied[c->bucket / 64] &= ~(1ull << c->bucket % 64);
    c->bucket = WHEEL_TICKS;
}

/* Ticks from *from* to the first occupied bucket; WHEEL_TICKS: there is none. */
static int64_t distance(const struct worker *w, int64_t from)
{
    uint32_t start = from % WHEEL_TICKS;
    uint64_t word = w->occupied[start / 64] >> start % 64;
    if (word != 0)
        return __builtin_ctzll(word);
    for (uint32_t i = 1; i <= WHEEL_TICKS / 64; i++) {
        word = w->occupied[(start / 64 + i) % (WHEEL_TICKS / 64)];
        if (word != 0)
            return i * 64 - start % 64 + __builtin_ctzll(word);
    }
    return WHEEL_TICKS;
}

/* Like wheel_put for one that may be inside: it never moves to a later bucket. */
void wheel_sooner(struct worker *w, struct conn *c, int64_t at_ms)
{
    if (c->bucket != WHEEL_TICKS) {
        int64_t next = w->served_tick + 1;
        int64_t tick = next + ((c->bucket - next) % WHEEL_TICKS + WHEEL_TICKS) % WHEEL_TICKS;
        if (tick * TICK_MS <= at_ms)
            return;
        wheel_drop(w, c);
    }
    wheel_put(w, c, at_ms);
}

/* When the first of them is due; INT64_MAX when the wheel is empty. */
int64_t wheel_next_ms(const struct worker *w)
{
    int64_t ticks = distance(w, w->served_tick + 1);
    return ticks == WHEEL_TICKS ? INT64_MAX : (w->served_tick + 1 + ticks) * TICK_MS;
}

/* Take out all that is due and have a *look* at each, which may put it back. */
void wheel_run(struct worker *w, void (*look)(struct worker *, struct conn *))
{
    int64_t now_tick = w->now_ms / TICK_MS;
    if (now_tick - w->served_tick > WHEEL_TICKS) /* the machine slept: once around meets them all */
        w->served_tick = now_tick - WHEEL_TICKS;
    while (w->served_tick < now_tick) {
        int64_t tick = w->served_tick + 1 + distance(w, w->served_tick + 1);
        w->served_tick = tick < now_tick ? tick : now_tick;
        if (tick > now_tick)
            return;
        uint32_t bucket = tick % WHEEL_TICKS, slot = w->bucket[bucket];
        w->bucket[bucket] = NONE; /* detached: after a long sleep they may be put back just here */
        w->occupied[bucket / 64] &= ~(1ull << bucket % 64);
        while (slot != NONE) {
            struct conn *c = slot_at(w, slot);
            slot = c->timer.next;
            c->bucket = WHEEL_TICKS;
            look(w, c);
        }
    }
}
