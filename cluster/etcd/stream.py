"""One watch stream on one connection: many watches, one thread that reads and decodes.

The thread is ours because gRPC's streams can only be read by waiting. It ends with the stream, whatever ends that: the
endpoint's death, gRPC's own keepalive, a closed connection, `close`.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from cluster.etcd.client import grpc, rpc
from cluster.etcd.connection import EndpointConnection
from cluster.etcd.records import Heard, heard, watch_request

#: Answers that may wait for the reactor; then the thread waits, and etcd holds back what follows.
MAX_UNHEARD = 100


class Reader(Protocol):
    """Who a watch is for."""

    active: bool

    def heard(self, answer: Heard) -> None:
        """What etcd said about the watch; on the reactor's thread."""


class Stream:
    """
    :ivar ended: fires once, with why, when nothing more will be heard and the thread is done.
    :ivar closed: whether that was our wish.
    """

    def __init__(self, connection: EndpointConnection, *, reactor: Any) -> None:
        self.ended: Deferred[str] = Deferred()
        self.closed = False
        self.metadata = connection.metadata
        self._reactor = reactor
        self._pending: deque[Reader] = deque()  # etcd answers requests for watches in their order
        self._readers: dict[int, Reader] = {}
        self._unheard = threading.Semaphore(MAX_UNHEARD)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call = connection.watch(iter(self._requests.get, None), metadata=self.metadata)
        self._thread = threading.Thread(target=self._read, name="txdirector-etcd-watch", daemon=True)
        self._thread.start()

    def create(self, prefix: str, revision: int, reader: Reader) -> None:
        """Let *reader* hear of every change under *prefix* from *revision* on."""
        self._pending.append(reader)
        self._requests.put(watch_request(prefix, revision))

    def cancel(self, reader: Reader) -> None:
        """Nothing of *reader*'s present watch will be heard any more. One that is being created is let go once it is,
        if *reader* is no longer active then."""
        for number in [number for number, each in self._readers.items() if each is reader]:
            del self._readers[number]
            self._requests.put(rpc.WatchRequest(cancel_request=rpc.WatchCancelRequest(watch_id=number)))

    def close(self) -> None:
        """End the stream; `ended` fires soon."""
        self.closed = True
        self._call.cancel()
        self._requests.put(None)

    def _read(self) -> None:
        """The thread."""
        why = "etcd ended the watch stream"
        try:
            for answer in self._call:
                self._unheard.acquire()
                self._reactor.callFromThread(self._heard, heard(answer))
        except grpc.RpcError as error:
            why = str(error.details() or error.code().name).partition("\n")[0]
        except Exception as error:  # whatever it is, the watches must go on elsewhere
            why = f"the watch stream failed: {error!r}"
        self._requests.put(None)  # lets gRPC's own thread go, which waits for requests
        self._reactor.callFromThread(self._over, why)

    def _heard(self, answer: Heard) -> None:
        self._unheard.release()
        if answer.created:
            reader = self._pending.popleft()
            if not answer.cancelled:
                self._readers[answer.watch] = reader
            if not reader.active:
                self.cancel(reader)
        else:
            known = self._readers.get(answer.watch)
            if known is None:
                return
            reader = known
            if answer.cancelled:
                del self._readers[answer.watch]
        if reader.active:
            reader.heard(answer)

    def _over(self, why: str) -> None:
        self._thread.join()  # it has nothing left to do
        self.ended.callback(why)
