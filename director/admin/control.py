"""The control interface: every operation of a director, declared once.

Transports (REST, XML-RPC, text, pages, command line) are thin: they find out who calls and hand a name and arguments to
`Control.call`. Here alone arguments are checked, roles enforced and changes written to the audit. The table
`OPERATIONS` is what transports, documents and the matrix test are generated from.

Three rules:

1. An operation that changes anything needs `Role.FULL` and leaves one audit entry, whether it succeeded or not.
2. A refused call (`director.admin.errors`) changed nothing.
3. The director behind is reached only through `Operations`.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
from msgspec import Meta
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from cluster.model import AdminState, HostRef, Name, SecondsOrOff, Weight
from director.admin.errors import Forbidden, Invalid, NotFound
from director.core.snapshot import (
    DirectorPicture,
    Explanation,
    GroupPicture,
    HostPicture,
    ServicePicture,
)

#: An operator's reason, as kept with the order: a sentence, not a document.
MAX_WHY = 500


class Operations(Protocol):
    """What a director offers to its admin.

    Refusals are `director.admin.errors.Refused`. A Deferred fires when this director acts accordingly, so that the
    next snapshot shows it; it may fail with `cluster.errors.StoreUnavailable`. The control interface has looked that
    the host exists; it may have left since.
    """

    def snapshot(self) -> DirectorPicture: ...

    def explain(self, service: str, client: str) -> Explanation:
        """:raises NotFound: no such service. *client* is a valid IP address."""

    def order(
        self, ref: HostRef, state: AdminState, *, who: str, why: str, deadline_s: float | None = None
    ) -> Deferred[None]:
        """Replace the operator's standing order; the agent's is not touched.

        :param deadline_s: of a drain: open connections are cut after it; None: the service's own.
        """

    def set_weight(self, ref: HostRef, weight: float, *, who: str) -> Deferred[None]: ...

    def approve(self, ref: HostRef, *, who: str) -> Deferred[None]:
        """Let a host in that registered and waits; nothing to do for one that is in. Fails with NotFound."""

    def retry(self, ref: HostRef) -> Deferred[None]:
        """Probe a host now; it comes back if it passes. Fires when the probe is done, whatever it found."""


class Role(enum.Enum):
    """What a user may do: look, or look and change."""

    READONLY = "readonly"
    FULL = "full"

    def allows(self, needed: Role) -> bool:
        return self is Role.FULL or needed is Role.READONLY


class Caller(NamedTuple):
    """On whose behalf: a user's name, what they may do, and where the request came from."""

    who: str
    role: Role
    origin: str = ""


class Audit(NamedTuple):
    """One attempted change."""

    caller: Caller
    operation: str
    arguments: Mapping[str, object]
    outcome: str  #: ``ok``, or the refusal


_log = Logger(namespace="director.admin.audit")


def log_audit(entry: Audit) -> None:
    """Write the entry to the log, the default audit."""
    _log.info(
        "{who} from {origin}: {operation} {arguments}: {outcome}",
        who=entry.caller.who, origin=entry.caller.origin or "here",
        operation=entry.operation, arguments=dict(entry.arguments), outcome=entry.outcome,
    )


# --- parameters -------------------------------------------------------------------------------------------


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of an operation's parameters: their names, types and bounds."""


class Nothing(Parameters, frozen=True, kw_only=True):
    """No parameter."""


class OfService(Parameters, frozen=True, kw_only=True):
    service: Name


class OfGroup(OfService, frozen=True, kw_only=True):
    group: Name


class OfHost(OfGroup, frozen=True, kw_only=True):
    host: Name

    @property
    def ref(self) -> HostRef:
        return HostRef(self.service, self.group, self.host)


class Hosts(Parameters, frozen=True, kw_only=True):
    service: Name | None = None
    group: Name | None = None


class Explain(OfService, frozen=True, kw_only=True):
    client: Annotated[str, Meta(max_length=45)]  #: the longest spelling of an IPv6 address


class Order(OfHost, frozen=True, kw_only=True):
    state: AdminState
    why: Annotated[str, Meta(max_length=MAX_WHY)] = ""
    deadline_s: SecondsOrOff | None = None


class SetWeight(OfHost, frozen=True, kw_only=True):
    weight: Weight


class Operation(NamedTuple):
    """A declared operation. *perform* is a method of `Control`; it answers a value or an awaitable of one."""

    name: str
    role: Role
    parameters: type[Parameters]
    perform: Callable[..., Any]

    @property
    def summary(self) -> str:
        return (self.perform.__doc__ or "").strip().partition("\n")[0]

    @property
    def changes(self) -> bool:
        return self.role is Role.FULL


#: Every operation by name, in the order of declaration.
OPERATIONS: dict[str, Operation] = {}


