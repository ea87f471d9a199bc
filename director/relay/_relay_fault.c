/* Refusals on order, for tests: built only with RELAY_FAULTS. */
#include "_relay_sys.h"

#include <errno.h>

#ifdef RELAY_FAULTS
static int errors[SITES], counts[SITES];

void fault_order(enum site site, int error, int count)
{
    __atomic_store_n(&errors[site], error, __ATOMIC_RELAXED);
    __atomic_store_n(&counts[site], count, __ATOMIC_RELAXED);
}

bool fault(enum site site)
{
    int left = __atomic_load_n(&counts[site], __ATOMIC_RELAXED);
    do
        if (left <= 0)
            return false;
    while (!__atomic_compare_exchange_n(&counts[site], &left, left - 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    errno = __atomic_load_n(&errors[site], __ATOMIC_RELAXED);
    return true;
}
#endif
