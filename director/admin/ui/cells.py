"""What pages show of the snapshot and keep current while they are open: texts by key. Pure.

A key is ``<subject>:<what>``. The subject is a host (``service/group/host``), a group, a service, or empty for the
director. A cell is the text to show, or a pair of a mark (which icon and colour) and the text. Templates print the
same cells that the stream sends, so that a page says one thing however it came by it.

A *scope* is what a page is about; it decides which cells are computed and sent, so that both cost what is looked at,
not what there is.

A cell ``…:shape`` stands for what a page can't follow cell by cell: when it differs, rows or facts came or went, and the
page has itself drawn again.
"""

from __future__ import annotations

import heapq
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from cluster.model import AdminState, HostState
from director.admin.ui import text
from director.core.snapshot import DirectorPicture, GroupPicture, HostPicture, ServicePicture, TotalsPicture, totals_of

Cell = str | tuple[str, str]

T = TypeVar("T")

#: Samples of a load line, and the seconds between them: the last four minutes.
LINE_SAMPLES = 48
LINE_STEP_S = 5.0
LINE_WIDTH, LINE_HEIGHT = 96, 24

ORDERED: Mapping[AdminState, str] = {AdminState.UP: "", AdminState.DRAIN: "draining", AdminState.DOWN: "ordered down"}

#: Hosts on one page of a group.
MAX_ROWS = 100
#: Services on one page of everything.
MAX_SERVICES = 40
#: What the scope of the page of bad hosts begins with; no service is called so.
BAD = ":bad"
#: Hosts of a group that pages of everything list; of a larger one, those out of use come first.
MAX_LISTED = 12


def listed(group: GroupPicture) -> tuple[HostPicture, ...]:
    """The hosts of a group that pages of everything list."""
    if len(group.hosts) <= MAX_LISTED:
        return group.hosts
    return tuple(sorted(group.hosts, key=lambda host: host.in_rotation)[:MAX_LISTED])


class Loads:
    """A short history of every host's load; forgets hosts that are gone."""

    def __init__(self) -> None:
        self._of: dict[str, deque[float]] = {}

    def sample(self, picture: DirectorPicture) -> None:
        of = self._of
        self._of = {}
        for host in hosts_of(picture):
            line = of.get(ref(host)) or deque(maxlen=LINE_SAMPLES)
            line.append(load(host) or 0.0)
            self._of[ref(host)] = line

    def line(self, host: HostPicture) -> str:
        """The points of an SVG polyline, the latest at the right. Utilisation is drawn to scale, connections up to
        their own peak. It begins and ends below the drawing, so that its fill is the area under the line."""
        values = self._of.get(ref(host), ())
        if len(values) < 2:
            return ""
        peak = 1.0 if utilisation(host) is not None else max(*values, 1.0)
        step = LINE_WIDTH / (LINE_SAMPLES - 1)
        left = LINE_WIDTH - step * (len(values) - 1)
        floor = LINE_HEIGHT + 2
        points = [
            f"{left + step * index:.0f},{(LINE_HEIGHT - 1) - (LINE_HEIGHT - 3) * min(value / peak, 1.0):.1f}"
            for index, value in enumerate(values)
        ]
        return " ".join((f"{left:.0f},{floor}", *points, f"{LINE_WIDTH + 2},{points[-1].split(',')[1]}",
                         f"{LINE_WIDTH + 2},{floor}"))


def utilisation(host: HostPicture) -> float | None:
    return host.report.utilisation if host.report is not None else None


def load(host: HostPicture) -> float | None:
    """What the agent reports, else the open connections."""
    reported = utilisation(host)
    return reported if reported is not None else float(host.in_flight)


def ref(host: HostPicture) -> str:
    return f"{host.service}/{host.group}/{host.name}"


def hosts_of(picture: DirectorPicture) -> Iterator[HostPicture]:
    return (host for service in picture.services for group in service.groups for host in group.hosts)


