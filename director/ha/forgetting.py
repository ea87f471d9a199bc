"""Registrations whose agents are gone end after a while, so that what joined by itself also goes by itself.

One ends when, for the group's ``registration.forget_s``, no agent claimed it and every director had found its host down, or
nobody had approved it. A host that serves without its agent stays: agents that fail together (an expired authority) must not
take hosts along. While this director is isolated, silence is no evidence, and the time does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from cluster.keys import Keys
from cluster.model import HostRef, Registered
from cluster.store import Delete, Record
from cluster.view import Unreadable, decode
from director.engine.node import Node
from director.engine.swapping import Swap, Swapping

#: Between two looks: registrations are forgotten after minutes or hours.
LOOK_S = 30.0


class Forgetting(Service):
    """Looks while it runs; removes while *leads* says that this director is to.

    :param claimed: the hosts that agents connected here claim.
    """

    log = Logger()

    def __init__(self, node: Node, swapping: Swapping, keys: Keys, *, leads: Callable[[], bool],
                 claimed: Callable[[], Set[HostRef]], reactor: Any) -> None:
        self.setName("forgetting")
        self._node = node
        self._swapping = swapping
        self._keys = keys
        self._leads = leads
        self._claimed = claimed
        self._reactor = reactor
        self._missed_since: dict[HostRef, float] = {}  # monotonic
        self._timer: Any = None

    def startService(self) -> None:
        super().startService()
        if self._timer is None:
            self._timer = self._reactor.callLater(LOOK_S, self._look)

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._missed_since.clear()

    def _look(self) -> None:
        self._timer = self._reactor.callLater(LOOK_S, self._look)
        inventory, now = self._node.inventory, self._node.monotonic()
        if not self._leads() or inventory.isolation.isolated:
            self._missed_since.clear()
            return
        claimed = self._claimed()
        missed = {ref: registered for ref, registered in inventory.registrations().items() if self._missed(ref, claimed)}
        self._missed_since = {ref: self._missed_since.get(ref, now) for ref in missed}
        for ref, registered in missed.items():
            forget_s = self._forget_s(ref)
            if forget_s and now - self._missed_since[ref] >= forget_s:
                self._forget(ref, registered)

    def _missed(self, ref: HostRef, claimed: Set[HostRef]) -> bool:
        """Whether nobody speaks for the host, and it is of no use."""
        if ref in claimed:
            return False
        entry = self._node.inventory.hosts.get(ref)
        return entry is None or (entry.agent is None and entry.verdict.down)

    def _forget_s(self, ref: HostRef) -> float:
        """0: never. A group that is gone leaves its registrations to the change that took it away."""
        service = self._node.inventory.services.get(ref.service)
        group = service.groups.get(ref.group) if service is not None else None
        return 0.0 if group is None else group.spec.registration.forget_s

    def _forget(self, ref: HostRef, seen: Registered) -> None:
        key = self._keys.registered(ref)
        removed = False

        async def decide(record: Record | None) -> Swap | None:
            nonlocal removed
            removed = False
            if record is None or not self._leads() or not self._missed(ref, self._claimed()):
                return None
            try:
                if decode(record.value, Registered) != seen:
                    return None  # it came back
            except Unreadable:
                return None  # for an operator to see
            removed = True
            return Swap(Delete(key))

        def done() -> None:
            if removed:
                self.log.info("{host} is registered no more: its agent {agent} is gone", host=str(ref), agent=seen.agent)

        self._swapping.persist(key, decide, done)
