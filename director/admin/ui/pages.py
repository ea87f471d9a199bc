"""What each page shows: a coroutine from a look at the control interface to the values of a template."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from director.admin.control import Caller, Control
from director.admin.ui.cells import (
    BAD,
    MAX_LISTED,
    MAX_ROWS,
    MAX_SERVICES,
    Cell,
    Loads,
    director_cells,
    group_cells,
    host_cells,
    listed,
    matching,
    page_of,
    ref,
    service_cells,
    services_of,
    shown,
)
from director.admin.ui.text import page_number, value
from director.core.plan import ABSENT, plan
from director.core.schedulers.registry import SCHEDULERS
from director.core.snapshot import DirectorPicture, HostPicture, ServicePicture, TotalsPicture
from director.engine.errors import Invalid, NotFound

#: Clients of a service on the page of connections, the oldest ones.
MAX_CLIENTS = 50
#: Characters of a configuration that are shown; the whole of it is the API's.
MAX_TEXT = 200_000
#: Rows of the pages of past events.
MAX_EVENTS = 200
#: Characters that a host is looked for by; no name is longer, nor any address but odd paths.
MAX_FIND = 100

Values = dict[str, Any]


class Of(NamedTuple):
    """Whom an event is of, as a template names it."""

    service: str
    group: str
    name: str


class Look(NamedTuple):
    """One visitor's look.

    :ivar query: of the address."""

    caller: Caller
    control: Control
    loads: Loads
    query: Mapping[str, str]

    async def ask(self, operation: str, **arguments: object) -> Any:
        return await self.control.call(self.caller, operation, arguments, text=True)

    async def director(self) -> DirectorPicture:
        """Without its services: ten thousand hosts are not looked at for a page that shows none of them."""
        picture: DirectorPicture = await self.ask("status", limit="0")
        return picture

    async def services(self) -> tuple[DirectorPicture, TotalsPicture, Values]:
        """The director with those services that the page asked for shows, the totals of all, and which page it is."""
        totals: TotalsPicture = await self.ask("totals")
        pages = max(1, -(-len(totals.services) // MAX_SERVICES))
        page = min(page_number(self.query.get("page", "")), pages)
        found = [await self.ask("service", service=name) for name in services_of(totals.services, page)]
        picture = replace(await self.director(), services=tuple(found))
        return picture, totals, {"page": page, "pages": pages, "scope": f"#{page}"}

    def cells(self, hosts: Iterable[HostPicture] = (), *services: ServicePicture) -> dict[str, Cell]:
        """What rows of these hosts and services show."""
        return service_cells(services) | host_cells(hosts, self.loads)


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
    """Services with their hosts."""
    picture, totals, which = await look.services()
    cells = director_cells(picture, totals) | look.cells(shown(picture, ""), *picture.services)
    return {"picture": picture, "notable": totals.notable, "cells": cells, "listed": listed,
            "live": (which["scope"], ":shape", ":modes"), **which}


@_page("services/{service}", "service.html")
async def service(look: Look, service: str) -> Values:
    found = await look.ask("service", service=service)
    return {"cells": look.cells((), found), "service": found,
            "live": (service, f"{service}:shape", ":modes")}


@_page("services/{service}/groups/{group}", "group.html")
async def group(look: Look, service: str, group: str) -> Values:
    found = await look.ask("group", service=service, group=group)
    picture = await look.director()
    find = look.query.get("find", "").strip()[:MAX_FIND]
    matches = matching(found, find)
    pages = max(1, -(-len(matches) // MAX_ROWS))
    page = min(page_number(look.query.get("page", "")), pages)
    name, hosts = f"{service}/{group}", page_of(matches, page)
    return {
        "picture": picture, "cells": group_cells(found) | look.cells(hosts), "group": found, "page": page, "pages": pages,
        "shown": hosts, "find": find, "matches": len(matches), "many": len(found.hosts) > MAX_LISTED,
        "live": (f"{name}#{page}?{find}" if find else f"{name}#{page}", f"{name}:shape"),
        "schedulers": SCHEDULERS.values(),
    }


@_page("services/{service}/groups/{group}/hosts/{host}", "host.html")
async def host(look: Look, service: str, group: str, host: str) -> Values:
    found = await look.ask("host", service=service, group=group, host=host)
    picture = await look.director()
    return {"picture": picture, "cells": look.cells([found]), "host": found,
            "history": [(event, found) for event in reversed(found.history)], "shared": shared(picture),
            "live": (ref(found), f"{ref(found)}:shape")}


@_page("bad-hosts", "bad_hosts.html", refresh=True)
async def bad_hosts(look: Look) -> Values:
    """Hosts that are out now, and when any was."""
    after = look.query.get("after", "")
    found = await look.ask("bad_hosts", unused="true", limit=str(MAX_ROWS), **({"after": after} if after else {}))
    rows = found.current
    return {
        "cells": look.cells(rows), "bad": rows, "total": found.total, "after": after,
        "next": ref(rows[-1]) if len(rows) == MAX_ROWS else "",
        "events": [(each.transition, Of(each.service, each.group, each.host)) for each in found.historic[:MAX_EVENTS]],
        "live": (f"{BAD}#{after}", ":bad"),
    }


@_page("connections", "connections.html", refresh=True, poll=True)
async def connections(look: Look) -> Values:
    """The oldest clients of every service, and what each host was given."""
    picture, totals, which = await look.services()
    clients = {service.name: await look.ask("connections", service=service.name, limit=str(MAX_CLIENTS))
               for service in picture.services}
    cells = director_cells(picture, totals) | look.cells(shown(picture, ""), *picture.services)
    return {"picture": picture, "cells": cells, "listed": listed, "clients": clients, "live": (which["scope"], ":shape"),
            **which}


@_page("cluster", "cluster.html", poll=True)
async def cluster(look: Look) -> Values:
    """This director, and the others that share its store."""
    picture, totals = await look.director(), await look.ask("totals")
    found = await look.ask("cluster")
    return {"picture": picture, "notable": totals.notable, "cluster": found, "shared": shared(picture),
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
    picture = await look.director()
    return {"picture": picture, "entries": await look.ask("audit", limit=str(MAX_EVENTS)), "live": ("", ":modes")}


@_page("users", "users.html")
async def users(look: Look) -> Values:
    """Who may call."""
    return {"users": await look.ask("users"), "live": ()}


@_page("explain", "explain.html")
async def explain(look: Look) -> Values:
    client, service = (look.query.get(name, "").strip() for name in ("client", "service"))
    values: Values = {"services": (await look.ask("totals")).services, "client": client, "service": service, "answer": None,
                      "live": ()}
    if client and service:
        try:
            values["answer"] = await look.ask("explain", client=client, service=service)
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
