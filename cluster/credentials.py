"""Credentials of a service (systemd.exec(5), *Credentials*): ``credential:NAME`` where a configuration names a file.

systemd puts what the unit's ``LoadCredential=``, ``LoadCredentialEncrypted=`` or ``SetCredential=`` names into a directory
that only the service can read, and says where in ``$CREDENTIALS_DIRECTORY``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from cluster.errors import Problem
from cluster.validate import join

T = TypeVar("T", bound=msgspec.Struct)

VARIABLE = "CREDENTIALS_DIRECTORY"
PREFIX = "credential:"
#: Fields of configurations that name a file which is read, secret or not.
FILES = frozenset({
    "authorized_keys", "ca", "certificate", "client_ca", "host_key", "htpasswd", "key", "password_file", "secret_file",
    "token_file",
})
#: What systemd takes as a credential's name (``credential_name_valid``): a file's, of printable ASCII, without a colon.
_NAME = re.compile(r"(?!\.{1,2}$)[!-.0-9;-~][ -.0-9;-~]{0,254}")


def resolved(record: T, environment: Mapping[str, str], place: str = "") -> tuple[T, list[Problem]]:
    """*record* with paths in place of credentials, and what is wrong with those that stand as they are."""
    problems: list[Problem] = []
    return _struct(record, environment.get(VARIABLE), place, problems), problems


def _struct(record: T, directory: str | None, place: str, problems: list[Problem]) -> T:
    changed: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value, here = getattr(record, name), join(place, name)
        if isinstance(value, str):
            other: Any = value
            if name in FILES and value.startswith(PREFIX):
                other = _path(value, directory, here, problems)
        else:
            other = _inner(value, directory, here, problems)
        if other is not value:
            changed[name] = other
    return msgspec.structs.replace(record, **changed) if changed else record


def _inner(value: Any, directory: str | None, place: str, problems: list[Problem]) -> Any:
    """The same value where nothing in it changes."""
    if isinstance(value, msgspec.Struct):
        return _struct(value, directory, place, problems)
    if isinstance(value, dict):
        inner = {key: _inner(each, directory, join(place, str(key)), problems) for key, each in value.items()}
        return inner if any(inner[key] is not value[key] for key in inner) else value
    if isinstance(value, tuple):
        items = tuple([_inner(each, directory, join(place, i), problems) for i, each in enumerate(value)])
        return items if any(one is not other for one, other in zip(items, value, strict=True)) else value
    return value


def _path(text: str, directory: str | None, place: str, problems: list[Problem]) -> str:
    name = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        problems.append(Problem(place, f"{text}: no credential has such a name"))
    elif not directory:
        problems.append(Problem(place, f"{text}: this process has no credentials ({VARIABLE} is not set)",
                                f"LoadCredential={name}:/path in the systemd unit gives it one"))
    else:
        return f"{directory.rstrip('/')}/{name}"
    return text
