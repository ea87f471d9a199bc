"""The store that a node's file names, and what of it another process of the director hands over."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from twisted.internet.threads import deferToThreadPool

from cluster.etcd import EtcdStore
from cluster.file import FileStore
from cluster.memory import MemoryStore
from cluster.model import Node
from cluster.store import Store
from director.ha.clustering import etcd_access


class Inherited(NamedTuple):
    """What another process of this director has."""

    store: bytes | None  #: the content of a store of its own
    boot_id: str


def make_store(node: Node, *, reactor: Any, inherited: bytes | None = None) -> Store:
    """``memory:``, ``file:/path`` or ``etcd:``.

    :param inherited: what another process has, where it is a store of this director's own.
    """
    kind, _, path = node.store.partition(":")
    if kind == "memory":
        return MemoryStore(clock=reactor, wall=time.time, inherited=inherited)
    if kind == "etcd":
        return EtcdStore(etcd_access(node.etcd), reactor=reactor)
    return FileStore(
        path, clock=reactor, wall=time.time,
        threads=lambda work: deferToThreadPool(reactor, reactor.getThreadPool(), work), inherited=inherited,
    )
