"""Where everything lies in the store: one typed place for each key, built and parsed both ways.

    /txdirector/<cluster>/services/<service>                                a service with its groups and hosts
    /txdirector/<cluster>/boot/<service>                                    the same as the node's file last said it
    /txdirector/<cluster>/registered/<service>/<group>/<host>               a host that joined through its agent
    /txdirector/<cluster>/admin/<service>/<group>/<host>/<operator|agent>   an order about a host
    /txdirector/<cluster>/observed/<director>/<service>/<group>/<host>      a state other than up, as a director sees it
    /txdirector/<cluster>/load/<director>                                   a summary, for inspection
    /txdirector/<cluster>/directors/<director>                              membership
    /txdirector/<cluster>/leader                                            who leads
    /txdirector/<cluster>/leader/beat                                       that it lives, while a promise is missing
    /txdirector/<cluster>/vips/<address>                                    a virtual IP address and its owner
    /txdirector/<cluster>/reigns/<address>                                  who owns it, where each has an owner of its own
    /txdirector/<cluster>/reigns/<address>/beat                             that the owner lives, while a promise is missing
    /txdirector/<cluster>/placements/<address>                              where operators want it
    /txdirector/<cluster>/caps/<service>                                    shares of a service's maximum
    /txdirector/<cluster>/users/<name>                                      an operator
    /txdirector/<cluster>/audit/<time>                                      what somebody did

``boot`` exists only in embedded stores. Names are `cluster.model.NAME_PATTERN`; where a host listens is a field of
its value, never part of its key. Every prefix ends in ``/``, so that listing one service never meets another whose
name merely begins the same.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias, get_args

from cluster.errors import Misuse
from cluster.model import NAME_PATTERN, HostRef

By = Literal["operator", "agent"]

#: Of all clusters.
ROOT = "/txdirector/"

_NAME = re.compile(NAME_PATTERN)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AUDIT_TIME = "%Y%m%dT%H%M%S.%fZ"  # of one width, so that keys sort by time
_AUDIT_TIME_SHAPE = re.compile(r"\d{8}T\d{6}\.\d{6}Z", re.ASCII)


class ServiceKey(NamedTuple):
    service: str


class BootKey(NamedTuple):
    service: str


class RegisteredKey(NamedTuple):
    ref: HostRef


class AdminKey(NamedTuple):
    ref: HostRef
    by: By


class ObservedKey(NamedTuple):
    director: str
    ref: HostRef


class LoadKey(NamedTuple):
    director: str


class DirectorKey(NamedTuple):
    director: str


class LeaderKey(NamedTuple):
    pass


class LeaderBeatKey(NamedTuple):
    pass


class VipKey(NamedTuple):
    address: str  #: as `ipaddress` writes it


class ReignKey(NamedTuple):
    address: str


class ReignBeatKey(NamedTuple):
    address: str


class PlacementKey(NamedTuple):
    address: str


class CapsKey(NamedTuple):
    service: str


class UserKey(NamedTuple):
    name: str


class AuditKey(NamedTuple):
    at_us: int  #: POSIX microseconds


Place: TypeAlias = (
    ServiceKey | BootKey | RegisteredKey | AdminKey | ObservedKey | LoadKey | DirectorKey | LeaderKey
    | LeaderBeatKey | VipKey | ReignKey | ReignBeatKey | PlacementKey | CapsKey | UserKey | AuditKey
)


_OF_ADDRESSES: dict[str, type[VipKey | ReignKey | PlacementKey]] = {
    "vips": VipKey, "reigns": ReignKey, "placements": PlacementKey,
}


class Keys:
    """The keys of one cluster. Builders raise `Misuse` for what is not a name; `parse` is the inverse of them all."""

    def __init__(self, cluster: str) -> None:
        self.root = f"{ROOT}{_name(cluster)}/"

    # --- one key ---

    def service(self, service: str) -> str:
        return self._key("services", service)

    def boot(self, service: str) -> str:
        return self._key("boot", service)

    def registered(self, ref: HostRef) -> str:
        return self._key("registered", *ref)

    def admin(self, ref: HostRef, by: By) -> str:
        if by not in get_args(By):
            raise Misuse(f"orders come from {' or '.join(get_args(By))}, not from {by!r}")
        return self._key("admin", *ref, by)

    def observed(self, director: str, ref: HostRef) -> str:
        return self._key("observed", director, *ref)

    def load(self, director: str) -> str:
        return self._key("load", director)

    def director(self, director: str) -> str:
        return self._key("directors", director)

    def leader(self) -> str:
        return self._key("leader")

    def leader_beat(self) -> str:
        return self._key("leader", "beat")

    def vip(self, address: str) -> str:
        return f"{self.root}vips/{_ip(address)}"

    def reign(self, address: str) -> str:
        return f"{self.root}reigns/{_ip(address)}"

    def reign_beat(self, address: str) -> str:
        return f"{self.root}reigns/{_ip(address)}/beat"

    def placement(self, address: str) -> str:
        return f"{self.root}placements/{_ip(address)}"

    def caps(self, service: str) -> str:
        return self._key("caps", service)

    def user(self, name: str) -> str:
        return self._key("users", name)

    def audit(self, at_us: int) -> str:
        """One entry for each microsecond: write it create-if-absent, and take the next when it is taken."""
        try:
            at = _EPOCH + timedelta(microseconds=at_us)
        except OverflowError:
            raise Misuse(f"{at_us} µs is beyond the calendar") from None
        return f"{self.root}audit/{at.year:04}{at.strftime(_AUDIT_TIME.removeprefix('%Y'))}"

    # --- many keys ---

    def services(self) -> str:
        return f"{self.root}services/"

    def boots(self) -> str:
        return f"{self.root}boot/"

    def registered_hosts(self, service: str | None = None, group: str | None = None) -> str:
        return self._prefix("registered", service, group)

    def orders(self, service: str | None = None, group: str | None = None, host: str | None = None) -> str:
        return self._prefix("admin", service, group, host)

    def observations(self, director: str | None = None) -> str:
        return self._prefix("observed", director)

    def loads(self) -> str:
        return f"{self.root}load/"

    def directors(self) -> str:
        return f"{self.root}directors/"

    def vips(self) -> str:
        return f"{self.root}vips/"

    def placements(self) -> str:
        return f"{self.root}placements/"

    def all_caps(self) -> str:
        return f"{self.root}caps/"

    def users(self) -> str:
        return f"{self.root}users/"

    def audits(self) -> str:
        return f"{self.root}audit/"

    # --- back ---

    def parse(self, key: str) -> Place | None:
        """What *key* names; None for what no builder of this cluster makes."""
        if not key.startswith(self.root):
            return None
        kind, *parts = key.removeprefix(self.root).split("/")
        if kind in _OF_ADDRESSES:
            return _of_address(kind, parts)
        if not all(_NAME.search(part) for part in parts):
            return None
        match kind, *parts:
            case "services", service:
                return ServiceKey(service)
            case "boot", service:
                return BootKey(service)
            case "registered", service, group, host:
                return RegisteredKey(HostRef(service, group, host))
            case "admin", service, group, host, ("operator" | "agent") as by:
                return AdminKey(HostRef(service, group, host), by)
            case "observed", director, service, group, host:
                return ObservedKey(director, HostRef(service, group, host))
            case "load", director:
                return LoadKey(director)
            case "directors", director:
                return DirectorKey(director)
            case "leader",:
                return LeaderKey()
            case "leader", "beat":
                return LeaderBeatKey()
            case "caps", service:
                return CapsKey(service)
            case "users", name:
                return UserKey(name)
            case "audit", text:
                return _parse_audit(text)
        return None

    def _key(self, kind: str, *names: str) -> str:
        return self.root + "/".join((kind, *map(_name, names)))

    def _prefix(self, kind: str, *names: str | None) -> str:
        given = [name for name in names if name is not None]
        if tuple(given) != names[:len(given)]:
            raise Misuse(f"{kind}: a part of the prefix is missing")
        return self._key(kind, *given) + "/"


class AddressKeys(Keys):
    """Of one virtual address that has an owner of its own: its record and beat lie where `cluster.takeover` looks for those
    of the leadership."""

    def __init__(self, keys: Keys, address: str) -> None:
        self.root = keys.root
        self.address = _ip(address)

    def leader(self) -> str:
        return self.reign(self.address)

    def leader_beat(self) -> str:
        return self.reign_beat(self.address)


def _name(text: str) -> str:
    if not _NAME.search(text):
        raise Misuse(f"{text!r} is not a name: 1 to 63 letters, digits, '.', '_' or '-'")
    return text


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Misuse(f"{text!r} is not an IP address") from None


def _canonical_ip(text: str) -> bool:
    try:
        return str(ipaddress.ip_address(text)) == text
    except ValueError:
        return False


def _of_address(kind: str, parts: list[str]) -> VipKey | ReignKey | ReignBeatKey | PlacementKey | None:
    match parts:
        case address,:
            return _OF_ADDRESSES[kind](address) if _canonical_ip(address) else None
        case address, "beat" if kind == "reigns":
            return ReignBeatKey(address) if _canonical_ip(address) else None
    return None


def _parse_audit(text: str) -> AuditKey | None:
    if not _AUDIT_TIME_SHAPE.fullmatch(text):
        return None
    try:
        at = datetime.strptime(text, _AUDIT_TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return AuditKey((at - _EPOCH) // timedelta(microseconds=1))
