"""Which director should have which virtual address, where each has an owner of its own. Pure; `director.ha.spreading` acts
on it.

1. An address goes to a director that may have it, of those to one with the highest priority for it.
2. Where an operator pinned it, there, as long as that director may have it. Where an operator moved it, it stays.
3. Among what is left addresses are spread as evenly as that allows, by the fewest moves. A chain of moves from a director to
   one that has two less is sought until there is none: then no other spreading is more even.

Everybody who knows the same decides the same.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping
from typing import NamedTuple

#: Of a director that says nothing else.
USUAL_PRIORITY = 100


class Place(NamedTuple):
    """One address.

    :ivar able: the directors that may have it, by their priority for it.
    :ivar owner: who has it; empty: nobody.
    :ivar pinned: a director, or empty.
    :ivar stays: it was moved to its owner.
    """

    able: Mapping[str, int]
    owner: str = ""
    pinned: str = ""
    stays: bool = False

    def choices(self) -> frozenset[str]:
        if self.pinned in self.able:
            return frozenset((self.pinned,))
        if self.stays and self.owner in self.able:
            return frozenset((self.owner,))
        most = max(self.able.values(), default=0)
        return frozenset(name for name, priority in self.able.items() if priority == most)


def spread(places: Mapping[str, Place], busy: Collection[str] = ()) -> dict[str, str]:
    """A director for each address; none for one that nobody may have.

    :param busy: addresses that had better stay, where another can move in their place.
    """
    choices = {address: place.choices() for address, place in places.items()}
    found = {address: places[address].owner for address, may in choices.items() if places[address].owner in may}
    count: Counter[str] = Counter(found.values())
    for address in sorted(choices, key=lambda each: (len(choices[each]), each)):
        if address not in found and choices[address]:
            found[address] = min(choices[address], key=lambda name: (count[name], name))
            count[found[address]] += 1
    while chain := _chain(found, choices, count, places, busy):
        for address, to in chain:
            count[found[address]] -= 1
            count[to] += 1
            found[address] = to
    return found


def _chain(found: Mapping[str, str], choices: Mapping[str, frozenset[str]], count: Mapping[str, int],
           places: Mapping[str, Place], busy: Collection[str]) -> list[tuple[str, str]]:
    """Addresses and where they go: one less for a director, one more for another that has two less. The shortest."""
    for start in sorted(count, key=lambda name: (-count[name], name)):
        came: dict[str, tuple[str, str]] = {}  # by director: from whom, and which address
        queue = deque((start,))
        while queue:
            name = queue.popleft()
            if count[name] <= count[start] - 2:
                return _back(came, start, name)
            mine = [address for address, has in found.items() if has == name]
            # what has to move anyway moves first, then what nobody uses
            for address in sorted(mine, key=lambda each: (places[each].owner == name, each in busy, each)):
                for to in sorted(choices[address], key=lambda each: (count[each], each)):
                    if to != start and to not in came:
                        came[to] = name, address
                        queue.append(to)
    return []


def _back(came: Mapping[str, tuple[str, str]], start: str, end: str) -> list[tuple[str, str]]:
    chain = []
    while end != start:
        before, address = came[end]
        chain.append((address, end))
        end = before
    return chain
