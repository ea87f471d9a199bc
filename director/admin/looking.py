"""Operations that look: pictures of services, groups and hosts, and explanations."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from msgspec import Meta

from cluster.model import HostRef, Name
from director.admin.offers import Operations
from director.admin.operation import Caller, Nothing, OfGroup, OfHost, OfService, Parameters, Role, operation
from director.core.snapshot import DirectorPicture, Explanation, GroupPicture, HostPicture, ServicePicture
from director.engine.errors import Invalid, NotFound


class Hosts(Parameters, frozen=True, kw_only=True):
    service: Name | None = None
    group: Name | None = None


class Explain(OfService, frozen=True, kw_only=True):
    client: Annotated[str, Meta(max_length=45)]  #: the longest spelling of an IPv6 address


@operation(Role.READONLY, Nothing)
def status(director: Operations, caller: Caller, _: Nothing) -> DirectorPicture:
    """Everything: the director, its services, groups and hosts."""
    return director.snapshot()


@operation(Role.READONLY, Nothing)
def services(director: Operations, caller: Caller, _: Nothing) -> tuple[ServicePicture, ...]:
    """All services."""
    return director.snapshot().services


@operation(Role.READONLY, OfService)
def service(director: Operations, caller: Caller, p: OfService) -> ServicePicture:
    """One service with its groups and hosts."""
    return find_service(director.snapshot(), p.service)


@operation(Role.READONLY, OfService)
def groups(director: Operations, caller: Caller, p: OfService) -> tuple[GroupPicture, ...]:
    """The groups of a service."""
    return find_service(director.snapshot(), p.service).groups


@operation(Role.READONLY, OfGroup)
def group(director: Operations, caller: Caller, p: OfGroup) -> GroupPicture:
    """One group with its hosts."""
    return find_group(director.snapshot(), p.service, p.group)


@operation(Role.READONLY, Hosts)
def hosts(director: Operations, caller: Caller, p: Hosts) -> tuple[HostPicture, ...]:
    """All hosts; those of a service or of one of its groups when asked."""
    picture = director.snapshot()
    if p.service is None:
        if p.group is not None:
            raise Invalid("a group is named within its service; give the service too", "group")
        found = [each for one in picture.services for each in one.groups]
    elif p.group is None:
        found = list(find_service(picture, p.service).groups)
    else:
        found = [find_group(picture, p.service, p.group)]
    return tuple(each for one in found for each in one.hosts)


@operation(Role.READONLY, OfHost)
def host(director: Operations, caller: Caller, p: OfHost) -> HostPicture:
    """One host with its orders, its last check and its history."""
    return find_host(director.snapshot(), p.ref)


@operation(Role.READONLY, Explain)
def explain(director: Operations, caller: Caller, p: Explain) -> Explanation:
    """Which host a client would get from a service now, and why."""
    try:
        client = ipaddress.ip_address(p.client)
    except ValueError:
        raise Invalid(f"{p.client!r} is not an IP address", "client") from None
    find_service(director.snapshot(), p.service)
    return director.explain(p.service, str(client))


# --- finding, or NotFound -----------------------------------------------------------------------------------


def find_service(picture: DirectorPicture, name: str) -> ServicePicture:
    for each in picture.services:
        if each.name == name:
            return each
    raise NotFound(f"no service is called {name!r}")


def find_group(picture: DirectorPicture, service_name: str, name: str) -> GroupPicture:
    for each in find_service(picture, service_name).groups:
        if each.name == name:
            return each
    raise NotFound(f"no group is called {name!r} in service {service_name!r}")


def find_host(picture: DirectorPicture, ref: HostRef) -> HostPicture:
    for each in find_group(picture, ref.service, ref.group).hosts:
        if each.name == ref.host:
            return each
    raise NotFound(f"no host is called {ref.host!r} in {ref.service}/{ref.group}")
