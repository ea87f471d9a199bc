"""Looks at the director once for all viewers, remembers load lines, and streams what changed.

Server-sent events (WHATWG HTML, section 9.2): each event is a JSON object of cells (`director.admin.ui.cells`), first
all of the viewer's scope, then those that changed. A viewer that reads too slowly is skipped, and sent everything once
it has caught up: no more than one set of cells waits in memory for anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from director.admin.control import Caller, Control, Role
from director.admin.ui.cells import LINE_STEP_S, Cell, Loads, changed, host_cells, shown, totals, within
from director.admin.ui.visitors import SignInFirst, Visitors
from director.admin.web import dress, is_read, only_read
from director.core.snapshot import DirectorPicture
from director.engine.errors import Forbidden

#: Between looks while somebody watches.
LOOK_S = 1.0
#: Looking takes at most this share of the director's time, however many hosts there are.
MAX_SHARE = 0.01
#: Pages that may be open and live at once; further ones reload themselves instead.
MAX_VIEWERS = 100
#: Of one browser: it has six connections for one server, and the seventh page would never load. Further pages reload
#: themselves too.
MAX_OF_BROWSER = 3
#: Something is sent at least this often, so that viewers that vanished are noticed.
PING_S = 15.0
EVENT_STREAM = "text/event-stream"
#: Browsers come back after this long when the stream breaks.
RETRY_MS = 3000
#: Characters of a scope that the log has: the longest honest one and to spare.
MAX_LOGGED = 250

#: In whose name we look; looking leaves no audit.
_SELF = Caller("web interface", Role.READONLY)


@implementer(IPushProducer)
class Viewer:
    """One open page.

    :param scope: whose cells it shows; see `shown` and `within`.
    :param browser: who has it open; see `Feed.full`.
    :param still: whether its session is still good.
    """

    def __init__(self, request: Request, scope: str, browser: str, still: Callable[[], bool]) -> None:
        self.scope = scope
        self.browser = browser
        self.still = still
        self.behind = True  #: has not seen everything
        self.sent_at = 0.0
        self._request = request
        self._paused = False
        request.setHeader("Content-Type", EVENT_STREAM)
        request.registerProducer(self, True)
        request.write(f"retry: {RETRY_MS}\n\n".encode())

    def send(self, everything: Mapping[str, Cell], news: Mapping[str, Cell], now: float) -> None:
        """What this viewer has not seen of its scope, if it reads."""
        if self._paused:
            self.behind = True
            return
        mine = everything if self.behind else news
        self.behind = False
        if mine:
            self._write(b"data: " + msgspec.json.encode(mine), now)
        elif now - self.sent_at >= PING_S:
            self._write(b":", now)

    def _write(self, line: bytes, now: float) -> None:
        self.sent_at = now
        self._request.write(line + b"\n\n")

    def end(self) -> None:
        self._request.unregisterProducer()
        self._request.finish()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False

    def stopProducing(self) -> None:
        self._paused = True


class Feed(Service):
    """The looking, and who watches."""

    log = Logger()

    def __init__(self, control: Control, *, reactor: Any) -> None:
        self.loads = Loads()
        self._control = control
        self._reactor = reactor
        self._viewers: set[Viewer] = set()
        self._cells: dict[str, Mapping[str, Cell]] = {}  #: as last sent, by scope
        self._call: Any = None
        self._sampled_at = float("-inf")

    def full(self, browser: str) -> bool:
        """Whether *browser*, a session or, where there is none, an address, can have no further stream."""
        theirs = sum(viewer.browser == browser for viewer in self._viewers)
        return len(self._viewers) >= MAX_VIEWERS or theirs >= MAX_OF_BROWSER

    def startService(self) -> None:
        super().startService()
        self._again(0.0)

    def stopService(self) -> None:
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        for viewer in list(self._viewers):
            self._drop(viewer)

    def watch(self, request: Request, scope: str, browser: str, still: Callable[[], bool]) -> None:
        """Stream to *request* until it leaves, its session ends, or we do."""
        viewer = Viewer(request, scope, browser, still)
        self._viewers.add(viewer)
        request.notifyFinish().addErrback(lambda _: self._viewers.discard(viewer))
        if self._call is not None:
            self._again(0.0)

    def _again(self, after_s: float) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self._reactor.callLater(after_s, self._look)

    def _look(self) -> None:
        began = self._reactor.seconds()

        def rest(_: object) -> None:
            if self.running:
                took_s = self._reactor.seconds() - began
                self._again(max(LOOK_S if self._viewers else LINE_STEP_S, took_s / MAX_SHARE))

        looking: Deferred[DirectorPicture] = self._control.call(_SELF, "status", {})
        looking.addCallback(self._seen, began).addErrback(
            lambda failure: self.log.failure("could not look at the director for its pages", failure)
        ).addBoth(rest)

    def _seen(self, picture: DirectorPicture, now: float) -> None:
        if now - self._sampled_at >= LINE_STEP_S * 0.9:  # timers come late, never early: a whole step would slip
            self._sampled_at = now
            self.loads.sample(picture)
        if not self._viewers:
            return
        before, overall = self._cells, totals(picture)
        news: dict[str, Mapping[str, Cell]] = {}
        self._cells = {}
        for viewer in list(self._viewers):
            try:
                if not viewer.still():
                    self._drop(viewer)
                    continue
                scope = viewer.scope
                if scope not in self._cells:
                    self._cells[scope] = within(overall, scope, picture) | host_cells(shown(picture, scope), self.loads)
                    news[scope] = changed(before.get(scope, {}), self._cells[scope])
                viewer.send(self._cells[scope], news[scope], now)
            except Exception:  # one viewer's is no other's
                self.log.failure("a page cannot be kept current: {scope}", scope=viewer.scope[:MAX_LOGGED])
                self._drop(viewer)

    def _drop(self, viewer: Viewer) -> None:
        self._viewers.discard(viewer)
        viewer.end()


class Events(Resource):
    """``/events?scope=…``, for pages that are open."""

    isLeaf = True

    def __init__(self, visitors: Visitors, feed: Feed) -> None:
        super().__init__()
        self._visitors = visitors
        self._feed = feed

    def render(self, request: Request) -> int | bytes:
        dress(request)
        if not is_read(request):
            return only_read(request)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        Deferred.fromCoroutine(self._begin(request, gone)).addErrback(
            lambda failure: self._feed.log.failure("a stream of events could not begin", failure)
        )
        return NOT_DONE_YET

    async def _begin(self, request: Request, gone: list[object]) -> None:
        scope = (request.args or {}).get(b"scope", [b""])[-1].decode("utf-8", "replace")
        try:
            visitor = await self._visitors.visitor(request)
        except (SignInFirst, Forbidden):
            request.setResponseCode(403)
        else:
            browser = visitor.session or visitor.caller.origin
            if self._feed.full(browser):
                request.setResponseCode(503)
            elif request.method == b"HEAD":
                request.setHeader("Content-Type", EVENT_STREAM)
            else:
                if not gone:
                    self._feed.watch(request, scope, browser, lambda: self._visitors.still(visitor))
                return
        if not gone:
            request.finish()
