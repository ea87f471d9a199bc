"""Microseconds for each connection's decisions: ``python bench/picks.py``.

*pick* is `Pool.pick`, *cycle* a pick and a release, with 4 connections per host open meanwhile.
"""

from __future__ import annotations

import random
from collections import deque
from time import perf_counter

from cluster.model import HostRef, Reason, Sticky
from director.core.pool import Pool
from director.core.schedulers import SCHEDULERS, Scheduler, make_scheduler, with_sticky

SIZES = (10, 1000)
PICKS = 30_000
ROUNDS = 5  # the best of so many: what disturbs only ever adds


def measure(scheduler: Scheduler, size: int) -> tuple[float, float]:
    """Seconds for a pick, and for a pick and a release."""
    pool = Pool(scheduler)
    for index in range(size):
        pool.put(HostRef("bench", "group", f"h{index}"), weight=1 + index % 5)
    pool.configured()
    clients = [random.randbytes(4) for _ in range(PICKS)]
    open_tickets = deque(pool.pick(client, 0.0) for client in clients[: 4 * size])
    picks, cycles = [], []
    for _ in range(ROUNDS):
        began = perf_counter()
        for client in clients:
            open_tickets.append(pool.pick(client, 0.0))
        picked = perf_counter()
        for _client in clients:
            pool.release(open_tickets.popleft(), Reason.CLIENT_CLOSED, 1.0)
        picks.append(picked - began)
        began = perf_counter()
        for client in clients:
            open_tickets.append(pool.pick(client, 0.0))
            pool.release(open_tickets.popleft(), Reason.CLIENT_CLOSED, 1.0)
        cycles.append(perf_counter() - began)
    return min(picks) / PICKS, min(cycles) / PICKS


def main() -> None:
    print(f"{'microseconds':<22}" + "".join(f"{f'pick/{size}':>12}{f'cycle/{size}':>12}" for size in SIZES))
    kinds = {name: lambda name=name: make_scheduler(name, {}, random=random.random) for name in SCHEDULERS}
    for mode in ("hash", "table"):
        kinds[f"sticky {mode}"] = lambda mode=mode: with_sticky(kinds["leastconns"](), Sticky(mode=mode))
    for name, make in kinds.items():
        results = [seconds * 1e6 for size in SIZES for seconds in measure(make(), size)]
        print(f"{name:<22}" + "".join(f"{value:12.2f}" for value in results))


if __name__ == "__main__":
    main()
