"""Moving bytes between two connected sockets."""

from __future__ import annotations

from typing import Any, Literal

from cluster.errors import Misuse
from director.relay.choice import choose, native_missing
from director.relay.interface import Relay
from director.relay.pipes import MAX_PIPES
from director.relay.python import PythonRelay
from director.relay.tls_relay import TLSRelay

__all__ = ["choice", "interface", "make_relay", "openssl", "pipes", "turnarounds"]


def make_relay(kind: Literal["auto", "native", "python", "tls"] = "auto", *, reactor: Any, threads: int = 1,
               pipes: int = MAX_PIPES) -> Relay:
    """The implementation that *kind* names; ``auto`` is the fastest one there is, ``tls`` that of connections with TLS.

    :param threads: of the native relay.
    :param pipes: that it may have at most, two descriptors each.
    :raises Misuse: this installation has no such relay.
    """
    if kind == "tls":
        return TLSRelay(reactor=reactor)
    missing = native_missing()
    if kind == "native" and missing:
        raise Misuse(f"no native relay: {missing}")
    if choose(kind, missing).name == "python":
        return PythonRelay(reactor=reactor, pipes=pipes)
    from director.relay.native import NativeRelay

    return NativeRelay(reactor=reactor, threads=threads, pipes=pipes)