def totals(picture: DirectorPicture) -> dict[str, Cell]:
    """The cells of the director, of services and of groups."""
    found = service_cells(picture.services)
    return found | director_cells(picture, totals_of(picture.services)) | _shapes(picture, list(hosts_of(picture)))


def service_cells(services: Iterable[ServicePicture]) -> dict[str, Cell]:
    """With those of their groups."""
    found: dict[str, Cell] = {}
    for service in services:
        found |= _service(service)
        for group in service.groups:
            found |= group_cells(group)
    return found


def host_cells(hosts: Iterable[HostPicture], loads: Loads) -> dict[str, Cell]:
    found: dict[str, Cell] = {}
    for host in hosts:
        found |= _host(host, loads)
    return found


def shown(picture: DirectorPicture, scope: str) -> Sequence[HostPicture]:
    """The hosts on pages of *scope*: ``#page``, the listed ones of every group of a page of services; ``:bad#after``, a
    page of those that are out of use; ``service/group#page?find``, one page of a group, or of those of its hosts that
    `matching` finds; ``service/group/host``, that one. Of a service, none: its page is about groups."""
    name, _, rest = scope.partition("#")
    page, _, find = rest.partition("?")
    if not name:
        services = services_of(picture.services, text.page_number(page))
        return [host for service in services for group in service.groups for host in listed(group)]
    if name == BAD:
        out = (host for host in hosts_of(picture) if not host.in_rotation and _place(host) > _after(rest))
        return heapq.nsmallest(MAX_ROWS, out, key=_place)
    parts = name.split("/")
    for service in picture.services:
        for group in service.groups:
            if parts[:2] == [service.name, group.name]:
                if len(parts) == 2:
                    return page_of(matching(group, find), text.page_number(page))
                return [host for host in group.hosts if host.name == parts[2]]
    return ()


def matching(group: GroupPicture, find: str) -> Sequence[HostPicture]:
    """The hosts whose name or address has *find* in it, in any case; all of them when it is empty."""
    wanted = find.strip().lower()
    return [host for host in group.hosts if wanted in host.name.lower() or wanted in host.address.lower()]


def page_of(hosts: Sequence[HostPicture], page: int) -> Sequence[HostPicture]:
    """From 1."""
    return hosts[(page - 1) * MAX_ROWS : page * MAX_ROWS]


def services_of(services: Sequence[T], page: int) -> Sequence[T]:
    """Those on a page of all, from 1."""
    return services[(page - 1) * MAX_SERVICES : page * MAX_SERVICES]


def _place(host: HostPicture) -> tuple[str, ...]:
    return host.service, host.group, host.name


def _after(reference: str) -> tuple[str, ...]:
    return tuple(reference.split("/")) if reference else ()


def changed(before: Mapping[str, Cell], after: Mapping[str, Cell]) -> dict[str, Cell]:
    """The cells of *after* that differ; those that are gone show in the shape of what had them."""
    return {key: cell for key, cell in after.items() if before.get(key) != cell}


def within(found: Mapping[str, Cell], scope: str, picture: DirectorPicture) -> dict[str, Cell]:
    """Those of the *summary* of *picture* that pages of *scope* show: the director's always, and those of a page of
    services or of what is named."""
    name, _, page = scope.partition("#")
    if not name:
        names = {service.name for service in services_of(picture.services, text.page_number(page))} | {""}
        return {key: cell for key, cell in found.items() if key.partition(":")[0].partition("/")[0] in names}
    return {key: cell for key, cell in found.items() if key[0] == ":" or key.startswith((f"{name}:", f"{name}/"))}


