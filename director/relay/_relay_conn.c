/* The rules of a connection's life: what events, timers and orders mean for it.
 *
 *   CONNECTING --host answers--> RELAYING --both directions done, a limit, an order, a reset passed on--> OVER
 *        '-------------a failed connect, a limit, an order, the client's RST-------------------------------'
 *
 * A reset of one end does not end the connection at once: what could still be read from there is passed on first, and
 * the other end is reset once its send queue is empty, or after RST_GRACE_MS.
 */
#include "_relay.h"
#include "_relay_sys.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#define READ_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET)

static struct end *end_of(struct conn *c, enum side side) { return &c->end[side]; }

/* When the next limit runs out if nothing moves until then, and the reason it gives; NO_REASON for a connect. */
static int64_t deadline(const struct conn *c, uint8_t *reason)
{
    uint32_t quiet = c->idle_ticks;
    int64_t from = c->active_us / 1000;
    *reason = IDLE_TIMEOUT;
    if (c->state == CONNECTING) {
        quiet = c->connect_ticks;
        from = c->started_ms;
        *reason = NO_REASON;
    } else if ((c->end[CLIENT].flags | c->end[HOST].flags) & DONE) {
        quiet = c->half_closed_ticks;
        *reason = HALF_CLOSED_TIMEOUT;
    }
    int64_t at = quiet > 0 ? from + (int64_t)quiet * TICK_MS : INT64_MAX;
    int64_t oldest = c->started_ms + (int64_t)c->max_age_ticks * TICK_MS;
    if (c->state != CONNECTING && c->max_age_ticks > 0 && oldest < at) {
        *reason = MAX_AGE;
        return oldest;
    }
    return at;
}

static int64_t next_look(struct worker *w, const struct conn *c)
{
    uint8_t reason;
    if (c->reset_from == NOBODY)
        return deadline(c, &reason);
    return c->reset_by_ms < w->now_ms + TICK_MS ? c->reset_by_ms : w->now_ms + TICK_MS;
}

/* A limit may have moved closer. */
static void look_sooner(struct worker *w, struct conn *c)
{
    if (c->adopted)
        wheel_sooner(w, c, next_look(w, c));
}

/* --- the list of those with more to do ----------------------------------------------------------------------------- */

static void again(struct worker *w, struct conn *c, enum side side)
{
    if (c->again_sides == 0) {
        c->again = (struct link){.next = w->again, .prev = NONE};
        if (w->again != NONE)
            slot_at(w, w->again)->again.prev = SLOT_OF(c->id);
        w->again = SLOT_OF(c->id);
    }
    c->again_sides |= 1 << side;
}

static void not_again(struct worker *w, struct conn *c)
{
    if (c->again_sides == 0)
        return;
    if (c->again.next != NONE)
        slot_at(w, c->again.next)->again.prev = c->again.prev;
    if (c->again.prev != NONE)
        slot_at(w, c->again.prev)->again.next = c->again.next;
    else
        w->again = c->again.next;
    c->again_sides = 0;
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

static void note_stalled(struct worker *w, struct conn *c)
{
    bool stalled = c->state == RELAYING && !(is_empty(&c->end[CLIENT]) && is_empty(&c->end[HOST]));
    if (stalled != c->stalled) {
        c->stalled = stalled;
        POST(w->stalled, stalled ? w->stalled + 1 : w->stalled - 1);
    }
}

/* Let go of the descriptors and leave word. Not before the reactor's thread has put it into the inbox, which it does
 * after the last system call on them. */
static void finish(struct worker *w, struct conn *c)
{
    static const struct linger at_once = {.l_onoff = 1};
    if (c->error != 0) { /* the client goes back */
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, c->end[CLIENT].fd, NULL);
        close(c->end[HOST].fd);
    } else {
        for (enum side side = CLIENT; side <= HOST; side++) {
            struct end *end = end_of(c, side);
            if (c->resets && !(end->flags & BROKEN))
                setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
            close(end->fd);
        }
    }
    queue_put(w, &w->over_now, c, BY_TIMER);
}

