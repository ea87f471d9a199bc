"""Operations on what runs: clients' connections, bad hosts, and the process itself."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from cluster.address import parse_address
from cluster.model import HostState
from director.admin.offers import Operations, Reloaded, Stopping
from director.admin.operation import Caller, Nothing, OfService, Role, operation
from director.core.snapshot import ConnectionsPicture, HostPicture, TransitionPicture
from director.engine.errors import Invalid, NotFound

#: Of one answer: a thousand rows are more than anybody reads, and take the director a few milliseconds.
MAX_CONNECTIONS = 1000
#: Of past failures in one answer; each host remembers a bounded number.
MAX_FAILURES = 1000


class Connections(OfService, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=MAX_CONNECTIONS)] = 100


class KillConnection(OfService, frozen=True, kw_only=True):
    client: Annotated[str, Meta(max_length=60)]


class Killed(msgspec.Struct, frozen=True):
    killed: int


class Reopened(msgspec.Struct, frozen=True):
    log: str


class Failed(msgspec.Struct, frozen=True):
    """A time at which a host went down."""

    service: str
    group: str
    host: str
    transition: TransitionPicture


class BadHosts(msgspec.Struct, frozen=True):
    current: tuple[HostPicture, ...]  #: suspect or down
    historic: tuple[Failed, ...]  #: the newest first, of hosts that are still configured


@operation(Role.READONLY, Connections)
def connections(director: Operations, caller: Caller, p: Connections) -> ConnectionsPicture:
    """The clients of a service, the oldest first."""
    return director.connections(p.service, p.limit)


@operation(Role.FULL, KillConnection)
def kill_connection(director: Operations, caller: Caller, p: KillConnection) -> Killed:
    """Cut a client's connection; *client* as it is listed."""
    try:
        client = parse_address(p.client)
    except ValueError as error:
        raise Invalid(str(error), "client") from None
    if not client.is_ip:
        raise Invalid("expected an IP address and a port; clients of UNIX sockets cannot be told apart", "client")
    killed = director.kill_connection(p.service, client)
    if not killed:
        raise NotFound(f"no client {client} is connected to {p.service!r}")
    return Killed(killed)


@operation(Role.READONLY, Nothing)
def bad_hosts(director: Operations, caller: Caller, _: Nothing) -> BadHosts:
    """Hosts that are suspect or down, and which went down before, with the reasons."""
    every = [
        host for service in director.picture().services for group in service.groups for host in group.hosts
    ]
    failed = [
        Failed(host.service, host.group, host.name, transition)
        for host in every for transition in host.history if transition.after is HostState.DOWN
    ]
    failed.sort(key=lambda each: each.transition.at, reverse=True)
    return BadHosts(tuple(host for host in every if host.state is not HostState.UP), tuple(failed[:MAX_FAILURES]))


@operation(Role.FULL, Nothing)
def reopen_logs(director: Operations, caller: Caller, _: Nothing) -> Reopened:
    """Close the log's file and open it again under its name, after it was moved away."""
    return Reopened(director.process().reopen_logs())


@operation(Role.FULL, Nothing)
async def reload(director: Operations, caller: Caller, _: Nothing) -> Reloaded:
    """Read the node's own file again, and take what can be taken without a restart."""
    return await director.process().reload()


@operation(Role.FULL, Nothing)
def shutdown(director: Operations, caller: Caller, _: Nothing) -> Stopping:
    """Stop the director once its open connections have ended, or their time is over."""
    return director.process().shutdown(caller.who)
