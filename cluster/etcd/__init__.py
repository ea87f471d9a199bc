"""The store of a cluster, in etcd: see `cluster.store` for what it keeps and `cluster.etcd.store` for how.

Only this package imports ``etcd3`` and ``grpc``, and only `cluster.etcd.stream` has a thread of ours: calls are gRPC
futures, whose answers are decoded on gRPC's own thread and then handed to the reactor.
"""

from cluster.etcd.connection import Access
from cluster.etcd.store import EtcdStore

__all__ = ["Access", "EtcdStore"]