static void over(struct worker *w, struct conn *c)
{
    POST(c->state, OVER);
    stream_discard(w, end_of(c, CLIENT));
    stream_discard(w, end_of(c, HOST));
    note_stalled(w, c);
    not_again(w, c);
    if (c->adopted) {
        wheel_drop(w, c);
        finish(w, c);
    } else {
        w->unadopted++;
    }
}

/* Close both ends, with RST if *reset*. */
void conn_end(struct worker *w, struct conn *c, uint8_t reason, bool reset)
{
    c->reason = reason;
    c->resets = reset;
    over(w, c);
}

static void give_back(struct worker *w, struct conn *c, int error)
{
    c->error = error;
    over(w, c);
}

/* --- streams ------------------------------------------------------------------------------------------------------- */

static bool await_writable(struct worker *w, struct conn *c, enum side side)
{
    struct end *end = end_of(c, side);
    if (end->flags & WAITS)
        return true;
    end->flags |= WAITS;
    return sys_epoll_ctl(w->epoll, EPOLL_CTL_MOD, end->fd, READ_EVENTS | EPOLLOUT, c->id | side) == 0;
}

static int unsent(int fd)
{
    int size = 0;
    ioctl(fd, SIOCOUTQ, &size);
    return size;
}

/* Reset the other end once it has everything, or the time is up. */
static void pass_reset(struct worker *w, struct conn *c)
{
    enum side side = c->reset_from;
    struct end *source = end_of(c, side), *target = end_of(c, !side);
    enum pumped pumped = PUMPED;
    if (w->now_ms < c->reset_by_ms && !(target->flags & BROKEN)) {
        if (!(source->flags & DONE))
            pumped = stream_pump(w, c, side);
        bool whole = source->flags & DONE || (source->flags & AT_END && is_empty(source));
        if (pumped != REFUSED && !(target->flags & BROKEN) && !(whole && unsent(target->fd) == 0)) {
            if (pumped == TURN_OVER)
                again(w, c, side);
            if (target->flags & WRITABLE || await_writable(w, c, !side)) {
                note_stalled(w, c);
                look_sooner(w, c);
                return;
            }
        }
    }
    conn_end(w, c, c->reason, true);
}

/* What the kernel holds against a socket; told once. */
static int error_of(const struct end *end)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(end->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
}

/* The end at *side* was reset, or is lost: nothing can be sent there, but what can still be read from it is passed on first. */
static void broke(struct worker *w, struct conn *c, enum side side)
{
    c->reset_from = side;
    c->reset_by_ms = w->now_ms + RST_GRACE_MS;
    if (end_of(c, side)->flags & LOST)
        c->reason = side == CLIENT ? CLIENT_LOST : HOST_LOST;
    else
        c->reason = side == CLIENT ? CLIENT_RESET : HOST_RESET;
    end_of(c, side)->flags |= READABLE | BROKEN;
    stream_discard(w, end_of(c, !side));
    pass_reset(w, c);
}

/* The end at *side* is read to its end: FIN to the other, or both are through. */
static void pass_end(struct worker *w, struct conn *c, enum side side)
{
    struct end *source = end_of(c, side), *target = end_of(c, !side);
    source->flags |= DONE;
    POST(c->active_us, w->now_us);
    if (c->reason == NO_REASON)
        c->reason = side == CLIENT ? CLIENT_CLOSED : HOST_CLOSED;
    if (target->flags & DONE)
        conn_end(w, c, c->reason, false);
    else if (shutdown(target->fd, SHUT_WR) < 0) /* ENOTCONN: it was reset; its event is under way */
        broke(w, c, !side);
    else
        look_sooner(w, c);
}

