"""REST: the control interface as resources under ``/api/v1``. See ``docs/reference/rest.md``.

A table maps methods and paths to operations; everything else about an operation, its role, its parameters and their
checks, is the control interface's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from twisted.web.server import Request

from director.admin.control import Caller, Control
from director.admin.errors import Invalid, NotFound
from director.admin.gate import Gate
from director.admin.web import Page, refusal


class Route(NamedTuple):
    """One path, and the operation behind it."""

    methods: tuple[str, ...]
    path: str  #: ``{name}`` stands for a parameter
    operation: str

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """The parameters within *segments*; None when the path is another."""
        parts = self.path.split("/")
        if len(parts) != len(segments):
            return None
        found = {}
        for part, segment in zip(parts, segments, strict=True):
            if part.startswith("{") and segment:
                found[part[1:-1]] = segment
            elif part != segment:
                return None
        return found


_READ = ("GET", "HEAD")
_SET = ("PUT", "POST")
_HOST = "services/{service}/groups/{group}/hosts/{host}"

ROUTES = (
    Route(_READ, "status", "status"),
    Route(_READ, "hosts", "hosts"),
    Route(_READ, "services", "services"),
    Route(_READ, "services/{service}", "service"),
    Route(_READ, "services/{service}/explain", "explain"),
    Route(_READ, "services/{service}/groups", "groups"),
    Route(_READ, "services/{service}/groups/{group}", "group"),
    Route(_READ, "services/{service}/groups/{group}/hosts", "hosts"),
    Route(_READ, _HOST, "host"),
    Route(_SET, f"{_HOST}/state", "order"),
    Route(_SET, f"{_HOST}/weight", "weight"),
    Route(("POST",), f"{_HOST}/approve", "approve"),
    Route(("POST",), f"{_HOST}/retry", "retry"),
)

_DECODER = msgspec.json.Decoder(dict[str, Any])


class Api(Page):
    """The resource ``/api``."""

    def __init__(self, gate: Gate, control: Control) -> None:
        super().__init__(gate)
        self._control = control

    async def answer(self, caller: Caller, request: Request) -> bytes:
        method = request.method.decode("ascii", "replace")
        routes = list(_routes(request))
        if not routes:
            raise NotFound(f"nothing is at {request.path.decode('utf-8', 'replace')}")
        route, places = next(((route, places) for route, places in routes if method in route.methods), (None, {}))
        if route is None:
            allowed = sorted({each for route, _ in routes for each in route.methods})
            request.setHeader("Allow", ", ".join(allowed))
            return refusal(request, 405, f"{method} is not allowed here; {', '.join(allowed)} are")
        reading = method in _READ
        if not reading:
            _same_site(request)
        given = _query(request) if reading else _body(request)
        for name in given.keys() & places.keys():
            raise Invalid("is given by the path already", name)
        answer = await self._control.call(caller, route.operation, {**places, **given}, text=reading)
        return msgspec.json.encode(answer)


def _routes(request: Request) -> Iterator[tuple[Route, dict[str, str]]]:
    try:
        segments = tuple(segment.decode("utf-8") for segment in request.postpath or ())
    except UnicodeDecodeError:
        return
    if segments[:1] != ("v1",):
        return
    for route in ROUTES:
        places = route.match(segments[1:])
        if places is not None:
            yield route, places


def _same_site(request: Request) -> None:
    """A page of another site can make a browser send a form with the operator's password, but not a body declared as
    JSON, nor hide where it came from."""
    kind = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Invalid("changes are sent with Content-Type: application/json")
    if (request.getHeader("sec-fetch-site") or "none") not in ("none", "same-origin"):
        raise Invalid("changes are not taken from other sites")


def _query(request: Request) -> Mapping[str, str]:
    found = {}
    for key, values in (request.args or {}).items():
        name = key.decode("utf-8", "replace")
        if len(values) != 1:
            raise Invalid("is given more than once", name)
        found[name] = values[0].decode("utf-8", "replace")
    return found


def _body(request: Request) -> Mapping[str, Any]:
    """The JSON object of the body; none at all is an empty one."""
    if request.args:
        raise Invalid("a change takes its parameters in the body", next(iter(request.args)).decode("utf-8", "replace"))
    assert request.content is not None
    body = request.content.read()
    if not body.strip():
        return {}
    try:
        return _DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise Invalid(str(error), "body") from None
    except RecursionError:
        raise Invalid("is nested too deeply", "body") from None
