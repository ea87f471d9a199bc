/* Refusals on order, for tests: built only with RELAY_FAULTS. */
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
#endif
