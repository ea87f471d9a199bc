"""Operations on the configuration: services, groups and hosts are made, replaced and deleted.

Each change is a function from a service to what it shall be; the director compares and swaps the whole service, which
is the unit of atomicity. All answer the revision of the change. With *revision*, a change is made only to the
service as it was then.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from cluster.model import Configuration, Count, Group, Host, HostRef, Name, Port, Service, Weight
from cluster.validate import attempt, join
from director.admin.offers import Edit, Operations, Stored
from director.admin.operation import Caller, OfGroup, OfHost, OfService, Parameters, Role, operation
from director.admin.text import Text
from director.config.files import SHORTHANDS, dump_toml
from director.engine.errors import Conflict, NotFound, Wrong

_T = TypeVar("_T")

Format = Literal["json", "toml"]


def _of(model: str) -> Meta:
    """A document of *model*, checked with the file's own words and not by its type alone."""
    return Meta(extra_json_schema={"$ref": f"#/components/schemas/{model}"})


class Formatted(Parameters, frozen=True, kw_only=True):
    format: Format = "json"


class PutService(OfService, frozen=True, kw_only=True):
    spec: Annotated[dict[str, Any], _of("Service")]
    revision: Count | None = None


class NewService(OfService, frozen=True, kw_only=True):
    spec: Annotated[dict[str, Any], _of("Service")] = msgspec.field(default_factory=dict)


class DelService(OfService, frozen=True, kw_only=True):
    revision: Count | None = None


class NewGroup(OfGroup, frozen=True, kw_only=True):
    spec: Annotated[dict[str, Any], _of("Group")] = msgspec.field(default_factory=dict)
    revision: Count | None = None


class ChangeGroup(OfGroup, frozen=True, kw_only=True):
    revision: Count | None = None


class SplitService(OfService, frozen=True, kw_only=True):
    shares: dict[Name, Weight] = msgspec.field(default_factory=dict)
    revision: Count | None = None


class ChangeScheduler(OfGroup, frozen=True, kw_only=True):
    scheduler: Annotated[str, Meta(max_length=63)]
    parameters: dict[str, float | int | str | bool] = msgspec.field(default_factory=dict)
    revision: Count | None = None


class PutHost(OfHost, frozen=True, kw_only=True):
    address: Annotated[str, Meta(max_length=300)]  #: a DNS name has at most 253
    weight: Weight = 1.0
    max_connections: Count = 0
    backup: bool = False
    probe_port: Port | None = None
    revision: Count | None = None


class DelHost(OfHost, frozen=True, kw_only=True):
    revision: Count | None = None


class _Conditional(Protocol):
    """Parameters of a change that may be made for one revision only."""

    @property
    def service(self) -> str: ...

    @property
    def revision(self) -> int | None: ...


class Changed(msgspec.Struct, frozen=True):
    """What a change of the configuration answers."""

    revision: int  #: of the store; what the service has now


# --- looking

@operation(Role.READONLY, Formatted)
async def config_running(director: Operations, caller: Caller, p: Formatted) -> dict[str, Stored] | Text:
    """All services as stored, each with its revision; as TOML, what a file would say."""
    stored = dict(await director.stored())
    if p.format == "json":
        return stored
    return Text(dump_toml(Configuration(services={name: each.spec for name, each in stored.items()})), "application/toml")


@operation(Role.READONLY, Formatted)
def config_boot(director: Operations, caller: Caller, p: Formatted) -> Configuration | Text:
    """The node's own file as it was read at the start, without its secrets."""
    boot = redacted(director.boot())
    return boot if p.format == "json" else Text(dump_toml(boot), "application/toml")


@operation(Role.READONLY, OfService)
async def spec(director: Operations, caller: Caller, p: OfService) -> Stored:
    """One service as stored, with its revision."""
    stored = (await director.stored()).get(p.service)
    if stored is None:
        raise NotFound(f"no service is called {p.service!r}")
    return stored


# --- services

@operation(Role.FULL, PutService)
async def put_service(director: Operations, caller: Caller, p: PutService) -> Changed:
    """Make a service what the document says; revision 0: only if there is none yet."""
    wanted = _read(p.spec, Service, join("services", p.service))
    return await _change(director, p, lambda _: wanted)


@operation(Role.FULL, NewService)
async def new_service(director: Operations, caller: Caller, p: NewService) -> Changed:
    """Make a service that is not there yet, and listen."""
    wanted = _read(p.spec, Service, join("services", p.service))

    def change(before: Service | None) -> Service:
        if before is not None:
            raise Conflict(f"there is a service {p.service!r} already")
        return wanted

    return Changed(await director.change(p.service, change))


@operation(Role.FULL, DelService)
async def del_service(director: Operations, caller: Caller, p: DelService) -> Changed:
    """Delete a service with its groups and hosts; its open connections go on, listed and cut under its name."""

    def change(before: Service | None) -> None:
        _there(before, p.service)

    return await _change(director, p, change)


# --- groups

@operation(Role.FULL, NewGroup)
async def new_group(director: Operations, caller: Caller, p: NewGroup) -> Changed:
    """Make a group; it answers once it is enabled, or if it is the service's first."""
    wanted = _read(p.spec, Group, join("services", p.service, "groups", p.group))

    def change(before: Service | None) -> Service:
        service = _there(before, p.service)
        if p.group in service.groups:
            raise Conflict(f"there is a group {p.group!r} in service {p.service!r} already")
        return _with_group(service, p.group, wanted)

    return await _change(director, p, change)


