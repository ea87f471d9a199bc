/* Slots, chunks and pipes: what connections borrow.
 *
 * Pages of pipes count against a quota per user that root does not see: a process of an ordinary user gets about 1,024
 * pipes of the default size, and after that tiny ones. So the stock is bounded, a pipe is borrowed only while bytes
 * are inside, and pipe_borrow may answer "none": the caller then copies.
 */
#include "_relay.h"
#include "_relay_sys.h"

#include <string.h>

struct conn *slot_at(struct worker *w, uint32_t slot)
{
    return &PEEK(w->slabs[slot / SLAB_SLOTS])[slot % SLAB_SLOTS];
}

/* A free slot, fresh, without descriptors, token and limits; NULL: no memory, or as many connections as a worker can have. */
struct conn *slot_take(struct worker *w)
{
    if (w->free == NONE) {
        if (w->slot_count == SLABS * SLAB_SLOTS)
            return NULL;
        struct conn *slab = sys_allocate(SLAB_SLOTS * sizeof *slab);
        if (slab == NULL)
            return NULL;
        memset(slab, 0, SLAB_SLOTS * sizeof *slab);
        POST(w->slabs[w->slot_count / SLAB_SLOTS], slab);
        for (uint32_t i = SLAB_SLOTS; i-- > 0;) {
            uint32_t slot = w->slot_count + i;
            slab[i].id = ID_OF(1, w->number, slot);
            slab[i].timer.next = w->free;
            w->free = slot;
        }
        w->slot_count += SLAB_SLOTS;
    }
    struct conn *c = slot_at(w, w->free);
    w->free = c->timer.next;
    memset(c->end, 0, sizeof c->end);
    memset(&c->token, 0, sizeof *c - offsetof(struct conn, token));
    c->end[CLIENT].flags = c->end[HOST].flags = WRITABLE;
    c->end[HOST].flags |= WAITS; /* that is how a connect ends */
    c->reset_from = NOBODY;
    c->reason = c->kill_reason = NO_REASON;
    c->bucket = WHEEL_TICKS;
    return c;
}

/* From here on its handle and its events are stale. */
void slot_give(struct worker *w, struct conn *c)
{
    uint32_t slot = SLOT_OF(c->id);
    uint64_t id = c->id + ID_OF(1, 0, 0); /* wraps */
    POST(c->id, id >= ID_OF(1, 0, 0) ? id : ID_OF(1, w->number, slot));
    c->timer.next = w->free;
    w->free = slot;
}

/* A chunk of just this size; NULL: no memory. Any thread's. */
struct chunk *chunk_of(const void *bytes, size_t size)
{
    struct chunk *chunk = sys_allocate(sizeof *chunk + size);
    if (chunk != NULL) {
        *chunk = (struct chunk){.size = size, .room = size};
        memcpy(chunk->bytes, bytes, size);
    }
    return chunk;
}

/* A chunk with *bytes*, at most CHUNK_BYTES; NULL: no memory. */
struct chunk *chunk_borrow(struct worker *w, const char *bytes, size_t size)
{
    struct chunk *chunk = w->chunks;
    if (chunk != NULL) {
        w->chunks = chunk->next;
        w->idle_chunks--;
    } else {
        chunk = sys_allocate(sizeof *chunk + CHUNK_BYTES);
        if (chunk == NULL)
            return NULL;
    }
    *chunk = (struct chunk){.size = size, .room = CHUNK_BYTES};
    memcpy(chunk->bytes, bytes, size);
    return chunk;
}

void chunk_return(struct worker *w, struct chunk *chunk)
{
    if (chunk->room == CHUNK_BYTES && w->idle_chunks < IDLE_CHUNKS) {
        chunk->next = w->chunks;
        w->chunks = chunk;
        w->idle_chunks++;
    } else {
        free(chunk);
    }
}

/* An empty pipe, or NULL: the bound is reached, or the kernel refuses a pipe of full size. */
struct pipe *pipe_borrow(struct worker *w)
{
    struct pipe *pipe = w->pipes;
    if (pipe != NULL) {
        w->pipes = pipe->next;
        w->idle_pipes--;
        return pipe;
    }
    if (w->pipe_count >= w->pipe_share)
        return NULL;
    if (w->refusals_left > 0) {
        w->refusals_left--;
        return NULL;
    }
    int ends[2];
    pipe = sys_allocate(sizeof *pipe);
    if (pipe == NULL || sys_pipe(ends) < 0) { /* EMFILE, ENFILE: copying needs no descriptors */
        free(pipe);
        w->refusals_left = PIPE_PATIENCE;
        return NULL;
    }
    *pipe = (struct pipe){.reader = ends[0], .writer = ends[1]};
    POST(w->pipe_count, w->pipe_count + 1);
    if (fcntl(pipe->writer, F_GETPIPE_SZ) < PIPE_BYTES) { /* beyond the quota: one or two pages */
        pipe_drop(w, pipe);
        w->refusals_left = PIPE_PATIENCE;
        return NULL;
    }
    if (w->pipe_count <= w->large_pipe_share) /* refused by an ordinary user's quota it keeps its size */
        fcntl(pipe->writer, F_SETPIPE_SZ, LARGE_PIPE_BYTES);
    return pipe;
}

/* Bring back a drained pipe. */
void pipe_return(struct worker *w, struct pipe *pipe)
{
    if (w->idle_pipes < IDLE_PIPES) {
        pipe->next = w->pipes;
        w->pipes = pipe;
        w->idle_pipes++;
    } else {
        pipe_drop(w, pipe);
    }
}

/* Close a borrowed pipe, which may still hold bytes. */
void pipe_drop(struct worker *w, struct pipe *pipe)
{
    close(pipe->reader);
    close(pipe->writer);
    free(pipe);
    POST(w->pipe_count, w->pipe_count - 1);
}

/* Release everything; no connection is left. */
void pools_close(struct worker *w)
{
    for (struct chunk *chunk = w->chunks, *next; chunk != NULL; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    for (struct pipe *pipe = w->pipes, *next; pipe != NULL; pipe = next) {
        next = pipe->next;
        pipe_drop(w, pipe);
    }
    for (uint32_t i = 0; i < w->slot_count / SLAB_SLOTS; i++)
        free(w->slabs[i]);
    for (uint32_t i = 0; i < TALLY_SLABS && w->tallies[i] != NULL; i++)
        free(w->tallies[i]);
}
