"""The admin's endpoints, as services: http and https, several at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from cluster.address import Address, parse_address
from cluster.model import Admin, AdminEndpoint
from cluster.renewal import Renewed
from director.admin.auth import Foreign, InThread
from director.admin.control import Control
from director.admin.gate import Gate
from director.admin.htpasswd import Htpasswd
from director.admin.intake import AdminSite, Intake
from director.admin.pages import MetricsPage
from director.admin.rest import Api
from director.admin.running import RunningText
from director.admin.ui.assembly import make_ui
from director.admin.userbook import UserBook
from director.admin.xmlrpc import XmlRpc
from director.ports.binding import FileAccess
from director.ports.tls import server_options
from director.ports.twisted_ports import Ports

#: Of a UNIX endpoint's file: whoever may open it may do everything, where there are no users.
UNIX_MODE = 0o660

class Root(Resource):
    """``/``

    :param exact: resources of whole paths, before all others: what is not the operators' has its own authentication.
    :param rest: for all paths that nothing else has.
    """

    def __init__(self, exact: Mapping[bytes, Resource], rest: Resource) -> None:
        super().__init__()
        self._exact = exact
        self._rest = rest

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        return self._exact.get(request.path) or super().getChildWithDefault(path, request)

    def getChild(self, path: bytes, request: Request) -> IResource:
        return self._rest


def make_site(
    gate: Gate, control: Control, registry: CollectorRegistry, ui: Mapping[bytes, Resource], admin: Admin, *,
    reactor: Any, exact: Mapping[bytes, Resource],
) -> AdminSite:
    """Everything that is served, the same at every endpoint.

    :param ui: of `director.admin.ui.make_ui`.
    """
    root = Root(exact, ui[b""])
    root.putChild(b"api", Api(gate, control))
    root.putChild(b"RPC2", XmlRpc(gate, control, clock=reactor))
    root.putChild(b"running.txt", RunningText(gate, control))
    root.putChild(b"metrics", MetricsPage(gate, registry, clock=reactor))
    for path, resource in ui.items():
        root.putChild(path, resource)
    intake = Intake(admin.max_connections, admin.max_connections_per_address, registry, clock=reactor)
    return AdminSite(root, gate, intake, exact=exact, reactor=reactor)


class AdminListener(Service):
    """One endpoint.

    :ivar address: as configured, and as bound once it is.
    """

    log = Logger()

    def __init__(self, endpoint: AdminEndpoint, site: AdminSite, *, place: str, reactor: Any, what: str = "admin") -> None:
        self._what = what
        self.address: Address = parse_address(endpoint.listen, any_port=True)
        self.setName(place)  # addresses may repeat: any number of endpoints can take "a free port"
        self._reactor = reactor
        self._site = site
        self._factory: Any = site
        self._scheme = "http" if endpoint.tls is None else "https"
        self.certificates: list[Renewed[Any]] = []  #: that this endpoint needs
        if endpoint.tls is not None:
            options = server_options(endpoint.tls, place=f"{place}.tls")
            self.certificates = [options.files]
            self._factory = TLSMemoryBIOFactory(options, False, site)
        self._ports: Ports | None = None

    def startService(self) -> None:
        """Bind and serve. Raises `director.ports.binding.BindError`."""
        if self._ports is None:
            self._ports = Ports(self.address, self._factory, reactor=self._reactor, access=FileAccess(UNIX_MODE))
            self.address = self._ports.address
            self.log.info("{what} at {scheme}://{address}", what=self._what, scheme=self._scheme, address=str(self.address))
        super().startService()

    def stopService(self) -> Deferred[Any] | None:
        super().stopService()
        ports, self._ports = self._ports, None
        return ports.stopListening() if ports is not None else None

    def retire(self) -> None:
        """Another process listens here: what is asked already is answered still, and nothing else."""
        self._site.retire()


def admin_service(
    admin: Admin, users: UserBook, control: Control, registry: CollectorRegistry, *, in_thread: InThread,
    reactor: Any, credentials: Foreign | None = None, exact: Mapping[bytes, Resource] = MappingProxyType({}),
) -> MultiService:
    """All configured endpoints, one child each.

    :param in_thread: verifies passwords.
    :param exact: further resources, by their whole path.

    Starting it raises `director.ports.binding.BindError`.

    :raises cluster.errors.ConfigError: files of TLS that do not do.
    """
    gate = Gate(lambda: users.users, lambda: users.required, clock=reactor, in_thread=in_thread, credentials=credentials)
    ui, feed = make_ui(gate, control, admin, reactor=reactor)
    site = make_site(gate, control, registry, ui, admin, reactor=reactor, exact=exact)
    service = MultiService()
    service.setName("admin")
    if admin.htpasswd is not None:  # before the endpoints, so that whoever comes first finds it read
        Htpasswd(admin.htpasswd, admin.htpasswd_role, users, clock=reactor).setServiceParent(service)
    for number, endpoint in enumerate(admin.endpoints):
        listener = AdminListener(endpoint, site, place=f"node.admin.endpoints[{number}]", reactor=reactor)
        listener.setServiceParent(service)
    if admin.endpoints:
        feed.setServiceParent(service)
    return service
