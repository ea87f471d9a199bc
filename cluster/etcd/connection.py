"""Calls to etcd: one connection at a time, to whichever endpoint answers.

Rules:

- a connection is used once its endpoint has said that it knows a leader, and is never repaired: after any sign of
  trouble it is dropped and the next endpoint is tried;
- every call has a deadline, and asks to be refused at once by a member without a leader;
- what only reads is tried a second time, elsewhere; a commit is not, since it may have happened;
- an expired token is replaced on the connection that it expired on, and the call is made again: etcd refused it
  before looking at it.

Answers are read into records on gRPC's thread, so that a large one does not hold the reactor up.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import Misuse, OutcomeUnknown, StoreFull, StoreUnavailable
from cluster.etcd.client import etcd3, grpc, rpc
from cluster.etcd.version import warning

_T = TypeVar("_T")

#: For a call, retried or not. etcd itself gives a proposal up after 7 s; callers have less patience.
CALL_S = 5.0
#: For an endpoint to say how it is. A local question, answered in a millisecond; a frozen endpoint costs this once.
HANDSHAKE_S = 2.0
#: For authenticating: etcd spends 0.1 s of CPU on purpose, more when it is busy.
AUTHENTICATE_S = 5.0

#: A member that has lost its leader refuses at once and ends streams, instead of letting them wait.
_NEEDS_LEADER = (("hasleader", "true"),)

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # a page of large services exceeds the default of 4 MiB
    ("grpc.keepalive_time_ms", 10_000),  # etcd takes a ping every 5 s at most; a silent peer is found within 15 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),  # a watch may be silent for days
    ("grpc.enable_retries", 0),  # a commit is sent once
    ("grpc.use_local_subchannel_pool", 1),  # a new connection, not the old one found again
    ("grpc.enable_http_proxy", 0),  # etcd is near
)


class Access(NamedTuple):
    """Where etcd is and how to be let in. With *ca* the connection is TLS; *user* needs *password*."""

    endpoints: tuple[str, ...]  #: ``host:port``, all of one cluster
    ca: str | None = None  #: paths of PEM files
    certificate: str | None = None
    key: str | None = None
    user: str | None = None
    password: str | None = None


class Compacted(Exception):
    """The revision asked for is gone, or not there yet: etcd was compacted or restored."""


class _Verdict(enum.Enum):
    """What an error of etcd says."""

    ENDPOINT = "this endpoint cannot answer now; perhaps another can"
    STALE = "authenticate anew"
    COMPACTED = "the revision is not there"
    LEASE = "there is no such lease"
    REQUEST = "no endpoint would take this request"
    CLUSTER = "etcd as a whole refuses"


_VERDICTS = {
    grpc.StatusCode.UNAUTHENTICATED: _Verdict.STALE,
    grpc.StatusCode.OUT_OF_RANGE: _Verdict.COMPACTED,
    grpc.StatusCode.NOT_FOUND: _Verdict.LEASE,
    grpc.StatusCode.INVALID_ARGUMENT: _Verdict.REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: _Verdict.REQUEST,
    grpc.StatusCode.PERMISSION_DENIED: _Verdict.CLUSTER,
    grpc.StatusCode.RESOURCE_EXHAUSTED: _Verdict.CLUSTER,
}
#: Invalid arguments that are really about the token: none was sent, or roles have changed since it was given.
_ABOUT_TOKENS = ("user name is empty", "revision of auth store is old")


#: Said before anything was done: no connection came about, or the member knows no leader to propose anything to.
_NOT_DONE = ("failed to connect to all addresses", "etcdserver: no leader")


def _certainly_not_done(error: grpc.RpcError) -> bool:
    return any(text in (error.details() or "") for text in _NOT_DONE)


def _verdict(error: grpc.RpcError) -> _Verdict:
    verdict = _VERDICTS.get(error.code(), _Verdict.ENDPOINT)
    if verdict is _Verdict.REQUEST and any(text in error.details() for text in _ABOUT_TOKENS):
        return _Verdict.STALE
    return verdict


class EndpointConnection:
    """One endpoint. Its calls fail with ``grpc.RpcError``."""

    def __init__(self, endpoint: str, access: Access, *, reactor: Any) -> None:
        """
        :raises OSError: a file of *access* cannot be read.
        :raises ValueError: *access* is inconsistent.
        """
        host, _, port = endpoint.rpartition(":")
        client = etcd3.Etcd3Client(host, port, ca_cert=access.ca, cert_cert=access.certificate, cert_key=access.key,
                                   grpc_options=_OPTIONS)
        self.endpoint = endpoint
        self.version = ""
        self.metadata: tuple[tuple[str, str], ...] = _NEEDS_LEADER
        self.kv = client.kvstub
        self.lease = client.leasestub
        self.watch = rpc.WatchStub(client.channel).Watch
        # A stream of one request and one answer is, to HTTP/2, a call. Made as one it has a deadline of its own, needs
        # no thread, and tells which question was answered.
        self.keep_alive = client.channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=rpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
        )
        self.maintenance = client.maintenancestub
        self._auth = rpc.AuthStub(client.channel)
        self._client = client
        self._reactor = reactor

    def call(self, method: Any, request: Any, timeout_s: float, read: Callable[[Any], _T], *,
             token: bool = True) -> Deferred[_T]:
        """Fires with *read* of the answer."""
        outcome: Deferred[_T] = Deferred()

        def answered(future: Any) -> None:  # on gRPC's thread
            try:
                result: Any = read(future.result())
            except BaseException:
                result = Failure()
            self._reactor.callFromThread(outcome.callback, result)

        metadata = self.metadata if token else _NEEDS_LEADER
        method.future(request, timeout_s, metadata=metadata).add_done_callback(answered)
        return outcome

    async def open(self, access: Access) -> str:
        """Authenticate and ask the endpoint how it is; answers why it cannot be used, empty when it can."""
        if access.user is not None:
            await self.authenticate(access)
        try:
            version, leader = await self.call(self.maintenance.Status, rpc.StatusRequest(), HANDSHAKE_S,
                                              lambda status: (status.version, status.leader))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.PERMISSION_DENIED:  # newer releases tell this to root only
                raise
            version, leader = "", 1
        self.version = version
        return "" if leader else "knows no leader"

    async def authenticate(self, access: Access) -> None:
        """Get a token. Only as metadata: gRPC forbids call credentials on plaintext connections."""
        request = rpc.AuthenticateRequest(name=access.user, password=access.password)
        try:
            token = await self.call(self._auth.Authenticate, request, AUTHENTICATE_S, lambda answer: answer.token,
                                    token=False)  # with a token that has ended etcd would refuse this as well
        except grpc.RpcError as error:
            if "authentication is not enabled" not in error.details():
                raise
            return
        self.metadata = (*_NEEDS_LEADER, ("token", token))

    def close(self) -> None:
        """Every call under way fails at once, on gRPC's thread."""
        self._client.close()


