"""Which fence it is: the best that this kernel, and this process's rights, allow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from director.ha.fence import nft, tc
from director.ha.fence.interface import Address, Fence
from director.ha.fence.lifetime import Lifetime

#: In words, for people.
FENCES = {
    "tc": "a program on every interface (tc), to the instant",
    "nft": "filters (nft), to some milliseconds",
    "lifetime": "their lifetime alone, to about a second",
}
Groups: TypeAlias = Sequence[Collection[Address]]


class Kind(NamedTuple):
    """How to make fences of a kind, to see whether they can be made, and to take away what another process left. All raise
    OSError."""

    make: Callable[[Groups, int, str, Any], tuple[Fence, ...]]
    try_out: Callable[[], None]
    sweep: Callable[[], None]


def fences(groups: Groups, until_ns: int = 0, *, interface: str, reactor: Any,
           kinds: Sequence[str] = ("tc", "nft")) -> tuple[Fence, ...]:
    """A fence for each group of addresses, in its place when this returns, and none but this.

    :param until_ns: open until then (CLOCK_BOOTTIME); the default is closed.
    :param interface: that takes the addresses.
    :param kinds: are tried in this order.
    """
    whys, made = [], None
    for name in kinds:
        try:
            made = KINDS[name].make(groups, until_ns, interface, reactor)
            break
        except OSError as error:
            whys.append(f"{name}: {error.strerror or error}")
    for name, kind in KINDS.items():
        if made is None or made[0].kind != name:
            with suppress(OSError):  # where it cannot be had there is none
                kind.sweep()
    return tuple(Lifetime("; ".join(whys)) for _ in groups) if made is None else made


def best() -> tuple[str, str]:
    """The kind that this process would have here, and why none before it."""
    whys = []
    for name, kind in KINDS.items():
        try:
            kind.try_out()
        except OSError as error:
            whys.append(f"{name}: {error.strerror or error}")
        else:
            return name, "; ".join(whys)
    return Lifetime.kind, "; ".join(whys)


def _programs(groups: Groups, until_ns: int, interface: str, reactor: Any) -> tuple[Fence, ...]:
    barrier = tc.Barrier(reactor=reactor)
    try:
        made = tuple(barrier.fence(group, until_ns) for group in groups)
        barrier.attach()
    except OSError:
        barrier.close()
        raise
    return made


def _tables(groups: Groups, until_ns: int, interface: str, reactor: Any) -> tuple[Fence, ...]:
    made: list[Fence] = []
    try:
        for number, group in enumerate(groups):
            made.append(nft.NftFence(group, until_ns, interface=interface, number=number, reactor=reactor))
    except OSError:
        for each in made:
            each.release()
        raise
    return tuple(made)


KINDS = {"tc": Kind(_programs, tc.try_out, tc.sweep), "nft": Kind(_tables, nft.try_out, nft.sweep)}
