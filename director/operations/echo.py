"""An agent says back what its host was told: a drained host's agent reports ``drain``, which is an order like any other.

When the operator takes their drain back, the agent hears of it, and its next report, sent at once, ends its own. The
answer to the operator waits for that, so that it shows what the order leads to.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater

from cluster.model import HostRef
from director.engine.node import Node
from director.reports.attendance import REPORTED

#: An agent answers an order at once; one that does not, drains for reasons of its own, and the answer says so.
ECHO_S = 1.0
#: Between two looks.
LOOK_S = 0.02


class Echo:
    """Whether an agent's order is the echo of an operator's, and when that is over."""

    def __init__(self, node: Node, *, reactor: Any) -> None:
        self._node = node
        self._reactor = reactor

    def heard(self, ref: HostRef) -> bool:
        """Whether the order by the host's agent came after the operator's, by a report."""
        orders = self._orders(ref)
        operator, agent = orders.get("operator"), orders.get("agent")
        return operator is not None and agent is not None and agent.why == REPORTED and agent.at >= operator.at

    async def over(self, ref: HostRef) -> None:
        """Returns when the agent orders nothing any more, `ECHO_S` from now at the latest."""
        until = self._node.monotonic() + ECHO_S
        while "agent" in self._orders(ref) and self._node.monotonic() < until:
            await deferLater(self._reactor, LOOK_S)

    def _orders(self, ref: HostRef) -> Any:
        entry = self._node.inventory.hosts.get(ref)
        return entry.orders if entry is not None else {}
