"""Microseconds for each connection's decisions: ``python -m bench.picks [NAME...]``.

*pick* is `Pool.pick`, *cycle* a pick and a release, with 4 connections per host open meanwhile. Time goes on by a tenth of
a millisecond a pick, so that what some schedulers do with time is in it.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from time import process_time

from cluster.model import HostRef, Reason, Sticky
from director.core.pool import Pool
from director.core.schedulers import SCHEDULERS, Scheduler, make_scheduler, with_sticky

SIZES = (4, 16, 64, 1_000, 10_000)
PICKS = 30_000
GAP_S = 0.0001
ROUNDS = 3  # the best of so many: what disturbs only ever adds


def measure(scheduler: Scheduler, size: int) -> tuple[float, float]:
    """Seconds for a pick, and for a pick and a release."""
    pool = Pool(scheduler)
    for index in range(size):
        pool.put(HostRef("bench", "group", f"h{index}"), weight=1 + index % 5)
    pool.configured()
    clients = [random.randbytes(4) for _ in range(PICKS)]
    open_tickets = deque(pool.pick(clients[number % PICKS], 0.0) for number in range(4 * size))
    picks, cycles, now = [], [], 0.0
    for _ in range(ROUNDS):
        began = process_time()
        for client in clients:
            now += GAP_S
            open_tickets.append(pool.pick(client, now))
        picked = process_time()
        for _client in clients:
            pool.release(open_tickets.popleft(), Reason.CLIENT_CLOSED, now)
        picks.append(picked - began)
        began = process_time()
        for client in clients:
            now += GAP_S
            open_tickets.append(pool.pick(client, now))
            pool.release(open_tickets.popleft(), Reason.CLIENT_CLOSED, now)
        cycles.append(process_time() - began)
    return min(picks) / PICKS, min(cycles) / PICKS


def main() -> None:
    print(f"{'microseconds':<22}" + "".join(f"{f'pick/{size}':>12}{f'cycle/{size}':>12}" for size in SIZES))
    kinds = {name: lambda name=name: make_scheduler(name, {}, random=random.random) for name in SCHEDULERS}
    for mode in ("hash", "table"):
        kinds[f"sticky {mode}"] = lambda mode=mode: with_sticky(kinds["leastconns"](), Sticky(mode=mode))
    for name, make in kinds.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        results = [seconds * 1e6 for size in SIZES for seconds in measure(make(), size)]
        print(f"{name:<22}" + "".join(f"{value:12.2f}" for value in results))


if __name__ == "__main__":
    main()