def _operation(role: Role, parameters: type[Parameters]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def declare(method: Callable[..., Any]) -> Callable[..., Any]:
        name = method.__name__
        OPERATIONS[name] = Operation(name, role, parameters, method)
        return method

    return declare


# --- the interface ----------------------------------------------------------------------------------------


class Control:
    """What operators may see and order."""

    def __init__(self, operations: Operations, *, audit: Callable[[Audit], None] = log_audit) -> None:
        self._operations = operations
        self._audit = audit

    def call(self, caller: Caller, name: str, arguments: Mapping[str, object], *, text: bool = False) -> Deferred[Any]:
        """Perform operation *name*.

        :param text: values are text (of a query, a form or a command line) and are read as their type demands.
        :returns: fires with the answer, a value that msgspec can encode; fails with `Refused` or `StoreUnavailable`.
        """
        return ensureDeferred(self._call(caller, name, arguments, text))

    async def _call(self, caller: Caller, name: str, arguments: Mapping[str, object], text: bool) -> Any:
        operation = OPERATIONS.get(name)
        if operation is None:
            raise NotFound(f"no operation is called {name!r}")
        if not operation.changes:
            return await self._perform(caller, operation, arguments, text)
        outcome = "failed"
        try:
            answer = await self._perform(caller, operation, arguments, text)
            outcome = "ok"
            return answer
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._audit(Audit(caller, name, arguments, outcome))

    async def _perform(self, caller: Caller, operation: Operation, arguments: Mapping[str, object], text: bool) -> Any:
        if not caller.role.allows(operation.role):
            raise Forbidden(f"{operation.name} needs the role {operation.role.value!r}; {caller.who} has "
                            f"{caller.role.value!r}")
        answer = operation.perform(self, caller, _converted(arguments, operation.parameters, strict=not text))
        return await answer if hasattr(answer, "__await__") else answer

    # --- looking

    @_operation(Role.READONLY, Nothing)
    def status(self, caller: Caller, _: Nothing) -> DirectorPicture:
        """Everything: the director, its services, groups and hosts."""
        return self._operations.snapshot()

    @_operation(Role.READONLY, Nothing)
    def services(self, caller: Caller, _: Nothing) -> tuple[ServicePicture, ...]:
        """All services."""
        return self._operations.snapshot().services

    @_operation(Role.READONLY, OfService)
    def service(self, caller: Caller, p: OfService) -> ServicePicture:
        """One service with its groups and hosts."""
        return _service(self._operations.snapshot(), p.service)

    @_operation(Role.READONLY, OfService)
    def groups(self, caller: Caller, p: OfService) -> tuple[GroupPicture, ...]:
        """The groups of a service."""
        return _service(self._operations.snapshot(), p.service).groups

    @_operation(Role.READONLY, OfGroup)
    def group(self, caller: Caller, p: OfGroup) -> GroupPicture:
        """One group with its hosts."""
        return _group(self._operations.snapshot(), p.service, p.group)

    @_operation(Role.READONLY, Hosts)
    def hosts(self, caller: Caller, p: Hosts) -> tuple[HostPicture, ...]:
        """All hosts; those of a service or of one of its groups when asked."""
        picture = self._operations.snapshot()
        if p.service is None:
            if p.group is not None:
                raise Invalid("a group is named within its service; give the service too", "group")
            groups = [group for service in picture.services for group in service.groups]
        elif p.group is None:
            groups = list(_service(picture, p.service).groups)
        else:
            groups = [_group(picture, p.service, p.group)]
        return tuple(host for group in groups for host in group.hosts)

    @_operation(Role.READONLY, OfHost)
    def host(self, caller: Caller, p: OfHost) -> HostPicture:
        """One host with its orders, its last check and its history."""
        return self._host(p.ref)

    @_operation(Role.READONLY, Explain)
    def explain(self, caller: Caller, p: Explain) -> Explanation:
        """Which host a client would get from a service now, and why."""
        try:
            client = ipaddress.ip_address(p.client)
        except ValueError:
            raise Invalid(f"{p.client!r} is not an IP address", "client") from None
        _service(self._operations.snapshot(), p.service)
        return self._operations.explain(p.service, str(client))

    # --- changing; each answers the host as it is afterwards

    @_operation(Role.FULL, Order)
    async def order(self, caller: Caller, p: Order) -> HostPicture:
        """Order a host up, into drain, or down."""
        if p.deadline_s is not None and p.state is not AdminState.DRAIN:
            raise Invalid("only a drain has a deadline", "deadline_s")
        self._host(p.ref)
        await self._operations.order(p.ref, p.state, who=caller.who, why=p.why, deadline_s=p.deadline_s)
        return self._host(p.ref)

    @_operation(Role.FULL, SetWeight)
    async def weight(self, caller: Caller, p: SetWeight) -> HostPicture:
        """Set a host's configured weight; 0 takes no new connections."""
        self._host(p.ref)
        await self._operations.set_weight(p.ref, p.weight, who=caller.who)
        return self._host(p.ref)

    @_operation(Role.FULL, OfHost)
    async def approve(self, caller: Caller, p: OfHost) -> HostPicture:
        """Let a host into its group that registered through its agent and waits."""
        await self._operations.approve(p.ref, who=caller.who)
        return self._host(p.ref)

    @_operation(Role.FULL, OfHost)
    async def retry(self, caller: Caller, p: OfHost) -> HostPicture:
        """Probe a host now; it comes back if it passes."""
        self._host(p.ref)
        await self._operations.retry(p.ref)
        return self._host(p.ref)

    def _host(self, ref: HostRef) -> HostPicture:
        group = _group(self._operations.snapshot(), ref.service, ref.group)
        for host in group.hosts:
            if host.name == ref.host:
                return host
        raise NotFound(f"no host is called {ref.host!r} in {ref.service}/{ref.group}")


def _service(picture: DirectorPicture, name: str) -> ServicePicture:
    for service in picture.services:
        if service.name == name:
            return service
    raise NotFound(f"no service is called {name!r}")


def _group(picture: DirectorPicture, service: str, name: str) -> GroupPicture:
    for group in _service(picture, service).groups:
        if group.name == name:
            return group
    raise NotFound(f"no group is called {name!r} in service {service!r}")


def _converted(arguments: Mapping[str, object], kind: type[Parameters], *, strict: bool) -> Parameters:
    """:raises Invalid: with the first error and its place."""
    try:
        return msgspec.convert(dict(arguments), kind, strict=strict)
    except msgspec.ValidationError as error:
        message, at, place = str(error).partition(" - at `")
        raise Invalid(message, place.rstrip("`").removeprefix("$").removeprefix(".") if at else "") from None
