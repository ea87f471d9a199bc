"""Plain data into records, with every error at once.

msgspec stops at the first error. Here the structs, tables and arrays are walked by hand, and only the leaves are
msgspec's, so that an operator sees everything that is wrong with a document, each with its place and in plain words.

A *place* is a TOML dotted key, with indices for the items of arrays: ``services.web.listen[0]``,
``services.web.groups.blue.hosts."app1.example.com".address``.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import inspect

from cluster.errors import Problem
from cluster.model import HOST_NAME_PATTERN, NAME_PATTERN, SERVER_NAME_PATTERN

T = TypeVar("T")

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_WRONG = object()
_PATTERNS = {
    NAME_PATTERN: "a name: 1 to 63 letters, digits, dots, underscores or hyphens",
    HOST_NAME_PATTERN: "a host name",
    SERVER_NAME_PATTERN: "a host name, *. and a host name, or *",
}


def convert(
    data: object, type_: type[T], place: str = "", *, shorthands: Mapping[type, str] | None = None
) -> tuple[T | None, list[Problem]]:
    """Turn *data* (tables, arrays and scalars, as a TOML or JSON parser gives them) into a *type_*.

    Understands structs, ``dict[key, …]``, ``tuple[…, ...]``, ``… | None`` of these, and whatever leaf msgspec knows.

    :param place: where *data* is within its document.
    :param shorthands: structs that may be written as a bare string, and the field which that string means.
    :returns: the value and no problems, or None and all of them.
    """
    value, problems = attempt(data, type_, place, shorthands=shorthands)
    return (None if problems else value), problems


def attempt(
    data: object, type_: type[T], place: str = "", *, shorthands: Mapping[type, str] | None = None
) -> tuple[T, list[Problem]]:
    """`convert` that gives a value even when there are problems, so that the sound parts can be checked further.

    In it, what was wrong has its default; what has none is blank (``""``, 0, empty), whatever its constraints.
    """
    walk = _Walk(shorthands or {})
    value = walk.value(data, type_, place)
    return cast(T, _blank(type_) if value is _WRONG else value), walk.problems


def expected(type_: Any) -> str:
    """What a leaf's type asks for, in words: ``a number of at least 0``."""
    return _expected(inspect.type_info(type_))


def join(place: str, *keys: str | int) -> str:
    """The place of a key (an item, for an int) within *place*, or deeper, one step for each key."""
    for key in keys:
        if isinstance(key, int):
            place = f"{place}[{key}]"
        else:
            text = key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
            place = f"{place}.{text}" if place else text
    return place


def did_you_mean(word: str, known: Iterable[str], *, or_all: bool = True) -> str:
    """A hint towards the nearest of *known*; when none is near, all of them (unless not *or_all*)."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(names)}" if names and or_all else ""


class _Walk:
    """One conversion; collects the problems. A leaf that is wrong is `_WRONG`."""

    def __init__(self, shorthands: Mapping[type, str]) -> None:
        self.problems: list[Problem] = []
        self.shorthands = shorthands

    def value(self, data: object, type_: Any, place: str) -> object:
        inner = _without_none(type_)
        if data is None and inner is not type_:
            return None
        origin = get_origin(inner)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return self.struct(data, inner, place)
        if origin is dict:
            key_type, value_type = get_args(inner)
            return self.table(data, key_type, value_type, place)
        if origin is tuple and get_args(inner)[1:] == (...,):
            return self.array(data, get_args(inner)[0], place)
        return self.leaf(data, type_, place)

    def struct(self, data: object, type_: type[msgspec.Struct], place: str) -> object:
        if type_ in self.shorthands and isinstance(data, str):
            data = {self.shorthands[type_]: data}
        if not isinstance(data, Mapping):
            self.wrong(place, "a table", data)
            return _blank(type_)
        fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
        values = {field.name: _blank(field.type) for field in fields.values() if field.required}
        for key, item in data.items():
            if key in fields:
                value = self.value(item, fields[key].type, join(place, key))
                if value is not _WRONG:
                    values[fields[key].name] = value
            elif type_.__struct_config__.forbid_unknown_fields:
                self.problem(join(place, str(key)), "unknown key", did_you_mean(str(key), fields.keys() - data.keys()))
        for name, field in fields.items():
            if field.required and name not in data:
                self.problem(join(place, name), "missing")
        return type_(**values)

    def table(self, data: object, key_type: Any, value_type: Any, place: str) -> object:
        if not isinstance(data, Mapping):
            self.wrong(place, "a table", data)
            return {}
        values = {}
        for key, item in data.items():
            self.leaf(key, key_type, join(place, str(key)))
            values[key] = self.item(item, value_type, join(place, str(key)))
        return values

    def array(self, data: object, item_type: Any, place: str) -> object:
        if not isinstance(data, list | tuple):
            self.wrong(place, "an array", data, "write it in square brackets" if isinstance(data, str) else "")
            return ()
        return tuple([self.item(item, item_type, join(place, i)) for i, item in enumerate(data)])

    def item(self, data: object, type_: Any, place: str) -> object:
        value = self.value(data, type_, place)
        return _blank(type_) if value is _WRONG else value

    def leaf(self, data: object, type_: Any, place: str) -> object:
        try:
            value = msgspec.convert(data, type_)
        except msgspec.ValidationError:
            node = inspect.type_info(type_)
            choices = _choices(node)
            if choices and isinstance(data, str):
                return self.problem(
                    place,
                    f"expected {_expected(node)}, got {json.dumps(data, ensure_ascii=False)}",
                    did_you_mean(data, choices, or_all=False),
                )
            return self.wrong(place, _expected(node), data, "write it without quotes" if _quoted(data, type_) else "")
        if isinstance(value, float) and not math.isfinite(value):
            return self.wrong(place, "a finite number", data)
        return value

    def wrong(self, place: str, expected: str, data: object, hint: str = "") -> object:
        return self.problem(place, f"expected {expected}, got {_described(data)}", hint)

    def problem(self, place: str, message: str, hint: str = "") -> object:
        self.problems.append(Problem(place, message, hint))
        return _WRONG


def _without_none(type_: Any) -> Any:
    """``X`` for ``X | None``; constraints of an annotated container fall away, those of leaves are msgspec's."""
    if get_origin(type_) is Annotated and get_origin(get_args(type_)[0]) is not None:
        return _without_none(get_args(type_)[0])
    if get_origin(type_) in (Union, types.UnionType):
        others = [each for each in get_args(type_) if each is not type(None)]
        if len(others) == 1:
            return _without_none(others[0])
    return type_