@operation(Role.FULL, ChangeGroup)
async def del_group(director: Operations, caller: Caller, p: ChangeGroup) -> Changed:
    """Delete a group that is not enabled and has no share of clients; its open connections go on."""

    def change(before: Service | None) -> Service:
        service = _there(before, p.service)
        _not_enabled(service, p)
        groups = {name: group for name, group in service.groups.items() if name != p.group}
        return replace(service, groups=groups)

    return await _change(director, p, change)


@operation(Role.FULL, ChangeGroup)
async def enable_group(director: Operations, caller: Caller, p: ChangeGroup) -> Changed:
    """Let a group answer alone, which ends a split of clients; open connections go on where they are."""

    def change(before: Service | None) -> Service:
        service = _there(before, p.service)
        _group(service, p)
        return replace(service, enable=p.group, split={})

    return await _change(director, p, change)


@operation(Role.FULL, SplitService)
async def split_service(director: Operations, caller: Caller, p: SplitService) -> Changed:
    """Split new clients among groups by their shares; without any all go to the enabled group again."""

    def change(before: Service | None) -> Service:
        return replace(_there(before, p.service), split=p.shares)

    return await _change(director, p, change)


@operation(Role.FULL, ChangeScheduler)
async def change_scheduler(director: Operations, caller: Caller, p: ChangeScheduler) -> Changed:
    """Choose a group's hosts by another scheduler, or with other parameters, from the next client on."""

    def change(before: Service | None) -> Service:
        service = _there(before, p.service)
        group = replace(_group(service, p), scheduler=p.scheduler, parameters=p.parameters)
        return _with_group(service, p.group, group)

    return await _change(director, p, change)


# --- hosts

@operation(Role.FULL, PutHost)
async def put_host(director: Operations, caller: Caller, p: PutHost) -> Changed:
    """Add a host, or replace its configuration."""
    wanted = Host(address=p.address, weight=p.weight, max_connections=p.max_connections, backup=p.backup,
                  probe_port=p.probe_port)

    def change(before: Service | None) -> Service:
        service = _there(before, p.service)
        group = _group(service, p)
        return _with_group(service, p.group, replace(group, hosts={**group.hosts, p.host: wanted}))

    return await _change(director, p, change)


@operation(Role.FULL, DelHost)
async def del_host(director: Operations, caller: Caller, p: DelHost) -> Changed:
    """Take a host out of its group for good; its open connections go on."""
    if p.revision is None:
        forgotten = await _forget(director, p.ref)
        if forgotten is not None:
            return Changed(forgotten)

    def change(before: Service | None) -> Service:
        service = _there(before, p.service)
        group = _group(service, p)
        if p.host not in group.hosts:
            raise NotFound(f"no host is called {p.host!r} in {p.service}/{p.group}")
        hosts = {name: host for name, host in group.hosts.items() if name != p.host}
        return _with_group(service, p.group, replace(group, hosts=hosts))

    return await _change(director, p, change)


@operation(Role.FULL, ChangeGroup)
async def del_all_hosts(director: Operations, caller: Caller, p: ChangeGroup) -> Changed:
    """Empty a group that is not enabled and has no share of clients of its configured hosts; open connections go on."""

    def change(before: Service | None) -> Service:
        service = _there(before, p.service)
        _not_enabled(service, p)
        return _with_group(service, p.group, replace(_group(service, p), hosts={}))

    return await _change(director, p, change)


# --- what they share

async def _change(director: Operations, p: _Conditional, change: Edit) -> Changed:
    return Changed(await director.change(p.service, change, revision=p.revision))


async def _forget(director: Operations, ref: HostRef) -> int | None:
    """Only of a host that is in its group by registration alone: a configured one hides its registration."""
    picture = director.picture(*ref).host(*ref)
    if picture is None or not picture.registered:
        return None
    return await director.forget(ref)


def _read(data: object, kind: type[_T], place: str) -> _T:
    """:raises Wrong: *data* is no such document."""
    value, problems = attempt(data, kind, place, shorthands=SHORTHANDS)
    if problems:
        raise Wrong(problems)
    return value


def _there(service: Service | None, name: str) -> Service:
    if service is None:
        raise NotFound(f"no service is called {name!r}")
    return service


def _group(service: Service, p: OfGroup) -> Group:
    group = service.groups.get(p.group)
    if group is None:
        raise NotFound(f"no group is called {p.group!r} in service {p.service!r}")
    return group


def _not_enabled(service: Service, p: OfGroup) -> None:
    _group(service, p)
    if service.enabled_group == p.group:
        raise Conflict(f"{p.group!r} is the enabled group of {p.service!r}; enable another one first")
    if p.group in service.split:
        raise Conflict(f"{p.group!r} has a part in the split of {p.service!r}'s clients; split them without it first")


def _with_group(service: Service, name: str, group: Group) -> Service:
    return replace(service, groups={**service.groups, name: group})


def redacted(configuration: Configuration) -> Configuration:
    """*configuration* with every password's and token's hash struck out, and of hooks' URLs, which may be secrets, all but
    where they lead."""
    node = configuration.node
    users = {name: replace(user, password=REDACTED) for name, user in node.admin.users.items()}
    identities = {
        name: identity if identity.token_sha256 is None else replace(identity, token_sha256=REDACTED)
        for name, identity in node.agents.identities.items()
    }
    hooks = {name: hook if hook.url is None else replace(hook, url=f"{hook.url.partition('//')[0]}//"
                                                         f"{urlsplit(hook.url).netloc}/{REDACTED}")
             for name, hook in node.hooks.items()}
    return replace(configuration, node=replace(
        node, admin=replace(node.admin, users=users), agents=replace(node.agents, identities=identities), hooks=hooks
    ))


#: What stands for a secret.
REDACTED = "redacted"
