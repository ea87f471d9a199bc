"""The metrics on a port of their own, and whether new clients should come, for everybody who reaches it: nothing else is
there, nothing can be changed.

Strangers may ask, so it is bounded by itself and takes nothing from the admin: connections, scrapes under way, time and
bodies (`director.admin.intake`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import MultiService
from twisted.web.resource import Resource
from twisted.web.server import Request

from cluster.model import AdminEndpoint, MetricsPort
from director.admin.control import Caller, Role
from director.admin.intake import AdminSite, Intake
from director.admin.pages import MetricsPage
from director.admin.site import AdminListener
from director.admin.web import Page, is_read, only_read, refusal
from director.engine.errors import NotFound

#: A few Prometheus servers, each with a connection that it keeps, and people who look. More could be strangers, each of whom
#: leaves megabytes unread for a minute.
MAX_CONNECTIONS = 16
#: All of the servers may come by one proxy.
MAX_CONNECTIONS_PER_ADDRESS = 8
#: Scrapes that are being written at a time: of ten thousand hosts each is a second's work and some megabytes.
MAX_SCRAPES = 4
PATH = b"/metrics"
READY_PATH = b"/ready"


class OnlyMetrics:
    """Lets in whoever wants the metrics."""

    async def caller(self, request: Request) -> Caller:
        if request.path not in (PATH, READY_PATH):
            raise NotFound("only /metrics is served here, and /ready")
        return Caller("anybody", Role.READONLY)


class Readiness(Page):
    """Whether new clients should come.

    :param unready: empty, or why not.
    """

    def __init__(self, gate: OnlyMetrics, unready: Callable[[], str]) -> None:
        super().__init__(gate)
        self._unready = unready

    async def answer(self, caller: Caller, request: Request) -> bytes:
        if not is_read(request):
            return only_read(request)
        why = self._unready()
        request.setResponseCode(503 if why else 200)
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return f"{why or 'ready'}\n".encode()


class OpenMetrics(MetricsPage):
    """The metrics."""

    _under_way = 0

    async def answer(self, caller: Caller, request: Request) -> bytes:
        if self._under_way >= MAX_SCRAPES:
            request.setHeader("Retry-After", "1")
            return refusal(request, 503, f"{MAX_SCRAPES} scrapes are under way already")
        self._under_way += 1
        try:
            return await super().answer(caller, request)
        finally:
            self._under_way -= 1


class _Both(Resource):
    """Whose gate lets nobody to another page."""

    def __init__(self, metrics: Page, ready: Page) -> None:
        super().__init__()
        self._metrics, self._ready = metrics, ready

    def getChild(self, path: bytes, request: Request) -> Page:
        return self._ready if request.path == READY_PATH else self._metrics


def metrics_service(metrics: MetricsPort, registry: CollectorRegistry, *, reactor: Any,
                    ready: Callable[[], str] = lambda: "") -> MultiService:
    """The port as a child, if there shall be one.

    Starting it raises `director.ports.binding.BindError`.

    :raises cluster.errors.ConfigError: files of TLS that do not do.
    """
    service = MultiService()
    service.setName("metrics")
    if metrics.listen is not None:
        gate = OnlyMetrics()
        intake = Intake(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, registry, clock=reactor, port="metrics")
        pages = _Both(OpenMetrics(gate, registry, clock=reactor), Readiness(gate, ready))
        site = AdminSite(pages, gate, intake, exact=(), reactor=reactor)
        endpoint = AdminEndpoint(listen=metrics.listen, tls=metrics.tls)
        listener = AdminListener(endpoint, site, place="node.metrics", reactor=reactor, what="metrics")
        listener.setServiceParent(service)
    return service
