"""Pools for tests: seeded, by the scheduler's name, ``sticky-hash`` and ``sticky-table`` among them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping

from cluster.model import HostRef, Sticky
from director.core.pool import Pool
from director.core.schedulers import SCHEDULERS, Scheduler, make_scheduler, with_sticky
from director.core.splitting import Shares, Split

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


def ref(name: str, group: str = "blue") -> HostRef:
    return HostRef("web", group, name)


def pool_of(kind: str | Scheduler, weights: Iterable[float], *, seed: int = 1, fail_open: bool = False,
            group: str = "blue") -> Pool:
    """A pool of hosts h0, h1… with *weights*."""
    pool = Pool(scheduler_of(kind, seed) if isinstance(kind, str) else kind, fail_open=fail_open)
    for index, weight in enumerate(weights):
        pool.put(ref(f"h{index}", group), weight=weight)
    pool.configured()
    return pool


def split_of(pools: Mapping[str, Pool], weights: Mapping[str, float], *, by_address: bool = True,
             strayed: Counter[str] | None = None) -> Split:
    """Of *pools*, the enabled group's first."""
    return Split(Shares(weights), pools, by_address=by_address, strayed=Counter() if strayed is None else strayed)


def has_place(pool: Pool | Split, client: bytes | None, now: float) -> bool:
    """Whether *client* need not wait; where its turn decides, whichever that is."""
    if isinstance(pool, Pool):
        return pool.eligible > 0
    own, _ = pool.certain(client, now)
    sides = [own] if own is not None else [name for name, part in pool.shares.parts.items() if part]
    return all(pool.serving(side) for side in sides)


def address(number: int) -> bytes:
    """The packed IPv4 address of the *number*-th client."""
    return number.to_bytes(4, "big")
