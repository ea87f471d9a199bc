"""Polls the agent-check responders of groups that have them (``health.agent_check``), and has their answers followed.

What a responder says is followed like an agent's report: weight factor, maximum, and an order of the author ``agent``. A
host whose own agent reports, here or to another director, is not asked: it speaks for itself, and two would contradict each
other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.agent_check import parse
from cluster.model import Health, HostRef, Order
from director.checks.agent_check import Asker, NoAnswer
from director.checks.probe_loop import ProbeLoop
from director.core.entries import HostEntry
from director.core.responders import Relayed, Responder, Said
from director.engine.node import Node

#: Who orders, in orders.
WHO = "agent-check"
#: How soon a group that is told to ask, or not to, does so.
LOOK_S = 1.0
#: Asked at the same time; each holds a descriptor. Those that answer take a millisecond.
MAX_ASKING = 100
#: Intervals vary by this fraction either way, so that a thousand responders are not asked in one turn for ever.
JITTER = 0.1


class _Asked:
    """What is known of one host's responder."""

    def __init__(self, entry: HostEntry) -> None:
        self.entry = entry
        self.said = Said()
        self.state = Responder()
        self.asking: Deferred[bytes] | None = None


class Responders(Service):
    """See the module.

    :param random: uniform in [0, 1).
    """

    log = Logger()

    def __init__(self, node: Node, *, reactor: Any, random: Callable[[], float]) -> None:
        self.setName("responders")
        self._node = node
        self._random = random
        self._asker = Asker(reactor=reactor, shortages=node.shortages)
        self._gate = DeferredSemaphore(MAX_ASKING)
        self._loop = ProbeLoop(reactor=reactor, monotonic=node.monotonic)
        self._look = LoopingCall(self._looked)
        self._look.clock = reactor
        self._asked: dict[HostRef, _Asked] = {}

    def startService(self) -> None:
        super().startService()
        self._loop.startService()
        if not self._look.running:
            self._look.start(LOOK_S)

    def stopService(self) -> None:
        """What was said stays said."""
        super().stopService()
        if self._look.running:
            self._look.stop()
        self._loop.stopService()
        for asked in self._asked.values():
            if asked.asking is not None:
                asked.asking.cancel()

    # --- whom to ask

    def _looked(self) -> None:
        """Hosts come and go, and so do settings."""
        wanted = {entry.ref: entry for service in self._node.inventory.services.values()
                  for group in service.groups.values() if group.spec.health.agent_check is not None
                  for entry in group.hosts.values()}
        for ref, asked in list(self._asked.items()):
            if wanted.get(ref) is not asked.entry:
                self._forget(ref, asked)
        for ref, entry in wanted.items():
            if ref not in self._asked:
                self._asked[ref] = _Asked(entry)
                self._plan(ref, first=True)

    def _forget(self, ref: HostRef, asked: _Asked) -> None:
        """It is asked no more: what it said ends."""
        del self._asked[ref]
        self._loop.forget(ref)
        if asked.asking is not None:
            asked.asking.cancel()
        if self._is_alone(asked):
            self._follow(ref, asked, Said())
        self._node.inventory.responder(asked.entry, None)

    def _health(self, ref: HostRef) -> Health:
        """The policy of its group; of one that has gone, the default one."""
        service = self._node.inventory.services.get(ref.service)
        group = service.groups.get(ref.group) if service is not None else None
        return group.spec.health if group is not None else Health()

    def _plan(self, ref: HostRef, *, first: bool = False) -> None:
        spec = self._health(ref).agent_check
        if spec is not None:
            share = self._random() if first else 1.0 + JITTER * (2.0 * self._random() - 1.0)
            self._loop.schedule(ref, self._node.monotonic() + spec.interval_s * share, lambda: self._ask(ref))

    # --- asking

    def _ask(self, ref: HostRef) -> None:
        asked, spec = self._asked.get(ref), self._health(ref).agent_check
        if asked is None or spec is None:
            return
        target = asked.entry.target
        if target is None or not self._is_alone(asked):
            why = asked.entry.address_error if target is None else "not asked: its own agent reports"
            self._show(asked, asked.state._replace(problem=why, answers=False))
            self._plan(ref)
            return
        address = target.address._replace(port=spec.port)
        asked.asking = self._gate.run(lambda: self._asker.ask(address, spec, target.sources))
        asked.asking.addCallbacks(lambda line: self._answered(ref, asked, line),
                                  lambda failure: self._unanswered(asked, failure))
        asked.asking.addErrback(lambda failure: self.log.failure("asking {host} broke", failure, host=str(ref)))
        asked.asking.addBoth(lambda _: self._over(ref, asked))

    def _over(self, ref: HostRef, asked: _Asked) -> None:
        asked.asking = None
        if self._asked.get(ref) is asked and self.running:
            self._plan(ref)

    def _unanswered(self, asked: _Asked, failure: Failure) -> None:
        if not failure.check(CancelledError):
            failure.trap(NoAnswer)
            self._show(asked, asked.state._replace(problem=str(failure.value), answers=False))

    def _answered(self, ref: HostRef, asked: _Asked, line: bytes) -> None:
        if self._asked.get(ref) is not asked or not self.running or not self._is_alone(asked):
            return
        answer = parse(line)
        problem = f"unknown: {' '.join(answer.unknown)}"[:200] if answer.unknown else ""
        said = line.decode("utf-8", "backslashreplace")[:200]
        self._show(asked, Responder(said, self._node.monotonic(), problem, answers=True))
        self._follow(ref, asked, asked.said.then(answer))

    def _show(self, asked: _Asked, state: Responder) -> None:
        if (state.answers, state.problem) != (asked.state.answers, asked.state.problem):
            how = "answers" if state.answers else "does not answer"
            self.log.info("the responder of {host} {how}{why}", host=str(asked.entry.ref), how=how,
                          why=f" ({state.problem})" if state.problem else "")
        asked.state = state
        self._node.inventory.responder(asked.entry, state)

    # --- what follows

    def _is_alone(self, asked: _Asked) -> bool:
        """Whether no agent speaks for the host: none is connected here, and no report but ours came lately."""
        entry = asked.entry
        if entry.agent is not None:
            return False
        if entry.report is None or isinstance(entry.report, Relayed):
            return True
        return self._node.monotonic() - entry.report_at >= self._health(entry.ref).timeout_s

    def _follow(self, ref: HostRef, asked: _Asked, said: Said) -> None:
        node, entry = self._node, asked.entry
        asked.said = said
        if node.inventory.hosts.get(ref) is entry:
            node.inventory.relayed(ref, said.report, 0.0, node.monotonic())
        standing, wanted = entry.orders.get("agent"), said.order
        if wanted is None:
            if standing is not None and standing.who == WHO:
                node.set_order(ref, "agent", None)
        elif standing is None or (standing.who, standing.state, standing.why) != (WHO, *wanted):
            state, why = wanted
            node.set_order(ref, "agent", Order(state=state, who=WHO, why=why, at=node.wall()))
        node.settle()
