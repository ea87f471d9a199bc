"""Whether new clients should come to this director: what a router's health check asks (``/ready`` of `node.metrics`)."""

from __future__ import annotations

from director.engine.node import Node


def why_not_ready(node: Node, *, stopping: bool, balances: bool) -> str:
    """Empty: send them. It is about this director alone: where no host is available, none is at the others either."""
    if stopping:
        return "it stops"
    if not node.running:
        return "it starts"
    if not balances:
        return "it does not balance"
    if not node.frontends:
        return "it has no service"
    if node.listeners.errors:
        return "it cannot listen at " + ", ".join(sorted(address for _, address in node.listeners.errors))
    return ""
