"""Operations that look: pictures of services, groups and hosts, and explanations."""

from __future__ import annotations

import heapq
import ipaddress
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from cluster.model import HostName, HostRef, Name
from director.admin.offers import Operations
from director.admin.operation import Caller, Nothing, OfGroup, OfHost, OfService, Parameters, Role, operation
from director.core.snapshot import DirectorPicture, Explanation, GroupPicture, HostPicture, ServicePicture, TotalsPicture
from director.engine.errors import Invalid, NotFound

#: Hosts on one page: some ten milliseconds of the director's time.
MAX_PAGE = 1000
#: Services on one page, each with all its hosts.
MAX_SERVICES_PAGE = 100
#: No service is called so: its snapshot is the director alone.
NO_SERVICE = ""
#: A host's reference; names are far shorter.
MAX_REF = 300


class Hosts(Parameters, frozen=True, kw_only=True):
    service: Name | None = None
    group: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] | None = None
    after: Annotated[str, Meta(max_length=MAX_REF)] | None = None  #: ``service/group/host``, the last of the page before


class Status(Parameters, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=0, le=MAX_SERVICES_PAGE)] | None = None  #: of services; 0: the director alone
    after: Annotated[str, Meta(max_length=MAX_REF)] | None = None  #: the last service of the page before


class Services(Parameters, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=MAX_SERVICES_PAGE)] | None = None
    after: Annotated[str, Meta(max_length=MAX_REF)] | None = None  #: the last service of the page before


class Explain(OfService, frozen=True, kw_only=True):
    client: Annotated[str, Meta(max_length=45)]  #: the longest spelling of an IPv6 address
    server_name: HostName | None = None  #: that the client asks for, where services share a listener


@operation(Role.READONLY, Status)
def status(director: Operations, caller: Caller, p: Status) -> DirectorPicture:
    """Everything: the director, its services, groups and hosts; or a page of the services by name with a limit."""
    if p.limit is None and p.after is None:
        return director.picture()
    return replace(director.picture(NO_SERVICE), services=_page(director, p.limit, p.after))


@operation(Role.READONLY, Services)
def services(director: Operations, caller: Caller, p: Services) -> tuple[ServicePicture, ...]:
    """All services; a page of them by name with a limit."""
    if p.limit is None and p.after is None:
        return director.picture().services
    return _page(director, p.limit, p.after)


@operation(Role.READONLY, Nothing)
def totals(director: Operations, caller: Caller, _: Nothing) -> TotalsPicture:
    """The names of all services, their sums, and the groups that somebody should look at."""
    return director.totals()


def _page(director: Operations, limit: int | None, after: str | None) -> tuple[ServicePicture, ...]:
    beyond = sorted(name for name in director.totals().services if after is None or name > after)
    return tuple(each for name in beyond[:limit] for each in director.picture(name).services)


@operation(Role.READONLY, OfService)
def service(director: Operations, caller: Caller, p: OfService) -> ServicePicture:
    """One service with its groups and hosts."""
    return find_service(director, p.service)


@operation(Role.READONLY, OfService)
def groups(director: Operations, caller: Caller, p: OfService) -> tuple[GroupPicture, ...]:
    """The groups of a service."""
    return find_service(director, p.service).groups


@operation(Role.READONLY, OfGroup)
def group(director: Operations, caller: Caller, p: OfGroup) -> GroupPicture:
    """One group with its hosts."""
    return find_group(director, p.service, p.group)


@operation(Role.READONLY, Hosts)
def hosts(director: Operations, caller: Caller, p: Hosts) -> tuple[HostPicture, ...]:
    """All hosts; those of a service or of one of its groups when asked; a page of them by name with a limit."""
    if p.group is not None and p.service is None:
        raise Invalid("a group is named within its service; give the service too", "group")
    if p.service is not None and p.group is not None:
        find_group(director, p.service, p.group)
    elif p.service is not None:
        find_service(director, p.service)
    if p.limit is None and p.after is None:
        return _all_hosts(director.picture(p.service, p.group))
    after = place(p.after)
    beyond = (ref for ref in director.refs() if ref > after and p.service in (None, ref.service)
              and p.group in (None, ref.group))
    return pictured(director, sorted(beyond) if p.limit is None else heapq.nsmallest(p.limit, beyond))


@operation(Role.READONLY, OfHost)
def host(director: Operations, caller: Caller, p: OfHost) -> HostPicture:
    """One host with its orders, its last check and its history."""
    return find_host(director, p.ref)


@operation(Role.READONLY, Explain)
def explain(director: Operations, caller: Caller, p: Explain) -> Explanation:
    """Which host a client would get from a service now, and why."""
    try:
        client = ipaddress.ip_address(p.client)
    except ValueError:
        raise Invalid(f"{p.client!r} is not an IP address", "client") from None
    return director.explain(p.service, str(client), p.server_name)


# --- finding, or NotFound -----------------------------------------------------------------------------------


def find_service(director: Operations, name: str, group: str | None = None, host: str | None = None) -> ServicePicture:
    """With all its groups and hosts, or those named."""
    for each in director.picture(name, group, host).services:
        if each.name == name:
            return each
    raise NotFound(f"no service is called {name!r}")


def find_group(director: Operations, service: str, name: str, host: str | None = None) -> GroupPicture:
    for each in find_service(director, service, name, host).groups:
        if each.name == name:
            return each
    raise NotFound(f"no group is called {name!r} in service {service!r}")


def find_host(director: Operations, ref: HostRef) -> HostPicture:
    for each in find_group(director, *ref).hosts:
        if each.name == ref.host:
            return each
    raise NotFound(f"no host is called {ref.host!r} in {ref.service}/{ref.group}")


def pictured(director: Operations, refs: Sequence[HostRef]) -> tuple[HostPicture, ...]:
    """Of hosts that there are; neighbours by their group stand together in *refs*."""
    found: list[HostPicture] = []
    for (service, group), each in groupby(refs, lambda ref: (ref.service, ref.group)):
        wanted = [ref.host for ref in each]
        picture = director.picture(service, group, wanted[0] if len(wanted) == 1 else None)
        by_name = {one.name: one for one in _all_hosts(picture)}
        found += [by_name[name] for name in wanted]
    return tuple(found)


def _all_hosts(picture: DirectorPicture) -> tuple[HostPicture, ...]:
    return tuple(host for service in picture.services for group in service.groups for host in group.hosts)


def place(text: str | None) -> HostRef | tuple[()]:
    """That every host's reference is compared with, to be behind it."""
    if text is None:
        return ()
    try:
        return HostRef.parse(text)
    except ValueError as error:
        raise Invalid(str(error), "after") from None
