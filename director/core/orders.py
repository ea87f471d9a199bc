"""Standing admin orders: who ordered what about which host, and which orders count.

An order is by an ``operator``, by the host's own ``agent``, or ``local``: an operator's for this director alone, given
while the store is away or others must not follow. Three rules:

1. Each author has one order for a host at most; the most restrictive of those that count wins.
2. A local order counts in the operator's place, even if it is milder.
3. It ends with the operator's next order for the host, and when the store is read anew, which then says again what
   every director goes by.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.model import AdminState, HostRef, Order

LOCAL = "local"


def counting(orders: Mapping[str, Order]) -> dict[str, Order]:
    """Of one host's *orders* by author, those that count."""
    return {by: order for by, order in orders.items() if by != "operator" or LOCAL not in orders}


class Orders:
    """Every standing order, also of hosts that are not (yet) configured."""

    def __init__(self) -> None:
        self._hosts: dict[HostRef, dict[str, Order]] = {}

    def of(self, ref: HostRef) -> dict[str, Order]:
        """A host's orders by author; a copy."""
        return dict(self._hosts.get(ref, {}))

    @property
    def hosts(self) -> list[HostRef]:
        """All about which an order stands."""
        return list(self._hosts)

    @property
    def local(self) -> list[HostRef]:
        """All about which a local order stands."""
        return [ref for ref, orders in self._hosts.items() if LOCAL in orders]

    def set(self, ref: HostRef, by: str, order: Order | None) -> None:
        """*order* of this author stands, or (None) stands no more. A local ``up`` stands only against an operator's."""
        orders = self.of(ref)
        if by == "operator":
            orders.pop(LOCAL, None)
        elif by == LOCAL and order is not None and order.state is AdminState.UP and "operator" not in orders:
            order = None
        orders.pop(by, None)
        if order is not None:
            orders[by] = order
        if orders:
            self._hosts[ref] = orders
        else:
            self._hosts.pop(ref, None)