/* Something changed for the stream from *side*: move what can be moved, and act on what that showed. */
static void move(struct worker *w, struct conn *c, enum side side)
{
    struct end *source = end_of(c, side), *target = end_of(c, !side);
    if (c->reset_from != NOBODY) {
        pass_reset(w, c);
        return;
    }
    enum pumped pumped = source->flags & DONE ? PUMPED : stream_pump(w, c, side);
    if (pumped == REFUSED) {
        conn_end(w, c, RELAY_ERROR, true);
    } else if ((source->flags | target->flags) & BROKEN) {
        broke(w, c, source->flags & BROKEN ? side : !side);
    } else if (!(source->flags & DONE)) {
        note_stalled(w, c);
        if (source->flags & AT_END && is_empty(source))
            pass_end(w, c, side);
        else if (pumped == TURN_OVER)
            again(w, c, side);
        else if (!(target->flags & WRITABLE) && !await_writable(w, c, !side))
            conn_end(w, c, RELAY_ERROR, true);
    }
}

/* An event makes it worth trying; but what is in the list anyway has its turn after all events, and only one. */
static void try_move(struct worker *w, struct conn *c, enum side side)
{
    if (!(c->again_sides & 1 << side))
        move(w, c, side);
}

/* The turn was over with more to do; here is the next. The list was taken off its head already. */
void conn_again(struct worker *w, struct conn *c)
{
    uint8_t sides = c->again_sides;
    c->again_sides = 0;
    for (enum side side = CLIENT; side <= HOST; side++)
        if (sides & 1 << side && c->state == RELAYING)
            move(w, c, side);
}

/* --- events -------------------------------------------------------------------------------------------------------- */

static void host_answered(struct worker *w, struct conn *c, uint32_t mask)
{
    if (mask & (EPOLLERR | EPOLLHUP)) {
        int error = error_of(end_of(c, HOST));
        if (error != 0) {
            give_back(w, c, error);
            return;
        }
    } else if (!(mask & EPOLLOUT)) {
        return;
    }
    POST(c->state, RELAYING);
    c->connected = true;
    POST(c->active_us, w->now_us);
    queue_put(w, &w->told_now, c, BY_TOLD);
    move(w, c, CLIENT);
    if (c->state == RELAYING)
        move(w, c, HOST);
    if (c->state == RELAYING)
        look_sooner(w, c);
}

void conn_ready(struct worker *w, struct conn *c, enum side side, uint32_t mask)
{
    struct end *end = end_of(c, side);
    if (mask & ~EPOLLOUT) {
        end->flags |= READABLE;
        if (mask & EPOLLRDHUP)
            end->flags |= FINISHING;
        if (mask & EPOLLPRI)
            end->flags |= URGENT;
    }
    if (c->state == CONNECTING) {
        if (side == HOST)
            host_answered(w, c, mask);
        else if (mask & EPOLLERR)
            conn_end(w, c, CLIENT_RESET, true);
        return;
    }
    if (mask & EPOLLERR)
        end->flags |= BROKEN | (is_lost(error_of(end)) ? LOST : 0);
    if (mask & EPOLLOUT && !(end->flags & WRITABLE)) {
        end->flags |= WRITABLE;
        try_move(w, c, !side);
    }
    if (mask & ~EPOLLOUT && c->state == RELAYING)
        try_move(w, c, side);
}

/* It came through the inbox: from here on it has a place in the wheel, and its descriptors may be closed. */
void conn_adopt(struct worker *w, struct conn *c)
{
    c->adopted = true;
    if (c->state == OVER) {
        w->unadopted--;
        finish(w, c);
    } else if (c->refused) {
        conn_end(w, c, RELAY_ERROR, true);
    } else {
        wheel_put(w, c, next_look(w, c));
    }
}

/* The wheel found it due: cut what ran out, put the others back. */
void conn_look(struct worker *w, struct conn *c)
{
    uint8_t reason;
    if (c->reset_from != NOBODY) {
        pass_reset(w, c);
        return;
    }
    int64_t at = deadline(c, &reason);
    if (w->now_ms < at)
        wheel_put(w, c, at);
    else if (reason == NO_REASON)
        give_back(w, c, ETIMEDOUT);
    else
        conn_end(w, c, reason, true);
}