def _blank(type_: Any) -> Any:
    """A stand-in for a *type_* that is missing or wrong."""
    inner = _without_none(type_)
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        fields = msgspec.structs.fields(inner)
        return inner(**{field.name: _blank(field.type) for field in fields if field.required})
    if get_origin(inner) in (dict, tuple):
        return get_origin(inner)()
    match inspect.type_info(inner):
        case inspect.StrType():
            return ""
        case inspect.IntType() | inspect.FloatType():
            return 0
        case inspect.BoolType():
            return False
        case _:
            return None


def _choices(node: inspect.Type) -> list[str]:
    """The words that a leaf may be, when it is one of a few."""
    for each in node.types if isinstance(node, inspect.UnionType) else (node,):
        if isinstance(each, inspect.LiteralType):
            return [str(value) for value in each.values]
        if isinstance(each, inspect.EnumType):
            return [str(member.value) for member in each.cls]
    return []


def _quoted(data: object, type_: Any) -> bool:
    """Whether *data* is the text of what was expected, a number in quotes for instance."""
    try:
        msgspec.convert(data, type_, strict=False)
    except msgspec.ValidationError:
        return False
    return isinstance(data, str)


def _expected(node: inspect.Type) -> str:
    """What a leaf's type asks for, in words."""
    match node:
        case inspect.UnionType(types=alternatives):
            words = [_expected(each) for each in alternatives if not isinstance(each, inspect.NoneType)]
            return " or ".join(dict.fromkeys(words))
        case inspect.LiteralType() | inspect.EnumType():
            words = [f'"{each}"' for each in _choices(node)]
            return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
        case inspect.StrType(pattern=pattern) if pattern is not None:
            return _PATTERNS.get(pattern, f"a string that matches {pattern}")
        case inspect.StrType(max_length=most) if most is not None:
            return f"a string of at most {most} characters"
        case inspect.StrType():
            return "a string"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _bounds(node)
        case inspect.FloatType():
            return "a number" + _bounds(node)
        case inspect.DictType():
            return "a table"
        case inspect.ListType() | inspect.VarTupleType() | inspect.TupleType():
            return "an array"
        case _:
            return f"a value of type {type(node).__name__.removesuffix('Type').lower()}"


def _bounds(node: inspect.IntType | inspect.FloatType) -> str:
    if node.ge is not None and node.le is not None:
        return f" from {node.ge} to {node.le}"
    if node.gt is not None and node.le is not None:
        return f" above {node.gt}, at most {node.le:g}"
    if node.ge is not None:
        return f" of at least {node.ge}"
    if node.le is not None:
        return f" of at most {node.le}"
    return f" above {node.gt}" if node.gt is not None else ""


def _described(data: object) -> str:
    """The value in words; a string's text stays unsaid, for it may be a secret."""
    match data:
        case bool():
            return "true" if data else "false"
        case int() | float():
            return f"{data}"
        case str():
            return "a string"
        case Mapping():
            return "a table"
        case list() | tuple():
            return "an array"
        case None:
            return "nothing"
        case _:
            return f"a {type(data).__name__}"
