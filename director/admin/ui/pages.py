"""What each page shows: a coroutine from a look at the control interface to the values of a template."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from director.admin.control import Caller, Control
from director.admin.ui.cells import (
    MAX_LISTED,
    MAX_ROWS,
    Cell,
    Loads,
    host_cells,
    hosts_of,
    listed,
    matching,
    page_of,
    ref,
    shown,
    totals,
)
from director.admin.ui.text import page_number, value
from director.core.plan import ABSENT, plan
from director.core.schedulers.registry import SCHEDULERS
from director.core.snapshot import DirectorPicture, HostPicture
from director.engine.errors import Invalid, NotFound

#: Clients of a service on the page of connections, the oldest ones; and services whose clients are listed there.
MAX_CLIENTS = 50
MAX_SERVICES = 40
#: Characters of a configuration that are shown; the whole of it is the API's.
MAX_TEXT = 200_000
#: Rows of the pages of past events.
MAX_EVENTS = 200
#: Characters that a host is looked for by; no name is longer, nor any address but odd paths.
MAX_FIND = 100

Values = dict[str, Any]


class Look(NamedTuple):
    """One visitor's look.

    :ivar query: of the address."""

    caller: Caller
    control: Control
    loads: Loads
    query: Mapping[str, str]

    async def ask(self, operation: str, **arguments: object) -> Any:
        return await self.control.call(self.caller, operation, arguments, text=True)

    def cells(self, picture: DirectorPicture, hosts: Iterable[HostPicture]) -> Mapping[str, Cell]:
        """The summary, and what rows of these hosts show."""
        return totals(picture) | host_cells(hosts, self.loads)


class PageRoute(NamedTuple):
    """A page.

    :ivar path: ``{name}`` stands for a part that the function gets.
    :ivar template: shows its values.
    :ivar refresh: reloads by itself where there is no JavaScript; never a page with something to fill in.
    :ivar poll: shows what no cell tells: with JavaScript its parts are fetched at the refresh rate.
    """

    path: str
    template: str
    show: Callable[..., Awaitable[Values]]
    refresh: bool
    poll: bool

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        parts = self.path.split("/")
        if len(parts) != len(segments):
            return None
        places = {}
        for part, segment in zip(parts, segments, strict=True):
            if part.startswith("{") and segment:
                places[part[1:-1]] = segment
            elif part != segment:
                return None
        return places


PAGES: list[PageRoute] = []


def shared(picture: DirectorPicture) -> bool:
    """Whether other directors may have the same store."""
    return not picture.store.startswith(("memory:", "file:"))


def _page(
    path: str, template: str, *, refresh: bool = False, poll: bool = False
) -> Callable[[Callable[..., Awaitable[Values]]], Any]:
    def declare(show: Callable[..., Awaitable[Values]]) -> Any:
        PAGES.append(PageRoute(path, template, show, refresh, poll))
        return show

    return declare


def route_of(path: str) -> tuple[PageRoute, dict[str, str]]:
    """:raises NotFound: no page is there. *path* is decoded."""
    segments = tuple(path.removeprefix("/").split("/"))
    for route in PAGES:
        if (places := route.match(segments)) is not None:
            return route, places
    raise NotFound(f"there is no page {path}")


# Every page sets ``live``, the scope of its cells and the shapes that it must be drawn again for; and ``refused`` when
# it could not answer what was asked.


@_page("", "overview.html", refresh=True)
async def overview(look: Look) -> Values:
    picture = await look.ask("status")
    return {"picture": picture, "cells": look.cells(picture, shown(picture, "")), "listed": listed,
            "live": ("", ":shape", ":modes")}


@_page("services/{service}", "service.html")
async def service(look: Look, service: str) -> Values:
    found = await look.ask("service", service=service)
    picture = await look.ask("status")
    return {"picture": picture, "cells": look.cells(picture, ()), "service": found,
            "live": (service, f"{service}:shape", ":modes")}


@_page("services/{service}/groups/{group}", "group.html")
async def group(look: Look, service: str, group: str) -> Values:
    found = await look.ask("group", service=service, group=group)
    picture = await look.ask("status")
    find = look.query.get("find", "").strip()[:MAX_FIND]
    matches = matching(found, find)
    pages = max(1, -(-len(matches) // MAX_ROWS))
    page = min(page_number(look.query.get("page", "")), pages)
    name, hosts = f"{service}/{group}", page_of(matches, page)
    return {
        "picture": picture, "cells": look.cells(picture, hosts), "group": found, "page": page, "pages": pages,
        "shown": hosts, "find": find, "matches": len(matches), "many": len(found.hosts) > MAX_LISTED,
        "live": (f"{name}#{page}?{find}" if find else f"{name}#{page}", f"{name}:shape"),
        "schedulers": SCHEDULERS.values(),
    }


@_page("services/{service}/groups/{group}/hosts/{host}", "host.html")
async def host(look: Look, service: str, group: str, host: str) -> Values:
    found = await look.ask("host", service=service, group=group, host=host)
    picture = await look.ask("status")
    return {"picture": picture, "cells": look.cells(picture, [found]), "host": found,
            "history": [(event, found) for event in reversed(found.history)], "shared": shared(picture),
            "live": (ref(found), f"{ref(found)}:shape")}


@_page("bad-hosts", "bad_hosts.html", refresh=True)
async def bad_hosts(look: Look) -> Values:
    """Hosts that are out now, and when any was."""
    picture = await look.ask("status")
    hosts = list(hosts_of(picture))
    bad = [host for host in hosts if not host.in_rotation]
    rows = bad[:MAX_ROWS]
    past = sorted(((event, host) for host in hosts for event in host.history), key=lambda pair: -pair[0].at)
    return {
        "picture": picture, "cells": look.cells(picture, rows), "bad": rows, "more": max(0, len(bad) - MAX_ROWS),
        "events": past[:MAX_EVENTS], "live": ("", ":bad"),
    }


@_page("connections", "connections.html", refresh=True, poll=True)
async def connections(look: Look) -> Values:
    """The oldest clients of every service, and what each host was given."""
    picture = await look.ask("status")
    clients = {service.name: await look.ask("connections", service=service.name, limit=str(MAX_CLIENTS))
               for service in picture.services[:MAX_SERVICES]}
    return {"picture": picture, "cells": look.cells(picture, shown(picture, "")), "listed": listed, "clients": clients,
            "live": ("", ":shape")}


@_page("cluster", "cluster.html", poll=True)
async def cluster(look: Look) -> Values:
    """This director, and the others that share its store."""
    picture = await look.ask("status")
    found = await look.ask("cluster")
    return {"picture": picture, "cluster": found, "shared": shared(picture),
            "live": ("", ":cluster", ":modes")}


@_page("history", "history.html")
async def history(look: Look) -> Values:
    """What the store remembers of everything."""
    return {"past": await look.ask("history", limit=str(MAX_EVENTS)), "about": None, "live": ()}


@_page("services/{service}/groups/{group}/hosts/{host}/history", "history.html")
async def host_history(look: Look, service: str, group: str, host: str) -> Values:
    """What the store remembers of one host."""
    names = {"service": service, "group": group, "host": host}
    return {"past": await look.ask("history", limit=str(MAX_EVENTS), **names), "about": names, "live": ()}


@_page("audit", "audit.html", refresh=True, poll=True)
async def audit(look: Look) -> Values:
    """Who changed what."""
    picture = await look.ask("status")
    return {"picture": picture, "entries": await look.ask("audit", limit=str(MAX_EVENTS)), "live": ("", ":modes")}


@_page("users", "users.html")
async def users(look: Look) -> Values:
    """Who may call."""
    return {"users": await look.ask("users"), "live": ()}


@_page("explain", "explain.html")
async def explain(look: Look) -> Values:
    client, service = (look.query.get(name, "").strip() for name in ("client", "service"))
    values: Values = {"services": await look.ask("services"), "client": client, "service": service, "answer": None,
                      "factors": [], "live": ()}
    if client and service:
        try:
            answer = values["answer"] = await look.ask("explain", client=client, service=service)
            values["factors"] = sorted({name for each in answer.candidates for name in each.factors})
        except (Invalid, NotFound) as error:
            values["refused"] = error
    return values


@_page("configuration", "configuration.html")
async def configuration(look: Look) -> Values:
    """What the store has, what the node's own file says, and where they differ."""
    running = await look.ask("config_running")
    boot = await look.ask("config_boot")
    steps = plan(boot.services, {name: stored.spec for name, stored in running.items()})
    differences = [(step.place(change), *(None if each is ABSENT else value(each) for each in (change.before, change.after)))
                   for step in steps for change in step.changes]
    texts = [(await look.ask(operation, format="toml")).body for operation in ("config_running", "config_boot")]
    return {"running": running, "differences": differences[:MAX_ROWS], "more": max(0, len(differences) - MAX_ROWS),
            "texts": [text[:MAX_TEXT] for text in texts], "cut": max(map(len, texts)) > MAX_TEXT, "live": ("", ":shape")}
