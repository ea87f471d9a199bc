"""Pools for tests: seeded, by the scheduler's name, ``sticky-hash`` and ``sticky-table`` among them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from cluster.model import HostRef, Sticky
from director.core.pool import Pool
from director.core.schedulers import SCHEDULERS, Scheduler, make_scheduler, with_sticky

EVERY_KIND = (*SCHEDULERS, "sticky-hash", "sticky-table")

#: Small tables where many schedulers are built: building one of the default size takes 50 ms.
SMALL_TABLE = {"table_size": 1009}


def scheduler_of(kind: str, seed: int = 1, parameters: Mapping[str, float] | None = None) -> Scheduler:
    """A new scheduler of *kind*."""
    draw = random.Random(seed).random
    if kind.startswith("sticky-"):
        return with_sticky(make_scheduler("leastconns", {}, random=draw), Sticky(mode=kind.removeprefix("sticky-")))
    if parameters is None:
        parameters = SMALL_TABLE if kind == "maglev" else {}
    return make_scheduler(kind, parameters, random=draw)


def ref(name: str) -> HostRef:
    return HostRef("web", "blue", name)


def pool_of(kind: str | Scheduler, weights: Iterable[float], *, seed: int = 1, fail_open: bool = False) -> Pool:
    """A pool of hosts h0, h1… with *weights*."""
    pool = Pool(scheduler_of(kind, seed) if isinstance(kind, str) else kind, fail_open=fail_open)
    for index, weight in enumerate(weights):
        pool.put(ref(f"h{index}"), weight=weight)
    pool.configured()
    return pool


def address(number: int) -> bytes:
    """The packed IPv4 address of the *number*-th client."""
    return number.to_bytes(4, "big")
