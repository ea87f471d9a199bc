/* One direction of a connection: bytes read at one end, written to the other.
 *
 * No epoll, no clock: these functions make the system calls and leave in the two ends what they learnt. The rules of
 * edge-triggered readiness:
 *
 * - READABLE and WRITABLE say "not known to block". An event sets them; EAGAIN clears them. So do a short read and a
 *   partial write, which prove the same without another call.
 * - A short read after the peer's FIN was announced proves the end of the stream.
 * - Neither holds with TCP urgent data about: reads stop before its mark. Splices do so for good: they are not tried.
 * - Nothing is read unless the other end takes it: at most one chunk, or one pipe's content, is on its way.
 *
 * Functions return false when the kernel or the allocator refused memory.
 */
#include "_relay.h"
#include "_relay_sys.h"

#include <errno.h>

/* Errors that are the peer's or the path's end. Any other is the kernel refusing us. */
static bool is_of_peer(int error)
{
    switch (error) {
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ECONNREFUSED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
    case ENOTCONN:
    case EPROTO:
        return true;
    default:
        return false;
    }
}

/* The kernel gave up waiting for an answer. It says "unreachable" where the last router has said so. */
bool is_lost(int error)
{
    return error == ETIMEDOUT || error == EHOSTUNREACH || error == EHOSTDOWN || error == ENETUNREACH || error == ENETDOWN;
}

static bool cannot_read(struct end *source)
{
    if (errno == EINTR)
        return true;
    source->flags &= ~READABLE;
    if (errno == EAGAIN)
        return true;
    if (!is_of_peer(errno))
        return false;
    source->flags |= BROKEN | AT_END | (is_lost(errno) ? LOST : 0);
    return true;
}

static bool cannot_write(struct end *target)
{
    if (errno == EINTR)
        return true;
    target->flags &= ~WRITABLE;
    if (errno == EAGAIN)
        return true;
    if (!is_of_peer(errno))
        return false;
    target->flags |= BROKEN | (is_lost(errno) ? LOST : 0);
    return true;
}

static void took(struct end *source, ssize_t size) { POST(source->moved, source->moved + size); }

/* Read once into the scratch buffer and write at once; what is not taken goes on hold. */
static bool copy(struct worker *w, struct end *source, struct end *target)
{
    ssize_t size = sys_recv(source->fd, w->scratch, CHUNK_BYTES);
    if (size < 0)
        return cannot_read(source);
    if (size == 0) {
        source->flags |= AT_END;
        return true;
    }
    if (size == CHUNK_BYTES) {
        source->flags |= BULK;
    } else if (!(source->flags & (BROKEN | URGENT))) { /* those are read until they say that there is no more */
        source->flags &= ~READABLE;
        if (source->flags & FINISHING)
            source->flags |= AT_END;
    }
    ssize_t sent = sys_send(target->fd, w->scratch, size);
    if (sent < 0) {
        if (!cannot_write(target))
            return false;
        sent = 0;
    }
    took(source, sent);
    if (sent == size)
        return true;
    if (sent > 0)
        target->flags &= ~WRITABLE;
    source->hold = chunk_borrow(w, w->scratch + sent, size - sent);
    return source->hold != NULL;
}

static bool write_hold(struct worker *w, struct end *source, struct end *target)
{
    struct chunk *hold = source->hold;
    ssize_t sent = sys_send(target->fd, hold->bytes + hold->start, hold->size);
    if (sent < 0)
        return cannot_write(target);
    took(source, sent);
    hold->start += sent;
    hold->size -= sent;
    if (hold->size > 0) {
        target->flags &= ~WRITABLE;
    } else {
        chunk_return(w, hold);
        source->hold = NULL;
    }
    return true;
}

/* Splice into the pipe, which is empty: so EAGAIN is the socket's. */
static bool fill_pipe(struct worker *w, struct end *source)
{
    ssize_t size = sys_splice(source->fd, source->pipe->writer, SPLICE_BYTES);
    if (size < 0)
        return cannot_read(source);
    if (size == 0) /* the end, or an urgent mark right before the end: reading tells */
        source->flags &= ~BULK;
    source->pipe->held = size;
    POST(w->spliced, w->spliced + size);
    return true;
}

static bool empty_pipe(struct end *source, struct end *target)
{
    ssize_t sent = sys_splice(source->pipe->reader, target->fd, source->pipe->held);
    if (sent < 0)
        return cannot_write(target);
    source->pipe->held -= sent;
    took(source, sent);
    return true;
}

static bool may_splice(struct worker *w, struct end *source)
{
    if ((source->flags & (BULK | URGENT)) != BULK)
        return false;
    if (source->pipe == NULL)
        source->pipe = pipe_borrow(w);
    return source->pipe != NULL;
}

/* Something came from *side*, or (the client's) was passed on: whose turn is it to speak? */
static void note_turn(struct worker *w, struct conn *c, enum side side)
{
    struct end *client = &c->end[CLIENT];
    if (side == CLIENT) {
        client->flags |= ASKED;
        return;
    }
    struct tally *tally = &PEEK(w->tallies[c->tally / SLAB_TALLIES])[c->tally % SLAB_TALLIES];
    if (client->flags & ASKED) { /* then what was active last was the client */
        client->flags &= ~ASKED;
        POST(tally->micros, tally->micros + w->now_us - c->active_us);
        POST(tally->count, tally->count + 1);
    } else if (w->now_us - c->active_us > STILL_US) {
        POST(tally->unasked, tally->unasked + 1);
    }
}

/* Move what there is from *side* to the other until either would block, ends or breaks, or the turn is over. */
enum pumped stream_pump(struct worker *w, struct conn *c, enum side side)
{
    struct end *source = &c->end[side], *target = &c->end[!side];
    int64_t before = source->moved;
    bool more = false, well = true, fresh = is_empty(source);
    while (well && target->flags & WRITABLE) {
        if (source->pipe != NULL && source->pipe->held > 0)
            well = empty_pipe(source, target);
        else if (source->hold != NULL)
            well = write_hold(w, source, target);
        else if ((source->flags & (READABLE | AT_END)) != READABLE)
            break;
        else if (source->moved - before >= TURN_BYTES) {
            more = true;
            break;
        } else if (may_splice(w, source))
            well = fill_pipe(w, source);
        else
            well = copy(w, source, target);
    }
    if (source->pipe != NULL && source->pipe->held == 0) {
        pipe_return(w, source->pipe);
        source->pipe = NULL;
    }
    int64_t moved = source->moved - before;
    int64_t counted = source->moved - (before > 0 ? before : 0); /* a preface is nobody's word */
    if (c->tally != 0 && (side == CLIENT ? counted > 0 : fresh && (moved > 0 || !is_empty(source))))
        note_turn(w, c, side);
    if (moved > 0) {
        POST(c->active_us, w->now_us);
        if (counted > 0)
            POST(w->moved[side], w->moved[side] + counted);
    }
    if (moved < BULK_BYTES && target->flags & WRITABLE)
        source->flags &= ~BULK;
    if (!well)
        return REFUSED;
    return more ? TURN_OVER : PUMPED;
}

/* The stream from *source* is of no use any more: drop what is on its way. */
void stream_discard(struct worker *w, struct end *source)
{
    source->flags |= DONE;
    if (source->hold != NULL)
        chunk_return(w, source->hold);
    if (source->pipe != NULL)
        pipe_drop(w, source->pipe);
    source->hold = NULL;
    source->pipe = NULL;
}
