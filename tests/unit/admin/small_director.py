"""A director of two services in memory, for what stands in front of `director.admin.control.Operations`."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPResponse
from typing import Any, Literal

import msgspec
from argon2 import PasswordHasher
from prometheus_client import CollectorRegistry
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from zope.interface import implementer

from cluster.address import Address
from cluster.errors import StoreUnavailable
from cluster.model import Admin as AdminConfig
from cluster.model import (
    AdminState,
    AuditEntry,
    Configuration,
    Group,
    Host,
    HostRef,
    HostState,
    LoadReport,
    Node,
    Service,
    User,
)
from director.admin.auth import InThread
from director.admin.control import Audit, Control
from director.admin.gate import Gate
from director.admin.intake import AdminSite
from director.admin.offers import Edit, Reloaded, Stopping, Stored, Upgraded, UserPicture
from director.admin.site import make_site
from director.admin.ui.assembly import make_ui
from director.core.snapshot import (
    CandidatePicture,
    CheckPicture,
    ClusterPicture,
    ConnectionPicture,
    ConnectionsPicture,
    DirectorPicture,
    Explanation,
    GroupPicture,
    HostPicture,
    OrderPicture,
    PastPicture,
    ServicePicture,
    TotalsPicture,
    TransitionPicture,
    VipPicture,
    totals_of,
)
from director.engine.errors import Conflict, NotFound, Refused, Stale

#: As cheap as Argon2 gets; the strength of hashes is not what these tests are about.
HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
USERS = {
    "ada": User(password=HASHER.hash("engine"), role="full"),
    "bob": User(password=HASHER.hash("looking"), role="readonly"),
}


def host_picture(ref: HostRef, **changes: Any) -> HostPicture:
    """A host in good health, but for *changes*."""
    values: dict[str, Any] = {
        "service": ref.service, "group": ref.group, "name": ref.host, "address": "127.0.0.1:8001", "backup": False,
        "registered": False, "discovered": False, "state": HostState.UP, "admin": AdminState.UP, "orders": (), "in_rotation": True,
        "why_not": "", "since": 1000.0, "why": "first heartbeat", "configured_weight": 1.0, "capacity": 1.0,
        "slow_start": 1.0, "agent_weight": 1.0, "weight": 1.0, "in_flight": 0, "max_connections": 0, "picks": 0,
        "connect_failures": 0, "agent_connected": True, "heartbeat_age_s": 0.5,
        "report": LoadReport(utilisation=0.25, in_flight=3, latency_s=0.02, rate=50.0, errors=0.0),
        "check": CheckPicture(), "history": (),
    }
    return HostPicture(**(values | changes))


class SmallDirector:
    """Keeps hosts by their reference and does what it is ordered.

    :ivar accounts: users by name.
    :ivar available: while False, changes fail as with a store that is away.
    :ivar clients: connected to any service.
    :ivar did: what the process was told.
    :ivar specs: the services as configured, with their revisions.
    """

    def __init__(self, accounts: dict[str, User] | None = None) -> None:
        self.accounts = dict(USERS) if accounts is None else accounts
        self.available = True
        self.clients = {"192.0.2.7:4711", "[2001:db8::7]:4712"}
        self.did: list[str] = []
        self.pinned: str | None = None
        self.shares: dict[str, float] = {}  # of groups that do not have all clients
        self.specs = {
            "web": Stored(revision=5, spec=Service(listen=("127.0.0.1:8000",), groups={
                "blue": Group(hosts={"app1": Host(address="127.0.0.1:8001"), "app2": Host(address="127.0.0.1:8001")}),
                "green": Group(hosts={"app3": Host(address="127.0.0.1:8003")}),
            })),
            "mail": Stored(revision=6, spec=Service(groups={"all": Group(hosts={"mx": Host(address="127.0.0.1:25")})})),
        }
        self.hosts = {
            ref: host_picture(ref)
            for ref in (HostRef("web", "blue", "app1"), HostRef("web", "blue", "app2"), HostRef("mail", "all", "mx"))
        }

    def refs(self) -> Iterable[HostRef]:
        return self.hosts.keys()

    def totals(self) -> TotalsPicture:
        return totals_of(self.whole().services)

    def bad(self, unused: bool) -> Iterable[HostRef]:
        return [ref for ref, host in self.hosts.items()
                if (not host.in_rotation if unused else host.state is not HostState.UP)]

    def happened(self, limit: int, *, downs: bool) -> Sequence[tuple[HostRef, TransitionPicture]]:
        every = [(ref, each) for ref, host in self.hosts.items() for each in host.history
                 if not downs or each.after is HostState.DOWN]
        return sorted(every, key=lambda pair: -pair[1].at)[:limit]

    def picture(self, service: str | None = None, group: str | None = None, host: str | None = None) -> DirectorPicture:
        whole = self.whole()
        return msgspec.structs.replace(whole, services=tuple(
            msgspec.structs.replace(each, groups=tuple(
                msgspec.structs.replace(part, hosts=tuple(one for one in part.hosts if host in (None, one.name)))
                for part in each.groups if group in (None, part.name)
            ))
            for each in whole.services if service in (None, each.name)
        ))

    def whole(self) -> DirectorPicture:
        services: dict[str, dict[str, list[HostPicture]]] = {}
        for ref, host in self.hosts.items():
            services.setdefault(ref.service, {}).setdefault(ref.group, []).append(host)
        return DirectorPicture(
            name="one", version="0.1.0", at=2000.0, started=1000.0, isolated=False, grace=False, store="memory:",
            store_available=self.available,
            services=tuple(
                ServicePicture(
                    name=name, listen=("127.0.0.1:8000",), enabled=next(iter(groups)), connections=4,
                    max_connections=0, split=self._split(name), queued=0, queue=0, sticky="", sticky_entries=0,
                    groups=tuple(
                        GroupPicture(
                            service=name, name=group, enabled=True, scheduler="weightedleastconns",
                            available=sum(host.in_rotation for host in hosts), failing_open=False,
                            backups_in_use=False, share=self.shares.get(group, 1.0), in_flight=sum(host.in_flight for host in hosts), hosts=tuple(hosts),
                        )
                        for group, hosts in groups.items()
                    ),
                )
                for name, groups in services.items()
            ),
        )

    def _split(self, service: str) -> dict[str, float]:
        return self.specs[service].spec.split if service in self.specs else {}

    def explain(self, service: str, client: str, server_name: str | None = None) -> Explanation:
        self._known(service)
        hosts = [host for ref, host in self.hosts.items() if ref.service == service]
        chosen = min((host for host in hosts if host.in_rotation), key=lambda host: host.in_flight, default=None)
        return Explanation(
            service=service, client=client, group=hosts[0].group, scheduler="weightedleastconns",
            host=chosen and chosen.name, random=False, sticky=False,
            candidates=tuple(
                CandidatePicture(group=host.group, host=host.name, eligible=host.in_rotation, why_not=host.why_not,
                                 factors={"in_flight": host.in_flight, "load": 1.5},
                                 weight=host.weight, share=host.share,
                                 words=("weight 1: configured 1 × capacity 1", "capacity 1: no report has come"))
                for host in hosts
            ),
            steps=("the access list lets the client in", "the least loaded host is chosen"),
        )

    def order(
        self, ref: HostRef, state: AdminState, *, who: str, why: str, deadline_s: float | None = None,
        local: bool = False,
    ) -> Deferred[None]:
        order = OrderPicture(by="local" if local else "operator", state=state, who=who, why=why, at=2000.0)
        up = state is AdminState.UP
        return self._change(ref, local, admin=state, orders=() if up else (order,), in_rotation=up,
                            why_not="" if up else f"ordered {state.value}")

    def set_weight(self, ref: HostRef, weight: float, *, who: str) -> Deferred[None]:
        return self._change(ref, configured_weight=weight, weight=weight)

    def approve(self, ref: HostRef, *, who: str) -> Deferred[None]:
        return self._change(ref)

    def retry(self, ref: HostRef) -> Deferred[None]:
        if self.hosts[ref].admin is AdminState.DOWN:
            return fail(Conflict(f"{ref} is ordered down"))
        return self._change(ref, state=HostState.UP)

    def forget(self, ref: HostRef) -> Deferred[int | None]:
        return succeed(None)

    def connections(self, service: str, limit: int) -> ConnectionsPicture:
        self._known(service)
        listed = tuple(
            ConnectionPicture(client=client, group="blue", host="app1", age_s=3.5, idle_s=1.0, to_host=10, to_client=20)
            for client in sorted(self.clients)[:limit]
        )
        return ConnectionsPicture(total=len(self.clients), connections=listed)

    def kill_connection(self, service: str, client: Address) -> int:
        self._known(service)
        known = str(client) in self.clients
        self.clients.discard(str(client))
        return int(known)

    def users(self) -> tuple[UserPicture, ...]:
        return tuple(
            UserPicture(name=name, role=user.role, source="store") for name, user in sorted(self.accounts.items())
        )

    def put_user(self, name: str, password: str | None, role: Literal["readonly", "full"]) -> Deferred[None]:
        self.accounts[name] = User(password=HASHER.hash(password or ""), role=role)
        return succeed(None)

    def del_user(self, name: str) -> Deferred[None]:
        if self.accounts.pop(name, None) is None:
            return fail(NotFound(f"no user is called {name!r}"))
        return succeed(None)

    def audit(self, limit: int) -> tuple[AuditEntry, ...]:
        return ()

    def process(self) -> SmallDirector:
        return self

    def reopen_logs(self) -> str:
        self.did.append("reopen_logs")
        return "stderr"

    def reload(self) -> Deferred[Reloaded]:
        self.did.append("reload")
        return succeed(Reloaded(reloaded=("node.log.level",), restart=()))

    def upgrade(self, who: str) -> Deferred[Upgraded]:
        self.did.append("upgrade")
        return succeed(Upgraded(pid=4711, version="2.0", connections=2, at_most_s=300.0))

    def shutdown(self, who: str) -> Stopping:
        self.did.append("shutdown")
        return Stopping(connections=2, at_most_s=300.0)

    def boot(self) -> Configuration:
        return Configuration(
            node=Node(admin=AdminConfig(users=dict(USERS))),
            services={name: stored.spec for name, stored in self.specs.items()},
        )

    def cluster(self) -> ClusterPicture:
        return ClusterPicture(cluster="default", director="one", store="memory:", store_available=self.available,
                              cold_start=False, leader=None, term=0)

    def vips(self) -> tuple[VipPicture, ...]:
        return (VipPicture(address="10.0.0.100", owner="one", since=1000.0, term=7, able=("one", "two"), pinned=self.pinned),)

    def move_vip(self, address: str, director: str, *, who: str) -> Deferred[VipPicture]:
        self.did.append(f"move {address} {director}")
        return succeed(self.vips()[0])

    def pin_vip(self, address: str, director: str, *, who: str) -> Deferred[VipPicture]:
        self.pinned = director
        return succeed(self.vips()[0])

    def unpin_vip(self, address: str, *, who: str) -> Deferred[VipPicture]:
        self.pinned = None
        return succeed(self.vips()[0])

    def rebalance_vips(self, *, who: str) -> Deferred[tuple[VipPicture, ...]]:
        self.did.append("rebalance")
        return succeed(self.vips())

    def history(self, ref: HostRef | None, limit: int) -> Deferred[tuple[PastPicture, ...]]:
        past = PastPicture(revision=5, at=1000.0, key="/txdirector/default/services/web", what="service web changed",
                           value="{}")
        return succeed((past,)) if self.available else fail(StoreUnavailable("no answer in 2 s"))

    def stored(self) -> Deferred[Mapping[str, Stored]]:
        return succeed(self.specs) if self.available else fail(StoreUnavailable("no answer in 2 s"))

    def change(self, service: str, change: Edit, *, revision: int | None = None) -> Deferred[int]:
        if not self.available:
            return fail(StoreUnavailable("no answer in 2 s"))
        before = self.specs.get(service)
        if revision is not None and revision != (before.revision if before is not None else 0):
            return fail(Stale(f"service {service} is another now"))
        try:
            after = change(before.spec if before is not None else None)
        except Refused as refusal:
            return fail(refusal)
        if after is None:
            del self.specs[service]
            return succeed(9)
        self.specs[service] = Stored(revision=9, spec=after)
        return succeed(9)

    def _known(self, service: str) -> None:
        if service not in {ref.service for ref in self.hosts}:
            raise NotFound(f"no service is called {service!r}")

    def _change(self, ref: HostRef, local: bool = False, **changes: Any) -> Deferred[None]:
        if not (self.available or local):
            return fail(StoreUnavailable("no answer in 2 s"))
        self.hosts[ref] = msgspec.structs.replace(self.hosts[ref], **changes)
        return succeed(None)


@implementer(ISSLTransport)
class Secure(StringTransport):
    """As if through TLS."""

    def setTcpNoDelay(self, enabled: bool) -> None: ...


class Answer:
    """A parsed response."""

    def __init__(self, wire: bytes, method: str) -> None:
        response = HTTPResponse(_Wire(wire), method=method)  # type: ignore[arg-type]  # it only asks for makefile()
        response.begin()
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _Wire:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self.data)


class Admin:
    """The admin's site over a `SmallDirector`, spoken to in bytes.

    :param users: none: open to this machine.
    :ivar in_thread: verifies passwords.
    :ivar channel: the server's end of the latest connection.
    """

    def __init__(
        self, users: dict[str, User] | None = None, *, exact: Mapping[bytes, Resource] | None = None, **config: Any
    ) -> None:
        self.clock = Clock()
        self.director = SmallDirector(users)
        self.audited: list[Audit] = []
        self.in_thread: InThread = lambda work: succeed(work())
        self.registry = CollectorRegistry()
        gate = Gate(lambda: self.director.accounts, lambda: False, clock=self.clock, in_thread=lambda work: self.in_thread(work))
        control = self.control = Control(self.director, audit=self.audited.append)
        settings = AdminConfig(refresh_s=7.0, project_url="https://project.example/", **config)
        ui, self.feed = make_ui(gate, control, settings, reactor=self.clock)
        self.site: AdminSite = make_site(gate, control, self.registry, ui, settings, reactor=self.clock, exact=exact or {})

    def connect(
        self, wire: bytes, peer: str = "127.0.0.1", *, secure: bool = False, finishing: bool = True
    ) -> StringTransport:
        """The transport of a client at *peer* that sent these bytes.

        :param secure: as if through TLS.
        :param finishing: what a page does in later turns of the reactor is done, too.
        """
        channel = self.site.buildProtocol(IPv4Address("TCP", peer, 40000))
        assert channel is not None
        kind = Secure if secure else StringTransport
        transport = kind(IPv4Address("TCP", "127.0.0.1", 7401), IPv4Address("TCP", peer, 40000))
        self.channel = channel
        channel.makeConnection(transport)
        channel.dataReceived(wire)
        for _ in range(200 if finishing else 0):
            self.clock.advance(0)
        return transport

    def exchange(self, wire: bytes, peer: str = "127.0.0.1", *, secure: bool = False) -> bytes:
        """What comes back; the client has gone then."""
        transport = self.connect(wire, peer, secure=secure)
        self.channel.connectionLost(Failure(ConnectionDone()))
        return transport.value()

    def ask(
        self, method: str, path: str, body: object = None, *, user: str | None = "ada:engine", peer: str = "127.0.0.1",
        headers: Mapping[str, str] | None = None, secure: bool = False,
    ) -> Answer:
        """One request; *body* is sent as JSON unless it is bytes."""
        lines = {"Host": "127.0.0.1:7401"}
        if user is not None:
            lines["Authorization"] = basic(user)
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        if method in ("PUT", "POST"):
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        lines |= headers or {}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return Answer(self.exchange(head.encode("latin-1") + b"\r\n" + content, peer, secure=secure), method)


def basic(user: str) -> str:
    """The ``Authorization`` header of ``name:password``."""
    return "Basic " + base64.b64encode(user.encode()).decode()
