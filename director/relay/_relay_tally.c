/* Tallies: under which number a host's connections are counted, and what the workers counted.
 *
 * All of this is the reactor's thread's. Each worker has tallies of its own under the same numbers, so that no two threads
 * write the same line of memory; reading one sums them up. A number that is given back may still have connections of the
 * host that had it: it is not taken again, and not emptied, before their last one was drained. After that no worker
 * touches it.
 */
#include "_relay.h"
#include "_relay_sys.h"

#include <string.h>

struct tally_use {
    uint32_t connections;
    uint32_t next; /* in the free list */
    bool taken;
};

/* NULL: there is no such number. */
static struct tally_use *use_of(const struct tallies *t, uint32_t number)
{
    return number == 0 || number >= t->count ? NULL : &t->uses[number / SLAB_TALLIES][number % SLAB_TALLIES];
}

static struct tally *tally_of(struct worker *w, uint32_t number)
{
    return &w->tallies[number / SLAB_TALLIES][number % SLAB_TALLIES];
}

/* One more slab of them for everybody. False: no memory; what was allocated is kept for the next attempt. */
static bool grow(struct tallies *t, struct worker *const *workers, unsigned worker_count)
{
    uint32_t slab = t->count / SLAB_TALLIES;
    if (slab == TALLY_SLABS)
        return false;
    size_t size = SLAB_TALLIES * sizeof(struct tally);
    for (unsigned i = 0; i < worker_count; i++) {
        if (workers[i]->tallies[slab] != NULL)
            continue;
        struct tally *fresh = sys_allocate(size);
        if (fresh == NULL)
            return false;
        memset(fresh, 0, size);
        POST(workers[i]->tallies[slab], fresh);
    }
    struct tally_use *uses = sys_allocate(SLAB_TALLIES * sizeof *uses);
    if (uses == NULL)
        return false;
    t->uses[slab] = uses;
    t->count += SLAB_TALLIES;
    for (uint32_t i = SLAB_TALLIES; i-- > 0;) {
        uint32_t number = slab * SLAB_TALLIES + i;
        uses[i] = (struct tally_use){.next = t->free};
        if (number != 0)
            t->free = number;
    }
    return true;
}

uint32_t tally_take(struct tallies *t, struct worker *const *workers, unsigned worker_count)
{
    if (t->free == 0 && !grow(t, workers, worker_count))
        return 0;
    uint32_t number = t->free;
    struct tally_use *use = use_of(t, number);
    t->free = use->next;
    use->taken = true;
    return number;
}

/* Nobody has it, and nobody counts under it any more: the next one begins at zero. */
static void empty(struct tallies *t, struct worker *const *workers, unsigned worker_count, uint32_t number)
{
    for (unsigned i = 0; i < worker_count; i++)
        *tally_of(workers[i], number) = (struct tally){0};
    use_of(t, number)->next = t->free;
    t->free = number;
}

void tally_give(struct tallies *t, struct worker *const *workers, unsigned worker_count, uint32_t number)
{
    struct tally_use *use = use_of(t, number);
    if (use == NULL || !use->taken)
        return;
    use->taken = false;
    if (use->connections == 0)
        empty(t, workers, worker_count, number);
}

bool tally_enter(struct tallies *t, uint32_t number)
{
    struct tally_use *use = use_of(t, number);
    if (use == NULL || !use->taken)
        return false;
    use->connections++;
    return true;
}

/* A connection that entered was drained. */
void tally_leave(struct tallies *t, struct worker *const *workers, unsigned worker_count, uint32_t number)
{
    struct tally_use *use = use_of(t, number);
    if (use != NULL && --use->connections == 0 && !use->taken)
        empty(t, workers, worker_count, number);
}

/* Zeros for a number that is not taken. */
struct tally tally_read(const struct tallies *t, struct worker *const *workers, unsigned worker_count, uint32_t number)
{
    struct tally sum = {0};
    const struct tally_use *use = use_of(t, number);
    for (unsigned i = 0; use != NULL && use->taken && i < worker_count; i++) {
        const struct tally *tally = tally_of(workers[i], number);
        sum.count += PEEK(tally->count);
        sum.micros += PEEK(tally->micros);
        sum.unasked += PEEK(tally->unasked);
    }
    return sum;
}

void tallies_close(struct tallies *t)
{
    for (uint32_t i = 0; i < TALLY_SLABS && t->uses[i] != NULL; i++)
        free(t->uses[i]);
    memset(t, 0, sizeof *t);
}
