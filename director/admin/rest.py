"""REST: the control interface as resources under ``/api/v1``. See ``docs/reference/rest.md``.

A table maps methods and paths to operations; everything else about an operation, its role, its parameters and their
checks, is the control interface's.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from twisted.web.server import Request

from director.admin import openapi
from director.admin.configuration import Changed
from director.admin.control import OPERATIONS, Caller, Control
from director.admin.gate import Gate
from director.admin.offers import Stored
from director.admin.text import Text
from director.admin.web import Page, is_read, only_read, refusal
from director.core.snapshot import DirectorPicture
from director.engine.errors import Invalid, NotFound, Stale
from director.timing.courtesy import politely


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
_DELETE = ("DELETE",)
_GROUP = "services/{service}/groups/{group}"
_HOST = f"{_GROUP}/hosts/{{host}}"

ROUTES = (
    Route(_READ, "status", "status"),
    Route(_READ, "totals", "totals"),
    Route(_READ, "cluster", "cluster"),
    Route(_READ, "history", "history"),
    Route(_READ, "vips", "vips"),
    Route(("POST",), "vips/rebalance", "rebalance_vips"),
    Route(("POST",), "vips/{address}/move", "move_vip"),
    Route(("PUT",), "vips/{address}/pin", "pin_vip"),
    Route(_DELETE, "vips/{address}/pin", "unpin_vip"),
    Route(_READ, "hosts", "hosts"),
    Route(_READ, "services", "services"),
    Route(_READ, "services/{service}", "service"),
    Route(_READ, "services/{service}/explain", "explain"),
    Route(_READ, "services/{service}/groups", "groups"),
    Route(_READ, _GROUP, "group"),
    Route(_READ, f"{_GROUP}/hosts", "hosts"),
    Route(_READ, _HOST, "host"),
    Route(_SET, f"{_HOST}/state", "order"),
    Route(_SET, f"{_HOST}/weight", "weight"),
    Route(("POST",), f"{_HOST}/approve", "approve"),
    Route(("POST",), f"{_HOST}/retry", "retry"),
    Route(_READ, "audit", "audit"),
    Route(_READ, "bad_hosts", "bad_hosts"),
    Route(_READ, "services/{service}/connections", "connections"),
    Route(_DELETE, "services/{service}/connections/{client}", "kill_connection"),
    Route(("POST",), "process/reopen_logs", "reopen_logs"),
    Route(("POST",), "process/reload", "reload"),
    Route(("POST",), "process/upgrade", "upgrade"),
    Route(("POST",), "process/shutdown", "shutdown"),
    Route(_READ, "users", "users"),
    Route(("PUT",), "users/{user}", "put_user"),
    Route(_DELETE, "users/{user}", "del_user"),
    Route(_READ, "configuration/running", "config_running"),
    Route(_READ, "configuration/boot", "config_boot"),
    Route(_READ, "services/{service}/spec", "spec"),
    Route(("PUT",), "services/{service}", "put_service"),
    Route(("POST",), "services/{service}", "new_service"),
    Route(_DELETE, "services/{service}", "del_service"),
    Route(_SET, "services/{service}/split", "split_service"),
    Route(("POST",), _GROUP, "new_group"),
    Route(_DELETE, _GROUP, "del_group"),
    Route(_SET, f"{_GROUP}/enable", "enable_group"),
    Route(_SET, f"{_GROUP}/scheduler", "change_scheduler"),
    Route(("PUT",), _HOST, "put_host"),
    Route(_DELETE, _HOST, "del_host"),
    Route(_DELETE, f"{_GROUP}/hosts", "del_all_hosts"),
)

#: As `Api` makes them; weak ones do not do for a change.
_ETAG = re.compile(r'"([0-9]{1,18})"')

_DECODER = msgspec.json.Decoder(dict[str, Any])


class Api(Page):
    """The resource ``/api``."""

    def __init__(self, gate: Gate, control: Control) -> None:
        super().__init__(gate)
        self._control = control

    async def answer(self, caller: Caller, request: Request) -> bytes:
        if request.postpath == [b"v1", b"openapi.json"]:
            return _document() if is_read(request) else only_read(request)
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
        condition = {} if reading else _condition(request)
        for name in given.keys() & (places.keys() | condition.keys()):
            raise Invalid("is given by the path or a header already", name)
        try:
            answer = await self._control.call(
                caller, route.operation, {**places, **given, **condition}, text=reading
            )
        except Stale as error:
            if condition:
                return refusal(request, 412, str(error))
            raise
        if isinstance(answer, Text):
            request.setHeader("Content-Type", f"{answer.media_type}; charset=utf-8")
            return answer.body.encode()
        if isinstance(answer, (Stored, Changed)):
            request.setHeader("ETag", f'"{answer.revision}"')
        return _encoded(answer)


def _encoded(answer: object) -> bytes:
    """As JSON, giving way between the members of a list: ten thousand hosts take a hundredth of a second."""
    if isinstance(answer, DirectorPicture):
        fields = {name: getattr(answer, name) for name in answer.__struct_fields__}
        return msgspec.json.encode(fields | {"services": msgspec.Raw(_encoded(answer.services))})
    if isinstance(answer, tuple):
        return b"[" + b",".join([msgspec.json.encode(each) for each in politely(answer)]) + b"]"
    return msgspec.json.encode(answer)


@functools.cache
def _document() -> bytes:
    return openapi.document(ROUTES, OPERATIONS)


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


def _condition(request: Request) -> Mapping[str, int]:
    """The revision that a change is made for, by RFC 9110: ``If-Match: "17"``, or ``If-None-Match: *`` for none."""
    match, none_match = request.getHeader("if-match"), request.getHeader("if-none-match")
    if match is None and none_match is None:
        return {}
    found = _ETAG.fullmatch(match or "")
    if none_match == "*" and match is None:
        return {"revision": 0}
    if found is None or none_match is not None:
        raise Invalid('expected If-Match: "REVISION", as an ETag gave it, or If-None-Match: *', "header")
    return {"revision": int(found[1])}


def _same_site(request: Request) -> None:
    """A page of another site can make a browser send a form with the operator's password, but not a body declared as
    JSON, nor a DELETE, nor hide where it came from."""
    kind = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json" and request.method != b"DELETE":
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
    except ValueError as error:  # of msgspec, or bytes that are no UTF-8
        raise Invalid(str(error), "body") from None
    except RecursionError:
        raise Invalid("is nested too deeply", "body") from None
