"""Moving bytes between two connected sockets."""

from __future__ import annotations

from typing import Any, Literal

from cluster.errors import Misuse
from director.relay.interface import Relay
from director.relay.python import PythonRelay

__all__ = ["make_relay"]


def make_relay(kind: Literal["auto", "native", "python"] = "auto", *, reactor: Any) -> Relay:
    """The implementation that *kind* names; ``auto`` is the fastest one there is.

    :raises Misuse: this installation has no such relay.
    """
    if kind == "native":
        raise Misuse("this installation has no native relay")
    return PythonRelay(reactor=reactor)