class Caller:
    """Calls to the cluster, wherever it answers. On the reactor's thread only."""

    log = Logger()

    def __init__(self, access: Access, *, reactor: Any) -> None:
        self._access = access
        self._reactor = reactor
        self._next = 0  #: the endpoint to try next
        self._connection: EndpointConnection | None = None
        self._trying: EndpointConnection | None = None
        self._waiters: list[Deferred[EndpointConnection]] = []
        self._stopped = False
        self._told = ""  #: why etcd is away, as last logged
        self._warned: set[str] = set()

    @property
    def available(self) -> bool:
        """Whether some endpoint answered last."""
        return self._connection is not None

    def connected(self) -> Deferred[EndpointConnection]:
        """A connection that works as far as is known; fails with `StoreUnavailable` when no endpoint does."""
        if self._stopped:
            return fail(StoreUnavailable("the store was stopped"))
        if self._connection is not None:
            return succeed(self._connection)
        waiter: Deferred[EndpointConnection] = Deferred()
        self._waiters.append(waiter)
        if len(self._waiters) == 1:
            Deferred.fromCoroutine(self._connect()).addErrback(
                lambda failure: self.log.failure("connecting to etcd failed", failure))
        return waiter

    async def call(self, method: Callable[[EndpointConnection], Any], request: Any, read: Callable[[Any], _T], *,
                   timeout_s: float = CALL_S, again: bool = True) -> _T:
        """Ask etcd and read its answer.

        :param again: try another endpoint when one fails; else what may have been done fails with `OutcomeUnknown`.
        :raises Misuse: etcd does not take this request, or does not know its lease.
        :raises Compacted: it asks for a revision that is not there.
        :raises StoreFull: it has no room.
        :raises StoreUnavailable: anything else.
        """
        deadline = self._reactor.seconds() + timeout_s
        renew = self._access.user is not None
        once = not again
        while True:
            connection = await self.connected()
            used = connection.metadata
            try:
                left = max(0.0, deadline - self._reactor.seconds())
                return await connection.call(method(connection), request, left, read)
            except grpc.RpcError as error:
                verdict = _verdict(error)
                if verdict is _Verdict.STALE and renew:
                    renew = False
                    if not await self.renew(connection, used):
                        _give_up(error, connection.endpoint)
                elif verdict is _Verdict.ENDPOINT:
                    self.drop(connection, _told(error))
                    if once and not _certainly_not_done(error):
                        raise OutcomeUnknown(f"{connection.endpoint}: {_told(error)}") from error
                    if not again or self._stopped or self._reactor.seconds() >= deadline:
                        _give_up(error, connection.endpoint)
                    again = False
                else:
                    _give_up(error, connection.endpoint)

    async def renew(self, connection: EndpointConnection, used: tuple[tuple[str, str], ...]) -> bool:
        """Get a new token in place of the one *used*, unless somebody has; answers whether there is one to try."""
        if self._access.user is None or connection.metadata != used or self._stopped:
            return not self._stopped
        try:
            await connection.authenticate(self._access)
        except grpc.RpcError as error:
            self.drop(connection, f"not authenticated: {_told(error)}")
            return False
        return True

    def drop(self, connection: EndpointConnection, why: str) -> None:
        """Use *connection* no more; the next call looks for another. Doing so again does nothing."""
        if connection is self._connection:
            self._connection = None
            connection.close()
            if not self._stopped:
                self._tell(f"{connection.endpoint}: {why}")

    def stop(self) -> None:
        """Every call fails, those under way too."""
        self._stopped = True
        for connection in (self._connection, self._trying):
            if connection is not None:
                connection.close()
        self._connection = None

    async def _connect(self) -> None:
        """Try every endpoint once, and tell all who wait."""
        found, reasons = None, []
        for _ in self._access.endpoints:
            endpoint = self._access.endpoints[self._next % len(self._access.endpoints)]
            self._next += 1
            if self._stopped:
                reasons.append("the store was stopped")
                break
            found, why = await self._try(endpoint)
            if found is not None:
                break
            reasons.append(f"{endpoint}: {why}")
        waiters, self._waiters = self._waiters, []
        if found is not None:
            self._connection = found
            self._greet(found)
        else:
            self._tell("; ".join(reasons))
        for waiter in waiters:
            if found is not None:
                waiter.callback(found)
            else:
                waiter.errback(StoreUnavailable("etcd does not answer: " + "; ".join(reasons)))

    async def _try(self, endpoint: str) -> tuple[EndpointConnection | None, str]:
        connection = None
        try:
            connection = self._trying = EndpointConnection(endpoint, self._access, reactor=self._reactor)
            why = await connection.open(self._access)
        except grpc.RpcError as error:
            why = _told(error)
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
        except ValueError as error:  # a certificate without a key, or the reverse
            why = str(error)
        self._trying = None
        if connection is None or not (why or self._stopped):
            return connection, why
        connection.close()
        return None, why or "the store was stopped"

    def _greet(self, connection: EndpointConnection) -> None:
        self.log.info("connected to etcd {version} at {endpoint}", version=connection.version or "of unknown version",
                      endpoint=connection.endpoint)
        self._told = ""
        doubtful = warning(connection.version)
        if doubtful and doubtful not in self._warned:
            self._warned.add(doubtful)
            self.log.warn("{why}", why=doubtful)

    def _tell(self, why: str) -> None:
        """Once for each reason, until connected again."""
        if why != self._told and not self._stopped:
            self._told = why
            self.log.warn("etcd is away: {why}", why=why)


def _told(error: grpc.RpcError) -> str:
    """What gRPC or etcd says, in a line."""
    return f"{error.details() or error.code().name}".partition("\n")[0]


def _give_up(error: grpc.RpcError, endpoint: str) -> NoReturn:
    verdict, text = _verdict(error), f"{endpoint}: {_told(error)}"
    if verdict is _Verdict.COMPACTED:
        raise Compacted(text) from error
    if verdict in (_Verdict.LEASE, _Verdict.REQUEST):
        raise Misuse(text) from error
    if "database space exceeded" in text:
        raise StoreFull(text) from error
    raise StoreUnavailable(text) from error
