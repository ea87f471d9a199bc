"""The pages, the sign-in and the forms, as one resource for all paths that are not the API's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from twisted.cred.error import LoginFailed
from twisted.web.server import Request

from cluster.errors import StoreUnavailable
from cluster.model import Admin
from director.admin.auth import Throttled
from director.admin.control import Control, Role
from director.admin.ui.acts import ACTS, read_form
from director.admin.ui.feed import Feed
from director.admin.ui.pages import Look, route_of
from director.admin.ui.templates import Templates
from director.admin.ui.visitors import SignInFirst, Visitor, Visitors, check_origin, check_token
from director.admin.web import STATUS, Page, is_read
from director.engine.errors import Forbidden, NotFound, Refused, away

#: Everything from here and nothing inline; ``same-origin`` instead of ``no-referrer``, with which browsers would not
#: say where a form comes from.
HEADERS: Mapping[str, str] = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
}
#: Where forms go.
POSTS = frozenset({"/sign-out", *(f"/do/{operation}" for operation in ACTS)})


class Ui(Page):
    """Everything for people."""

    def __init__(self, visitors: Visitors, control: Control, feed: Feed, templates: Templates, admin: Admin) -> None:
        super().__init__(visitors.gate)
        self._visitors = visitors
        self._control = control
        self._feed = feed
        self._templates = templates
        self._refresh_s = admin.refresh_s

    async def _serve(self, request: Request) -> bytes:
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        visitor = None
        try:
            path = "/".join(unquote(part, errors="strict") for part in request.path.decode("ascii").split("/"))
            if path == "/sign-in":
                return await self._sign_in(request)
            if is_read(request):
                route_of(path)  # what is not there needs no password
            elif path not in POSTS:
                raise NotFound(f"nothing can be sent to {path}")
            visitor = await self._visitors.visitor(request)
            if is_read(request):
                return await self._show(request, visitor, path)
            return await self._post(request, visitor, path)
        except SignInFirst:
            target = request.uri.decode("latin-1") if is_read(request) else "/"
            return _redirect(request, "/sign-in" + (f"?next={quote(target, safe='')}" if target != "/" else ""))
        except UnicodeDecodeError:
            return self._error(request, visitor, NotFound("there is no such page"))
        except tuple(STATUS) as error:
            return self._error(request, visitor, error)
        except Exception:
            self.log.failure("{method} {path} failed", method=request.method, path=request.path)
            request.setResponseCode(500)
            return self._page("error.html", visitor, error="an error of the director; its log tells more", status=500)

    # --- looking

    async def _show(self, request: Request, visitor: Visitor, path: str, **more: Any) -> bytes:
        """The page of *path*; *more* values tell of a form that was sent from it."""
        query = {name.decode("utf-8", "replace"): values[-1].decode("utf-8", "replace")
                 for name, values in (request.args or {}).items()}
        route, places = route_of(path)
        values = await route.show(Look(visitor.caller, self._control, self._feed.loads, query), **places)
        act = ACTS.get(query.get("done", ""))
        if act is not None:
            values["done"] = act.done
        if "refused" in values:
            values["error"], _ = _told(request, values["refused"])
        live = query.get("live", "on" if route.refresh else "off") == "on" and bool(values["live"])
        values |= {"path": path, "refreshing": live, "poll": route.poll}
        return self._page(route.template, visitor, **(values | more))

    def _page(self, template: str, visitor: Visitor | None, **values: Any) -> bytes:
        base: dict[str, Any] = {
            "caller": visitor.caller if visitor is not None else None,
            "may_change": visitor is not None and visitor.caller.role.allows(Role.FULL),
            "session": visitor is not None and bool(visitor.session),
            "csrf": visitor.csrf if visitor is not None else "", "refresh_s": self._refresh_s,
            "path": "", "live": (), "refreshing": False, "poll": False, "done": "", "error": "", "bare": False, "given": {},
            "failed": "",
        }
        return self._templates.render(template, base | values)

    def _error(self, request: Request, visitor: Visitor | None, error: Exception) -> bytes:
        message, status = _told(request, error)
        return self._page("error.html", visitor, error=message, status=status)

    # --- forms

    async def _post(self, request: Request, visitor: Visitor, path: str) -> bytes:
        form = read_form(request)
        check_origin(request)
        check_token(visitor, form.get("csrf", ""))
        if path == "/sign-out":
            self._visitors.sign_out(request)
            return _redirect(request, "/sign-in")
        operation = path.removeprefix("/do/")
        act = ACTS[operation]
        try:
            await self._control.call(visitor.caller, operation, act.arguments(form), text=True)
        except (Refused, StoreUnavailable) as error:
            if isinstance(error, Forbidden):
                raise
            return await self._refused(request, visitor, (act.form or act.page)(form), operation, form, error)
        return _redirect(request, f"{act.page(form)}?done={operation}")

    async def _refused(
        self, request: Request, visitor: Visitor, page: str, operation: str, form: Mapping[str, str], error: Exception
    ) -> bytes:
        """The page that the form is on, with what was filled in and why it was refused."""
        message, status = _told(request, error)
        try:
            return await self._show(request, visitor, unquote(page), error=message, given=form, failed=operation)
        except NotFound:
            return self._page("error.html", visitor, error=message, status=status)

    async def _sign_in(self, request: Request) -> bytes:
        query = (request.args or {}).get(b"next", [b""])[-1].decode("utf-8", "replace")
        if is_read(request):
            if self._visitors.gate.open:
                return _redirect(request, _local(query))
            return self._page("sign_in.html", None, next=_local(query), name="")
        form = read_form(request)
        check_origin(request)
        target = _local(form.get("next", ""))
        if self._visitors.gate.open:
            return _redirect(request, target)
        try:
            await self._visitors.sign_in(request, form.get("name", ""), form.get("password", ""))
        except LoginFailed as error:
            message, _ = _told(request, error)
            return self._page("sign_in.html", None, next=target, name=form.get("name", ""), error=message)
        return _redirect(request, target)


def _told(request: Request, error: Exception) -> tuple[str, int]:
    """What went wrong in a sentence, and its status, which is set."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    message = str(error)
    if isinstance(error, Throttled):
        request.setHeader("Retry-After", str(int(error.wait_s) + 1))
    elif isinstance(error, LoginFailed):
        status, message = 403, "wrong name or password"  # 401 would have browsers ask in a window of their own
    elif isinstance(error, StoreUnavailable):
        message = away(error)
    request.setResponseCode(status)
    return message, status


def _redirect(request: Request, where: str) -> bytes:
    request.setResponseCode(303)
    request.setHeader("Location", where)
    return b""


def _local(target: str) -> str:
    """*target* if it is a place of ours, else the first page; browsers take a backslash for a slash."""
    try:
        parts = urlsplit(target)
    except ValueError:  # a bracket that does not close, and the like
        return "/"
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and not (parts.scheme or parts.netloc)
    return target if plain and target.isprintable() and " " not in target else "/"