def director_cells(picture: DirectorPicture, totals: TotalsPicture) -> dict[str, Cell]:
    """The director's own that pages print; *picture* may be without services."""
    modes = (picture.isolated, picture.grace, picture.store_available, picture.store_writable, picture.cold_start,
             picture.problems, picture.store_problems)
    together = (picture.leader, picture.leads, picture.vips_held, picture.vip_fence,
                [(each.name, each.connected) for each in picture.peers])
    return {
        ":in_rotation": f"{totals.in_rotation} / {totals.hosts}",
        ":connections": text.number(totals.connections, 0),
        ":queued": text.number(totals.queued, 0),
        ":failures": text.number(totals.connect_failures, 0),
        ":modes": _shape((modes, totals.notable)),
        ":cluster": _shape(together),
    }


def _shapes(picture: DirectorPicture, hosts: Sequence[HostPicture]) -> dict[str, Cell]:
    """The director's that pages of many services are drawn by."""
    return {
        ":shape": _shape(_members(service) for service in picture.services),
        ":bad": _shape((ref(host), host.state, host.admin, host.in_rotation, len(host.history), _last(host))
                       for host in hosts),
    }


def _service(service: ServicePicture) -> dict[str, Cell]:
    return {
        f"{service.name}:connections": text.count(service.connections, service.max_connections),
        f"{service.name}:queued": text.count(service.queued, service.queue),
        f"{service.name}:sticky": text.number(service.sticky_entries, 0),
        f"{service.name}:shape": _shape(_members(service)),
    }


def group_cells(group: GroupPicture) -> dict[str, Cell]:
    name = f"{group.service}/{group.name}"
    return {
        f"{name}:available": f"{group.available} / {len(group.hosts)}",
        f"{name}:in_flight": text.number(group.in_flight, 0),
        f"{name}:strayed": text.number(group.strayed, 0),
        f"{name}:shape": _shape(_facts(group)),
    }


def _host(host: HostPicture, loads: Loads) -> dict[str, Cell]:
    name = ref(host)
    orders = [(each.by, each.state.value, each.who, each.why, each.at) for each in host.orders]
    return {
        f"{name}:state": state(host),
        f"{name}:admin": (host.admin.value, ORDERED[host.admin]),
        f"{name}:why_not": host.why_not,
        f"{name}:weight": text.fixed(host.weight),
        f"{name}:share": text.share(host.share),
        f"{name}:load": text.percent(utilisation(host)),
        f"{name}:line": loads.line(host),
        f"{name}:in_flight": text.count(host.in_flight, host.max_connections),
        f"{name}:heard": text.heard(host.heartbeat_age_s),
        f"{name}:picks": text.number(host.picks, 0),
        f"{name}:failures": text.number(host.connect_failures, 0),
        f"{name}:shape": _shape((orders, len(host.history), _last(host), host.address, host.configured_weight,
                                 host.registered, host.discovered, host.check.at, host.check.ok, host.why, host.overruled,
                                 host.seen_by_others)),
    }


def state(host: HostPicture) -> tuple[str, str]:
    """What health says; a host in good health that takes no connections (a backup, a full one) is told apart."""
    if host.state is HostState.UP and host.admin is AdminState.UP and not host.in_rotation:
        return "idle", "up, unused"
    return host.state.value, host.state.value


def _last(host: HostPicture) -> float:
    return host.history[-1].at if host.history else host.since


def _facts(group: GroupPicture) -> tuple[object, ...]:
    return (group.name, group.enabled, group.share, group.strayed > 0, group.scheduler,
            group.failing_open, group.backups_in_use,
            len(group.hosts) > MAX_LISTED and [host.name for host in listed(group)],
            [each.name for each in group.waiting],
            [(host.name, host.address, host.backup, host.registered, host.discovered) for host in group.hosts])


def _members(service: ServicePicture) -> tuple[object, ...]:
    return service.name, service.listen, service.enabled, [_facts(group) for group in service.groups]


def _shape(facts: object) -> str:
    """A short digest; a collision would leave one page stale until it is loaded again."""
    listed = list(facts) if isinstance(facts, Iterable) else facts
    return f"{zlib.crc32(repr(listed).encode()):08x}"
