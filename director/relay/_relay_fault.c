/* Refusals on order, and a worker that looks when it is told to: for tests, built only with RELAY_FAULTS. */
#include "_relay_sys.h"

#include <errno.h>
#include <pthread.h>

#ifdef RELAY_FAULTS
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int error, skip, count;
} orders[SITES];

void fault_order(enum site site, int error, int skip, int count)
{
    pthread_mutex_lock(&lock);
    orders[site].error = error;
    orders[site].skip = skip;
    orders[site].count = count;
    pthread_mutex_unlock(&lock);
}

bool fault(enum site site)
{
    bool hit = false;
    pthread_mutex_lock(&lock);
    if (orders[site].count > 0 && orders[site].skip > 0)
        orders[site].skip--;
    else if (orders[site].count > 0) {
        orders[site].count--;
        errno = orders[site].error;
        hit = true;
    }
    pthread_mutex_unlock(&lock);
    return hit;
}

/* --- the gate: where a worker waits before each round, while it is held. For an engine of one thread. */

static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool held, waiting;
static int rounds_left;

int gate(int timeout)
{
    pthread_mutex_lock(&lock);
    while (held && rounds_left == 0) {
        waiting = true;
        pthread_cond_broadcast(&changed);
        pthread_cond_wait(&changed, &lock);
    }
    waiting = false;
    if (held) {
        rounds_left--;
        timeout = 0;
    }
    pthread_mutex_unlock(&lock);
    return timeout;
}

/* Takes effect when the worker comes by, which an event or a deadline brings about. */
void gate_hold(bool hold)
{
    pthread_mutex_lock(&lock);
    held = hold;
    rounds_left = 0;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Have the held worker go around so many times; returns when it is back at the gate. */
void gate_look(int rounds)
{
    pthread_mutex_lock(&lock);
    rounds_left = rounds;
    pthread_cond_broadcast(&changed);
    while (rounds_left > 0 || !waiting)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}
#endif
