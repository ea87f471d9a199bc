"""Operations on what runs: clients' connections, bad hosts, and the process itself."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from cluster.address import parse_address
from director.admin.looking import MAX_PAGE, MAX_REF, pictured, place
from director.admin.offers import Operations, Reloaded, Stopping, Upgraded
from director.admin.operation import Caller, Nothing, OfService, Parameters, Role, operation
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
    """A time at which a host went down; or, where unused ones are asked for, any change of its state."""

    service: str
    group: str
    host: str
    transition: TransitionPicture


class WhichBad(Parameters, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] | None = None  #: of those that are bad now
    after: Annotated[str, Meta(max_length=MAX_REF)] | None = None  #: ``service/group/host``, the last of the page before
    unused: bool = False


class BadHosts(msgspec.Struct, frozen=True):
    current: tuple[HostPicture, ...]  #: suspect or down; or unused
    historic: tuple[Failed, ...]  #: the newest first, of hosts that are still configured
    total: int  #: of *current*, were there no pages


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


@operation(Role.READONLY, WhichBad)
def bad_hosts(director: Operations, caller: Caller, p: WhichBad) -> BadHosts:
    """Hosts that are suspect or down, and which went down before; or those unused, and all changes of state."""
    every = sorted(director.bad(p.unused))
    after = place(p.after)
    page = [ref for ref in every if ref > after][:p.limit]
    events = director.happened(MAX_FAILURES, downs=not p.unused)
    return BadHosts(pictured(director, page), tuple(Failed(*ref, event) for ref, event in events), len(every))


@operation(Role.FULL, Nothing)
def reopen_logs(director: Operations, caller: Caller, _: Nothing) -> Reopened:
    """Close the log's file and open it again under its name, after it was moved away."""
    return Reopened(director.process().reopen_logs())


@operation(Role.FULL, Nothing)
async def reload(director: Operations, caller: Caller, _: Nothing) -> Reloaded:
    """Read the node's own file again, and take what can be taken without a restart."""
    return await director.process().reload()


@operation(Role.FULL, Nothing)
async def upgrade(director: Operations, caller: Caller, _: Nothing) -> Upgraded:
    """Start the director's program anew in a process that takes this one's place; clients notice nothing."""
    return await director.process().upgrade(caller.who)


@operation(Role.FULL, Nothing)
def shutdown(director: Operations, caller: Caller, _: Nothing) -> Stopping:
    """Stop the director once its open connections have ended, or their time is over."""
    return director.process().shutdown(caller.who)
