"""The peer link as many machines of `cluster.takeover` use it at once, one for each virtual address: what they say to a
director in one turn of the reactor goes as one message.

A beat that waits for the others is late by less than a millisecond, and its promise counts from before that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from cluster.peer_wire import MAX_SAID, Addresses, Bye, OwnerAck, OwnerBeat
from director.engine.telling import tell_each
from director.ha.peers import Peers


class Gathering:
    """Attached to *peers*."""

    def __init__(self, peers: Peers, *, reactor: Any) -> None:
        self.peers = peers
        self._reactor = reactor
        self._ends: dict[str, AddressLink] = {}
        self._said: dict[str, list[tuple[str, OwnerBeat | OwnerAck | Bye]]] = {}  # by director
        self._sending: Any = None
        self._knocks: dict[str, list[Deferred[bool]]] = {}  # who waits, by the director that is knocked at
        peers.hear(Addresses, self._heard)
        peers.on_left.append(self._left)

    def link(self, address: str) -> AddressLink:
        """For the machine of *address*, as `Peers` is for one alone."""
        made = self._ends[address] = AddressLink(self, address)
        return made

    def say(self, peer: str, address: str, message: OwnerBeat | OwnerAck | Bye) -> None:
        self._said.setdefault(peer, []).append((address, message))
        if self._sending is None:
            self._sending = self._reactor.callLater(0, self.flush)

    def flush(self) -> None:
        """Send what was said."""
        if self._sending is not None and self._sending.active():
            self._sending.cancel()
        self._sending = None
        said, self._said = self._said, {}
        for peer, messages in said.items():
            for start in range(0, len(messages), MAX_SAID):
                self.peers.send(peer, Addresses(said=messages[start : start + MAX_SAID]), droppable=True)

    def knock(self, peer: str) -> Deferred[bool]:
        """`Peers.knock`, once for all who ask meanwhile."""
        waits: Deferred[bool] = Deferred()
        waiting = self._knocks.setdefault(peer, [])
        waiting.append(waits)
        if len(waiting) == 1:
            self.peers.knock(peer).addBoth(self._knocked, peer)
        return waits

    def _knocked(self, result: Any, peer: str) -> None:
        for each in self._knocks.pop(peer, ()):
            each.callback(result)

    def _heard(self, peer: str, message: Addresses) -> None:
        """Addresses that this director does not have are another's business."""
        for address, said in message.said:
            end = self._ends.get(address)
            hearer = None if end is None else end.hearers.get(type(said))
            if hearer is not None:
                tell_each((hearer,), peer, said)  # one that fails costs no other its promise
        if self._said:
            self.flush()

    def _left(self, peer: str, by_peer: bool) -> None:
        for end in self._ends.values():
            tell_each(end.on_left, peer, by_peer)


class AddressLink:
    """What `Reigning` asks of `Peers`, for one address."""

    def __init__(self, gathering: Gathering, address: str) -> None:
        self.hearers: dict[type, Callable[[str, Any], None]] = {}
        self.on_left: list[Callable[[str, bool], None]] = []
        self._gathering = gathering
        self._address = address

    @property
    def names(self) -> tuple[str, ...]:
        return self._gathering.peers.names

    def hear(self, kind: type, tell: Callable[[str, Any], None]) -> None:
        self.hearers[kind] = tell

    def send(self, peer: str, message: Any, *, droppable: bool = False) -> bool:
        """Soon. False when *peer* is not linked."""
        if peer not in self.names:
            return False
        self._gathering.say(peer, self._address, message)
        return True

    def knock(self, name: str) -> Deferred[bool]:
        return self._gathering.knock(name)
