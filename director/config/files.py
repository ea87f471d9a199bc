"""Configuration files: TOML into a checked `Configuration`, and back.

Everything wrong is told at once, as one `ConfigError`: each problem with its place, file, line and, where there is one,
a hint. A host may be written as its bare address: ``app1 = "10.0.0.1:80"``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from cluster.credentials import resolved
from cluster.errors import ConfigError, Problem
from cluster.model import Configuration, Host, Service
from cluster.validate import attempt
from director.config import check as rules
from director.config import machine
from director.config.loops import loop_errors
from director.config.several import Documents, parsed, read
from director.resources.backlog import granted
from director.resources.places import hard_limit

#: Structs that a file may give as a bare string, and the field that this is.
SHORTHANDS: Mapping[type, str] = {Host: "address"}

#: What to do about keys that few will get right without help.
_HINTS = {
    "token_sha256": "`director token` prints a token and its line",
    "password": "`directorctl password` makes the hash",
}


class Loaded(NamedTuple):
    """A good configuration, and what is odd about it."""

    configuration: Configuration
    warnings: tuple[Problem, ...] = ()
    at_present: tuple[Problem, ...] = ()  #: what keeps it from being started here, now


def load(path: str) -> Configuration:
    """Read a TOML file, and those that it includes (`director.config.several`).

    :raises ConfigError: with every problem; also when the file cannot be read.
    """
    return examine(path).configuration


def examine(path: str, *, here: bool = False) -> Loaded:
    """`load`, with the warnings.

    :param here: to be run on this machine: what it needs of it must be there.
    """
    return _examined(read(path), here=here)


def load_services(path: str) -> dict[str, Service]:
    """The services of a TOML file, for a director elsewhere: what is wrong with the file's own node does not matter.

    :raises ConfigError: as `load` does.
    """
    return dict(_examined(read(path), node=False).configuration.services)


def parse(text: str, *, file: str | None = None) -> Configuration:
    """Parse a TOML document.

    :param file: its name, for messages.
    :raises ConfigError: with every problem.
    """
    return _examined(parsed(text, file)).configuration


def check(configuration: Configuration) -> list[Problem]:
    """Every error that types do not exclude."""
    return [*rules.errors(configuration, unreadable=_unreadable), *loop_errors(configuration, is_ours)]


def checked(data: object, *, node: bool = True, here: bool = False) -> Configuration:
    """A configuration from plain data (tables, arrays, scalars) that came from no file.

    :param node: errors of the node count.
    :param here: so does what this machine lacks.
    :raises ConfigError: with every problem.
    """
    configuration, problems = attempt(data, Configuration, shorthands=SHORTHANDS)
    configuration, unknown = resolved(configuration, os.environ)
    problems += unknown
    for rule in (check, machine.errors) if here else (check,):
        wrong = [problem.place for problem in problems]
        problems += [
            problem for problem in rule(configuration) if not any(_nested(place, problem.place) for place in wrong)
        ]
    problems = [problem for problem in problems if node or not _nested("node", problem.place)]
    if problems:
        raise ConfigError(_hinted(problems))
    return configuration


def dump_toml(configuration: Configuration) -> str:
    """The TOML document that `parse` turns into *configuration* again; defaults are left out."""
    return msgspec.toml.encode(_without_defaults(configuration)).decode()


def dump_json(configuration: Configuration) -> str:
    """The same as JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(_without_defaults(configuration)), indent=2).decode()


def _without_defaults(value: object) -> object:
    """Plain data without what a reader knows anyway (msgspec's own ``omit_defaults`` keeps equal floats)."""
    if isinstance(value, msgspec.Struct):
        return {
            field.encode_name: _without_defaults(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
            if field.required or getattr(value, field.name) != _default(field)
        }
    if isinstance(value, dict):
        return {key: _without_defaults(item) for key, item in value.items()}
    return [_without_defaults(item) for item in value] if isinstance(value, tuple) else value


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _examined(documents: Documents, *, node: bool = True, here: bool = False) -> Loaded:
    try:
        configuration = checked(documents.data, node=node, here=here)
    except ConfigError as error:
        raise ConfigError(documents.located(error.problems)) from None

    def located(problems: Iterable[Problem]) -> tuple[Problem, ...]:
        return documents.located(_hinted(problems))

    odd = rules.warnings(configuration, descriptors=hard_limit(), ours=is_ours, backlog=granted())
    if not here:
        return Loaded(configuration, located(odd))
    odd += machine.warnings(configuration)
    return Loaded(configuration, located(odd), located(machine.at_present(configuration)))


def is_ours(ip: str) -> bool:
    """Whether this machine has *ip* now."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((ip, 0))
    except OSError:
        return False
    return True


def _nested(one: str, other: str) -> bool:
    """Whether one of two places is the other or within it: what is wrong in itself is not judged again."""
    shorter, longer = sorted((one, other), key=len)
    return longer.startswith(shorter) and longer[len(shorter) : len(shorter) + 1] in ("", ".", "[")


def _hinted(problems: Iterable[Problem]) -> list[Problem]:
    return [
        problem if problem.hint else problem._replace(hint=_HINTS.get(problem.place.rpartition(".")[2], ""))
        for problem in problems
    ]


def _unreadable(path: str) -> str:
    """Why *path* cannot be read; empty when it can."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.strerror or str(error)
    except ValueError:
        return "no file's name holds a NUL"
    return "" if os.path.isfile(path) else "not a file"
