"""Promises over the peer link, for ``vip_on_isolation = "keep"``: asking for them, and giving them.

A member promises only what it can keep, and only while it cannot reach the store itself: it asks the store at that moment,
for what it heard of it last may be old. Whoever reaches the store should lead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cluster.keys import Keys
from cluster.peer_wire import Ask, Promise
from cluster.store import Store
from director.core.promises import PROMISE_S, Promises
from director.core.vip import needed_s
from director.ha.leading import Leading, boottime
from director.ha.peers import Peers

#: The holder looks this often whether it needs promises.
LOOK_S = 0.1
#: A lease that has so much more left than addresses need was renewed in time.
EARLY_S = 0.1
#: For the store to show that it is there, before a member promises. The holder's addresses live on meanwhile.
PROBE_S = 0.4


class Promising(Service):
    """Asks while it runs and this director holds the addresses; answers as long as *peers* bring questions.

    :param members: the other directors that may lead, as last known.
    :param holds: whether this director holds the addresses.
    :param keep: whether it is configured to keep them.
    """

    log = Logger()

    def __init__(self, peers: Peers, leading: Leading, store: Store, keys: Keys, *, members: Callable[[], Collection[str]],
                 holds: Callable[[], bool], keep: bool, reactor: Any, boottime: Callable[[], float] = boottime) -> None:
        self.setName("promising")
        self._peers = peers
        self._leading = leading
        self._store = store
        self._key = keys.leader()
        self._members = members
        self._holds = holds
        self._keep = keep
        self._reactor = reactor
        self._boottime = boottime
        self._promises = Promises()
        self._asked_of: tuple[str, ...] = ()  # the members when it began
        self._keeping = False
        self._timer: Any = None
        peers.hear(Ask, self._asked)
        peers.hear(Promise, self._answered)

    def right_s(self) -> float:
        """For how long others have promised, if that counts now."""
        if not self._keeping or not self._may_keep():
            return 0.0
        return self._promises.right_s(self._asked_of, self._boottime())

    def startService(self) -> None:
        if not self.running:
            super().startService()
            self._look()

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the holder's side

    def _may_keep(self) -> bool:
        """Holds the addresses and leads, or led until its lease lapsed; and nobody else is known to lead."""
        leading = self._leading
        known = leading.known
        other = known is not None and known.leader.name != leading.director
        holds = self._keep and bool(self.running) and self._holds()
        return holds and not other and (leading.leads or leading.lapsed)

    def _look(self) -> None:
        self._timer = self._reactor.callLater(LOOK_S, self._look)
        needs = self._may_keep() and self._leading.remaining_s() < needed_s(self._leading.ttl_s) + EARLY_S
        if needs and not self._keeping:
            self._asked_of = tuple(self._members())
        if self._keeping and not needs:
            self._promises.forget()
        self._keeping = needs
        if needs:
            for member, number in self._promises.ask(self._asked_of, self._boottime()):
                self._peers.send(member, Ask(number=number, for_s=PROMISE_S))

    def _answered(self, peer: str, promise: Promise) -> None:
        if promise.granted:
            self._promises.granted(peer, promise.number)
        else:
            self.log.info("{peer} does not promise to hold back: {why}", peer=peer, why=promise.why)

    # --- the member's side

    def _asked(self, peer: str, ask: Ask) -> None:
        Deferred.fromCoroutine(self._answer(peer, ask)).addErrback(
            lambda failure: self.log.failure("a question of {peer} was not answered", failure, peer=peer))

    async def _answer(self, peer: str, ask: Ask) -> None:
        why = await self._objection(ask)
        if not why and not self._leading.promise(ask.for_s):
            why = "it leads, or is about to"
        if not why:
            self.log.debug("holding back for {seconds} s for {peer}", seconds=ask.for_s, peer=peer)
        self._peers.send(peer, Promise(number=ask.number, granted=not why, why=why))

    async def _objection(self, ask: Ask) -> str:
        if not self._keep:
            return "not configured to (vip_on_isolation)"
        if ask.for_s > PROMISE_S:
            return f"{ask.for_s:g} s is longer than it holds back after a start"
        try:
            await self._store.get(self._key).addTimeout(PROBE_S, self._reactor)
        except Exception:  # whatever it is: the store does not answer
            return ""
        return "the store answers here"
