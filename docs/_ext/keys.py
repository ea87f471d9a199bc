"""The store's keys and the records under them, from `cluster.keys` and the records' classes with their comments.

Pure, but that it reads the source of those classes.
"""

from __future__ import annotations

import inspect
import re
from types import NoneType
from typing import Any, get_args

import msgspec

from cluster import keys
from cluster.model import Caps, HostRef, Leader, Member, Observed, Order, Placement, Registered, Service, User, VipOwner
from cluster.model.directors import AuditEntry, CapShare

_KEYS = keys.Keys("CLUSTER")
_HOST = HostRef("SERVICE", "GROUP", "HOST")
#: Under which key which record lies (None: it is told on the page), who writes it, and when it goes.
RECORDS: tuple[tuple[type, str, type[Any] | None, str], ...] = (
    (keys.ServiceKey, _KEYS.service("SERVICE"), Service, "operators, by any director; stays"),
    (keys.BootKey, _KEYS.boot("SERVICE"), Service,
     "a director with a store of its own: the service as its file last said it; never in etcd"),
    (keys.RegisteredKey, _KEYS.registered(_HOST), Registered,
     "the director that an agent registers with; `forget_s` after the host was last claimed"),
    (keys.AdminKey, f"{_KEYS.admin(_HOST, 'operator')}, …/agent", Order,
     "operators and agents; until the order is taken back"),
    (keys.ObservedKey, _KEYS.observed("DIRECTOR", _HOST), Observed, "that director; with its lease of 10 s"),
    (keys.LoadKey, _KEYS.load("DIRECTOR"), None, "that director, every `summary_s`; with its lease"),
    (keys.DirectorKey, _KEYS.director("DIRECTOR"), Member, "that director; with its lease"),
    (keys.LeaderKey, _KEYS.leader(), Leader, "who leads; with a lease of `leader_lease_s`, or by promises: stays"),
    (keys.LeaderBeatKey, _KEYS.leader_beat(), None, "who leads by promises, while one is missing; stays"),
    (keys.VipKey, _KEYS.root + "vips/ADDRESS", VipOwner, "the leader; stays when it dies, goes when it resigns"),
    (keys.ReignKey, _KEYS.root + "reigns/ADDRESS", Leader,
     "the address's owner, where each has one of its own; the first time by the leader. Stays"),
    (keys.ReignBeatKey, _KEYS.root + "reigns/ADDRESS/beat", None, "the same, while a promise is missing; stays"),
    (keys.PlacementKey, _KEYS.root + "placements/ADDRESS", Placement,
     "operators; the first time by the leader. Stays: without it an address whose record is gone would get another one"),
    (keys.CapsKey, _KEYS.caps("SERVICE"), Caps, "the leader; with the service's maximum"),
    (keys.UserKey, _KEYS.user("NAME"), User, "operators; until deleted"),
    (keys.AuditKey, _KEYS.root + "audit/TIME", AuditEntry,
     "whichever director was asked; once there are more than 10,000, the oldest"),
)
#: Records inside of others.
_INSIDE: tuple[type[Any], ...] = (CapShare,)


def keys_page() -> str:
    """A table of keys, then of each record's keys, as Markdown from the second heading on."""
    rows = [f"| `{key}` | {'a time' if place in (keys.LeaderBeatKey, keys.ReignBeatKey) else _link(record)} | {told} |"
            for place, key, record, told in RECORDS]
    parts = ["## Keys", "\n".join(("| key | record | written by; gone when |", "|---|---|---|", *rows)), "## Records"]
    for record in (*dict.fromkeys(record for _, _, record, _ in RECORDS if record), *_INSIDE):
        parts += [f"### {record.__name__}", *_record(record)]
    return "\n\n".join(parts) + "\n"


def _link(record: type[Any] | None) -> str:
    return "[a summary](#summaries)" if record is None else f"[{record.__name__}](#{record.__name__.lower()})"


def _record(record: type[Any]) -> list[str]:
    told = " ".join((inspect.getdoc(record) or "").split()).replace("``", "`")
    if record is Service:
        return [told, "Its keys are those of [the configuration](configuration.md#servicesname)."]
    comments = dict(re.findall(r"^ {4}(\w+): [^#\n]*#: (.+)$", inspect.getsource(record), flags=re.M))
    rows = [" | ".join((f"| `{field.encode_name}`", _kind(field.type), "" if field.required else _default(field),
                        comments.get(field.name, "").replace("``", "`"), "")).rstrip(" ")
            for field in msgspec.structs.fields(record)]
    return [told, "\n".join(("| key | type | default | meaning |", "|---|---|---|---|", *rows))]


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{msgspec.json.encode(value).decode()}`"


def _kind(kind: Any) -> str:
    schema = msgspec.json.schema(kind)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        inner = schema["$defs"][name]
        return ", ".join(f"`{each}`" for each in inner["enum"]) if "enum" in inner else name
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join("null" if each is NoneType else _kind(each) for each in get_args(kind))
    if schema.get("type") == "array":
        return f"array of {schema.get('items', {}).get('type', 'objects')}s"
    return str(schema.get("type", "anything"))
