"""How an operation is declared: its name, who may call it, its parameters, and what performs it.

Operations are functions in modules by what they are about (`looking`, `hosts`, `configuration`…), each registered
in `OPERATIONS` under its own name. They take the director, the caller and their parameters, and answer a value that
msgspec can encode, or an awaitable of one. `director.admin.control.Control` calls them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec

from cluster.model import HostRef, Name


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


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of an operation's parameters: their names, types and bounds."""

    SECRETS: ClassVar[frozenset[str]] = frozenset()  #: which no log or audit may show


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


class Operation(NamedTuple):
    """A declared operation."""

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

_Performs = TypeVar("_Performs", bound=Callable[..., Any])


def operation(role: Role, parameters: type[Parameters]) -> Callable[[_Performs], _Performs]:
    """Declare the decorated function as the operation of its name."""

    def declare(perform: _Performs) -> _Performs:
        name = perform.__name__
        OPERATIONS[name] = Operation(name, role, parameters, perform)
        return perform

    return declare
