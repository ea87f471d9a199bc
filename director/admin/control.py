"""The control interface: every operation of a director, called through one door.

Transports (REST, XML-RPC, text, pages, command line) are thin: they find out who calls and hand a name and arguments to
`Control.call`. Here alone arguments are checked, roles enforced and changes written to the audit. The table
`OPERATIONS` is what transports, documents and the matrix test are generated from.

Three rules:

1. An operation that changes anything needs `Role.FULL` and leaves one audit entry, whether it succeeded or not.
2. A refused call (`director.engine.errors`) changed nothing.
3. The director behind is reached only through `Operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from cluster.validate import expected
from director.admin import configuration, hosts, looking, people, runtime, together, trail, vips
from director.admin.offers import Operations
from director.admin.operation import OPERATIONS, Caller, Operation, Parameters, Role
from director.engine.errors import Forbidden, Invalid, NotFound, Refused

__all__ = [
    "DECLARED_IN", "OPERATIONS", "Audit", "Caller", "Control", "Operation", "Operations", "Role", "log_audit", "recorded",
]

#: The modules that declare the operations; importing them fills `OPERATIONS`.
DECLARED_IN = (looking, hosts, configuration, runtime, together, vips, trail, people)


#: Of one argument or outcome in the audit, as JSON: a sentence fits, a whole service does not.
MAX_RECORDED = 2000
#: The longest name that a field of parameters has, and to spare.
MAX_NAME = 40


class Audit(NamedTuple):
    """One attempted change."""

    caller: Caller
    operation: str
    arguments: Mapping[str, object]  #: as `recorded` lets them be
    outcome: str  #: ``ok``, or the refusal
    refused: bool = False  #: nothing was done


_log = Logger(namespace="director.admin.audit")


def log_audit(entry: Audit) -> None:
    """Write the entry to the log, the default audit."""
    _log.info(
        "{who} from {origin}: {operation} {arguments}: {outcome}",
        who=entry.caller.who, origin=entry.caller.origin or "here",
        operation=entry.operation, arguments=dict(entry.arguments), outcome=entry.outcome,
        log_each=True,  # each is an order of somebody who may give it
    )


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
        outcome, refused = "failed", False
        try:
            answer = await self._perform(caller, operation, arguments, text)
            outcome = "ok"
            return answer
        except Exception as error:
            outcome, refused = f"{type(error).__name__}: {error}", isinstance(error, Refused)
            raise
        finally:
            self._audit(Audit(
                caller, name, recorded(arguments, operation.parameters), _plain(outcome, MAX_RECORDED), refused
            ))

    async def _perform(self, caller: Caller, operation: Operation, arguments: Mapping[str, object], text: bool) -> Any:
        if not caller.role.allows(operation.role):
            raise Forbidden(f"{operation.name} needs the role {operation.role.value!r}; {caller.who} has "
                            f"{caller.role.value!r}")
        answer = operation.perform(self._operations, caller, _converted(arguments, operation.parameters, strict=not text))
        return await answer if hasattr(answer, "__await__") else answer


def recorded(arguments: Mapping[str, object], kind: type[Parameters]) -> dict[str, object]:
    """*arguments* as the audit may have them: nothing secret, nothing under a name that is not the operation's (it may
    be a misspelt secret), nothing large."""
    shown: dict[str, object] = {}
    for name, value in arguments.items():
        if name not in kind.__struct_fields__:
            shown[_plain(name, MAX_NAME)] = "(unknown)"
        elif name in kind.SECRETS:
            shown[name] = "(secret)"
        else:
            shown[name] = _bounded(value)
    return shown


def _plain(text: object, length: int) -> str:
    """Of bounded length, and without the lone surrogates that no file or store can keep."""
    return str(text)[:length].encode("utf-8", "replace").decode()


def _bounded(value: object) -> object:
    try:
        size = len(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError):  # what XML-RPC can carry and JSON cannot
        return "(unreadable)"
    return value if size <= MAX_RECORDED else f"({size} bytes)"


def _converted(arguments: Mapping[str, object], kind: type[Parameters], *, strict: bool) -> Parameters:
    """:raises Invalid: with the first error and its place."""
    try:
        return msgspec.convert(dict(arguments), kind, strict=strict)
    except UnicodeEncodeError:
        raise Invalid("a name or a value holds what is no Unicode character") from None
    except msgspec.ValidationError as error:
        message, at, place = str(error).partition(" - at `")
        place = place.rstrip("`").removeprefix("$").removeprefix(".") if at else ""
        raise Invalid(_in_words(message, place, kind), place) from None


def _in_words(message: str, place: str, kind: type[Parameters]) -> str:
    """What the parameter's type asks for, as people say it; msgspec's *message* where it is not about a parameter."""
    for field in msgspec.structs.fields(kind):
        if field.encode_name == place:
            return f"expected {expected(field.type)}"
        if message == f"Object missing required field `{field.encode_name}`":
            return f"{field.encode_name} is missing"
    return message
