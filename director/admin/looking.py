"""Operations that look: pictures of services, groups and hosts, and explanations."""

from __future__ import annotations

import heapq
import ipaddress
from itertools import groupby
from typing import Annotated

from msgspec import Meta

from cluster.model import HostRef, Name
from director.admin.offers import Operations
from director.admin.operation import Caller, Nothing, OfGroup, OfHost, OfService, Parameters, Role, operation
from director.core.snapshot import DirectorPicture, Explanation, GroupPicture, HostPicture, ServicePicture
from director.engine.errors import Invalid, NotFound

#: Hosts on one page: some ten milliseconds of the director's time.
MAX_PAGE = 1000
#: A host's reference; names are far shorter.
MAX_REF = 300


class Hosts(Parameters, frozen=True, kw_only=True):
    service: Name | None = None
    group: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] | None = None
    after: Annotated[str, Meta(max_length=MAX_REF)] | None = None  #: ``service/group/host``, the last of the page before


class Explain(OfService, frozen=True, kw_only=True):
    client: Annotated[str, Meta(max_length=45)]  #: the longest spelling of an IPv6 address


@operation(Role.READONLY, Nothing)
def status(director: Operations, caller: Caller, _: Nothing) -> DirectorPicture:
    """Everything: the director, its services, groups and hosts."""
    return director.picture()


@operation(Role.READONLY, Nothing)
def services(director: Operations, caller: Caller, _: Nothing) -> tuple[ServicePicture, ...]:
    """All services."""
    return director.picture().services


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
    after = _place(p.after) if p.after is not None else ()
    beyond = (ref for ref in director.refs() if ref > after and p.service in (None, ref.service)
              and p.group in (None, ref.group))
    refs = sorted(beyond) if p.limit is None else heapq.nsmallest(p.limit, beyond)
    found: list[HostPicture] = []
    for (service, group), wanted in groupby(refs, lambda ref: (ref.service, ref.group)):
        by_name = {each.name: each for each in _all_hosts(director.picture(service, group))}
        found += [by_name[ref.host] for ref in wanted]
    return tuple(found)


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
    return director.explain(p.service, str(client))


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


def _all_hosts(picture: DirectorPicture) -> tuple[HostPicture, ...]:
    return tuple(host for service in picture.services for group in service.groups for host in group.hosts)


def _place(text: str) -> HostRef:
    try:
        return HostRef.parse(text)
    except ValueError as error:
        raise Invalid(str(error), "after") from None
