"""XML-RPC at ``/RPC2``: the control interface's operations by their names. See ``docs/reference/xmlrpc.md``.

Reading: expat feeds the standard library's `xmlrpc.client.Unmarshaller`, which makes values and nothing else; a document
type, and with it every entity, is refused before expat has looked at it. Writing: in pieces, so that the picture of ten
thousand hosts does not hold up clients.

A refusal is a Fault whose code is the status that REST would answer. Who is not let in at all gets that status itself,
as every client of XML-RPC understands it.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape
from xmlrpc.client import Unmarshaller

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from cluster.errors import StoreUnavailable
from director.admin.control import OPERATIONS, Caller, Control
from director.admin.gate import Gate
from director.admin.operation import Operation
from director.admin.text import Text
from director.admin.web import STATUS, Page, pause, refusal
from director.engine.errors import Invalid, NotFound, Refused, away
from director.timing.courtesy import politely

#: Elements within elements; a whole service as nested structs takes less than half of it.
MAX_DEPTH = 100
#: Pieces of an answer that are written in one turn of the reactor: about a millisecond's work. A host is one, of fifty
#: microseconds, or some dozens that are shorter.
PIECES_A_TURN = 20
#: Names of members that are remembered as they are written: those of all records of ours, and more.
MAX_NAMES = 1024
#: The code of a call that cannot be read, as in "Specification for Fault Code Interoperability".
UNREADABLE = -32700
INTERNAL = 500

_INT32 = 2**31
#: What XML 1.0 has no way to write.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

#: What is not written as it is.
_SPECIAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\r&<>\ud800-\udfff\ufffe\uffff]")


class Unreadable(Exception):
    """The bytes are no call; the message says why."""


class Call(NamedTuple):
    method: str
    parameters: tuple[Any, ...]


def read_call(body: bytes) -> Call:
    """Parse a ``methodCall``.

    :raises Unreadable: it is malformed, too deep, has a document type, or is no call.
    """
    values = Unmarshaller(use_builtin_types=True)
    values.xml("", None)  # no encoding: expat has decoded already
    parser = expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise Unreadable(f"elements are nested more than {MAX_DEPTH} deep")
        if depth == 1 and tag != "methodCall":
            raise Unreadable(f"a <methodCall> is expected, not a <{tag[:40]}>")
        values.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        values.end(tag)

    def doctype(*_: object) -> None:
        raise Unreadable("a document type is not taken: no entities here")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = values.data
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(body, True)
        parameters, method = values.close(), values.getmethodname()
    except Unreadable:
        raise
    except expat.ExpatError as error:
        raise Unreadable(f"not well-formed: {error}") from None
    except Exception as error:  # the Unmarshaller trusts the order of elements; garbage breaks it in many ways
        raise Unreadable(f"not a call: {type(error).__name__}") from None
    if not method:
        raise Unreadable("no method is named")
    return Call(method, tuple(parameters))


def write_answer(value: object) -> Iterator[str]:
    """A ``methodResponse`` in pieces; *value* is of what `msgspec.to_builtins` answers."""
    yield '<?xml version="1.0" encoding="utf-8"?>\n<methodResponse><params><param>'
    yield from _pieces(value)
    yield "</param></params></methodResponse>\n"


def write_fault(code: int, message: str) -> str:
    fault = "".join(_pieces({"faultCode": code, "faultString": message}))
    return f'<?xml version="1.0" encoding="utf-8"?>\n<methodResponse><fault>{fault}</fault></methodResponse>\n'


def _pieces(value: object) -> Iterator[str]:
    """What may be long comes in pieces, what is not (a host, most often) as one."""
    if isinstance(value, dict) and any(map(_is_long, value.values())):
        yield "<value><struct>"
        for name, member in value.items():
            yield f"<member>{_name(name)}"
            yield from _pieces(member)
            yield "</member>"
        yield "</struct></value>"
    elif isinstance(value, list | tuple):
        yield "<value><array><data>"
        for each in value:
            yield from _pieces(each)
        yield "</data></array></value>"
    else:
        yield _whole(value)


def _is_long(value: object) -> bool:
    """Whether it holds things that hold others."""
    if isinstance(value, dict):
        return any(isinstance(member, dict | list | tuple) for member in value.values())
    return isinstance(value, list | tuple) and bool(value)


def _whole(value: object) -> str:
    if isinstance(value, dict):
        members = "".join([f"<member>{_name(name)}{_whole(member)}</member>" for name, member in value.items()])
        return f"<value><struct>{members}</struct></value>"
    if isinstance(value, list | tuple):
        return f"<value><array><data>{''.join(map(_whole, value))}</data></array></value>"
    return f"<value>{_scalar(value)}</value>"


@functools.lru_cache(MAX_NAMES)
def _name(name: object) -> str:
    return f"<name>{_text(name)}</name>"


def _scalar(value: object) -> str:
    if isinstance(value, str):
        return f"<string>{_text(value)}</string>"
    if value is None:  # as JSON does
        return "<nil/>"
    if isinstance(value, bool):
        return f"<boolean>{value:d}</boolean>"
    if isinstance(value, int):
        return f"<int>{value}</int>" if -_INT32 <= value < _INT32 else f"<i8>{value}</i8>"
    if isinstance(value, float):  # XML-RPC has no infinity either
        return f"<double>{value!r}</double>" if math.isfinite(value) else "<nil/>"
    raise TypeError(type(value))


def _text(value: object) -> str:
    text = str(value)
    if _SPECIAL.search(text) is None:
        return text
    return escape(_NOT_XML.sub("\ufffd", text), {"\r": "&#13;"})


def named(operation: Operation, parameters: tuple[Any, ...]) -> dict[str, Any]:
    """Parameters by name: one struct as it is, others in the order in which the operation declares them.

    :raises Invalid: there are more than it has.
    """
    if len(parameters) == 1 and isinstance(parameters[0], dict):
        return parameters[0]
    names = [field.name for field in msgspec.structs.fields(operation.parameters)]
    if len(parameters) > len(names):
        raise Invalid(f"{operation.name} takes {len(names)} parameters at most, not {len(parameters)}")
    return dict(zip(names, parameters, strict=False))


def described(operation: Operation) -> str:
    """What ``system.methodHelp`` says."""
    words = []
    for field in msgspec.structs.fields(operation.parameters):
        optional = not field.required
        words.append(f"{field.name}={'nil' if field.default is None else repr(field.default)}" if optional else field.name)
    return f"{operation.name}({', '.join(words)})\n{operation.summary} Role: {operation.role.value}."


class XmlRpc(Page):
    """The resource ``/RPC2``."""

    def __init__(self, gate: Gate, control: Control, *, clock: IReactorTime) -> None:
        super().__init__(gate)
        self._control = control
        self._clock = clock

    async def answer(self, caller: Caller, request: Request) -> bytes:
        if request.method != b"POST":
            request.setHeader("Allow", "POST")
            return refusal(request, 405, "calls are sent with POST")
        _same_site(request)
        request.setHeader("Content-Type", "text/xml; charset=utf-8")
        assert request.content is not None
        try:
            call = read_call(request.content.read())
            value = await self._called(caller, call)
        except Unreadable as error:
            return write_fault(UNREADABLE, str(error)).encode()
        except (Refused, StoreUnavailable) as error:
            code = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
            return write_fault(code, away(error) if isinstance(error, StoreUnavailable) else str(error)).encode()
        except Exception:
            self.log.failure("the call of {method} failed", method=call.method)
            return write_fault(INTERNAL, "an error of the director; its log tells more").encode()
        return await self._written(value, request)

    async def _called(self, caller: Caller, call: Call) -> object:
        match call:
            case Call("system.listMethods", ()):
                return sorted([*OPERATIONS, "system.listMethods", "system.methodHelp"])
            case Call("system.methodHelp", (str(name),)):
                return described(_operation(name))
            case Call("system.listMethods" | "system.methodHelp"):
                raise Invalid("listMethods takes no parameter, methodHelp the name of a method")
        arguments = named(_operation(call.method), call.parameters)
        answer = await self._control.call(caller, call.method, arguments)
        return answer.body if isinstance(answer, Text) else msgspec.to_builtins(answer)

    async def _written(self, value: object, request: Request) -> bytes:
        parts: list[str] = []
        for piece in politely(write_answer(value), 1):
            parts.append(piece)
            if len(parts) % PIECES_A_TURN == 0:
                await pause(request, self._clock)
        return "".join(parts).encode()


def _operation(name: str) -> Operation:
    operation = OPERATIONS.get(name)
    if operation is None:
        raise NotFound(f"no method is called {name[:100]!r}; system.listMethods names all")
    return operation


def _same_site(request: Request) -> None:
    """Forms of another site cannot send XML, nor hide where they came from."""
    kind = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
    if kind not in ("text/xml", "application/xml"):
        raise Invalid("calls are sent with Content-Type: text/xml")
    if (request.getHeader("sec-fetch-site") or "none") not in ("none", "same-origin"):
        raise Invalid("calls are not taken from other sites")
