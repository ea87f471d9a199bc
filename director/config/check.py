"""What types cannot tell about a configuration: references, addresses, combinations, safety.

Pure: whether files can be read is asked through a function. Errors keep a director from starting; warnings do not.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from cluster.address import Address, parse_address
from cluster.errors import Problem
from cluster.model import (
    TLS,
    AgentListeners,
    Configuration,
    Group,
    Host,
    Identity,
    Manhole,
    Node,
    Peers,
    Probe,
    Service,
    Vips,
)
from cluster.validate import did_you_mean, join
from director.core.access import UNIX_PEERS, parse_networks
from director.core.schedulers import check_parameters
from director.ports.binding import BACKLOG
from director.resources.places import divide

#: The store that directors share.
ETCD = "etcd:"
#: Says why a file cannot be read; empty when it can.
Unreadable = Callable[[str], str]

_HOST_PATTERN_PART = re.compile(r"[A-Za-z0-9._*-]{1,63}")
_WILDCARDS = ("0.0.0.0", "::")
#: A name's addresses are not looked up here; this one's are known.
_LOCALHOST = ({"localhost", "127.0.0.1"}, {"localhost", "::1"})
#: Descriptors for fewer clients than wait in one listener's backlog are worth a word.
FEW_CLIENTS = 4_096


def errors(configuration: Configuration, *, unreadable: Unreadable) -> list[Problem]:
    """Everything that keeps *configuration* from being used."""
    return [
        *_node_errors(configuration.node, unreadable),
        *(problem for name, service in configuration.services.items() for problem in service_errors(name, service)),
        *_shared_listeners(configuration),
    ]


def warnings(configuration: Configuration, *, descriptors: float = math.inf,
             ours: Callable[[str], bool] = lambda ip: True, backlog: int = BACKLOG) -> list[Problem]:
    """What is allowed but probably not meant.

    :param descriptors: that a director may have open on this machine.
    :param ours: whether an IP address is this machine's.
    :param backlog: what a listener is granted of the one it asks for.
    """
    found = [*_places_warnings(configuration, descriptors)]
    if "balance" in configuration.node.roles and backlog < BACKLOG:
        found.append(Problem("node.roles", f"net.core.somaxconn is {backlog}: so many clients may wait at a listener, which "
                             f"asks for {BACKLOG}; the handshakes of more are dropped when many come at once",
                             f"sysctl net.core.somaxconn={BACKLOG}"))
    if configuration.node.store != ETCD:
        found += _source_warnings(configuration, ours)
    if configuration.node.store == ETCD:
        if configuration.services:
            found.append(Problem(
                "services", f"not used: with store = \"{ETCD}\" the services are those in etcd",
                "`director bootstrap` puts them into an empty cluster, `directorctl apply` changes what is there"))
        return found
    if not configuration.services:
        found.append(Problem("services", "there is no service"))
    for name, service in configuration.services.items():
        found += _service_warnings(join("services", name), service, configuration.node.agents)
    return found


def _places_warnings(configuration: Configuration, descriptors: float) -> Iterator[Problem]:
    """Whether there are descriptors for as many clients as are let in."""
    services = configuration.services
    if "balance" not in configuration.node.roles or configuration.node.store == ETCD:
        return
    hosts = sum(len(group.hosts) for service in services.values() for group in service.groups.values())
    clients = divide(descriptors, agents=hosts if configuration.node.agents.listen else 0).clients
    has_room = f"the hard limit of {descriptors:g} descriptors has room for {clients:g}"
    hint = "raise it with LimitNOFILE= in the systemd unit, or ulimit -Hn; clients beyond it wait in the backlog"
    wanted = sum(service.limits.max_connections for service in services.values())
    if wanted > clients:
        yield Problem("services", f"max_connections add up to {wanted}, and {has_room} clients", hint)
    elif clients < FEW_CLIENTS and any(not service.limits.max_connections for service in services.values()):
        yield Problem("services", f"not every service has max_connections, and {has_room} clients", hint)


def _source_warnings(configuration: Configuration, ours: Callable[[str], bool]) -> Iterator[Problem]:
    for name, service in configuration.services.items():
        for group_name, group in service.groups.items():
            for i, source in enumerate(group.source):
                if not ours(source):
                    yield Problem(join("services", name, "groups", group_name, "source", i),
                                  f"{source} is no address of this machine: nothing can be connected from it")


def service_errors(name: str, service: Service) -> Iterator[Problem]:
    """Everything wrong with one service and its groups; what the cluster's `apply` needs to know too."""
    place = join("services", name)
    yield from _addresses(join(place, "listen"), service.listen, any_port=True)
    if service.enable is not None and service.enable not in service.groups:
        yield Problem(
            join(place, "enable"), f"there is no group {service.enable!r}", did_you_mean(service.enable, service.groups)
        )
    for key, networks in (
        ("proxy.accept_from", service.proxy.accept_from),
        ("access.allow", service.access.allow),
        ("access.deny", service.access.deny),
    ):
        yield from _networks(f"{place}.{key}", networks, word=UNIX_PEERS if key.startswith("proxy") else "")
    for group_name, group in service.groups.items():
        yield from _group_errors(join(place, "groups", group_name), group)


# --- groups -----------------------------------------------------------------------------------------------


def _group_errors(place: str, group: Group) -> Iterator[Problem]:
    for name, host in group.hosts.items():
        yield from _address(join(place, "hosts", name, "address"), host.address)
        yield from _probe_port_errors(join(place, "hosts", name), host, group.health.probe)
    unknown = check_parameters(group.scheduler, {})
    yield from (Problem(join(place, "scheduler"), message) for message in unknown)
    if not unknown:
        for key, value in group.parameters.items():
            for message in check_parameters(group.scheduler, {key: value}):
                yield Problem(join(place, "parameters", key), message)
    health = join(place, "health")
    if group.health.suspect_after_s >= group.health.timeout_s:
        yield Problem(
            join(health, "suspect_after_s"),
            f"{group.health.suspect_after_s:g} s is not below timeout_s ({group.health.timeout_s:g} s)",
            "a host must be suspect before it can be out",
        )
    yield from _probe_errors(join(health, "probe"), group.health.probe)
    yield from _networks(join(place, "registration", "networks"), group.registration.networks)
    yield from _source_errors(join(place, "source"), group)


def _source_errors(place: str, group: Group) -> Iterator[Problem]:
    families: set[int] = set()
    for i, text in enumerate(group.source):
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            yield Problem(join(place, i), f"expected an IP address, got {text!r}")
            continue
        families.add(ip.version)
        if ip.is_multicast or ip.is_unspecified:
            yield Problem(join(place, i), f"nothing can be connected from {ip}")
        if text in group.source[:i]:
            yield Problem(join(place, i), f"{text} is there already")
    for name, host in group.hosts.items():
        address, _ = _parsed(place, host.address)
        if families and address is not None and address.is_ip:
            version = ipaddress.ip_address(address.host).version
            if version not in families:
                yield Problem(place, f"none is an IPv{version} address, as that of host {name!r} is")


def _probe_port_errors(place: str, host: Host, probe: Probe) -> Iterator[Problem]:
    address, _ = _parsed(place, host.address)
    if host.probe_port is not None and probe.address is not None:
        yield Problem(join(place, "probe_port"), "the group's probe has an address of its own, which goes for every host",
                      "remove one of the two")
    elif address is not None and address.is_unix and host.probe_port is not None:
        yield Problem(join(place, "probe_port"), "a UNIX socket has no port")
    elif address is not None and address.is_unix and probe.port is not None:
        yield Problem(join(place, "address"), "the group's probe has a port, and a UNIX socket has none")


def _probe_errors(place: str, probe: Probe) -> Iterator[Problem]:
    if probe.address is not None:
        yield from _address(join(place, "address"), probe.address)
        if probe.port is not None:
            yield Problem(join(place, "port"), "the probe's address has a port already", "remove one of the two")
    if not re.fullmatch(r"/[!-~]*", probe.path):
        yield Problem(
            join(place, "path"),
            "expected a path that begins with / and has no blanks",
            "percent-encode other characters",
        )
    if probe.host_header is not None and not re.fullmatch(r"[!-~]+", probe.host_header):
        yield Problem(join(place, "host_header"), "expected a host name, perhaps with a port")


def _service_warnings(place: str, service: Service, agents: AgentListeners) -> Iterator[Problem]:
    if not service.listen:
        yield Problem(join(place, "listen"), "nothing can connect: there is no listener")
    if not service.groups:
        yield Problem(join(place, "groups"), "nothing can answer: there is no group")
    for name, group in service.groups.items():
        here = join(place, "groups", name)
        hosts = group.hosts.values()
        if service.sticky is not None and service.sticky.mode == "hash" and group.scheduler == "maglev":
            yield Problem(join(place, "sticky"), f"group {name!r} is scheduled by maglev, which is sticky by itself")
        if not hosts and group.registration.mode == "off":
            yield Problem(join(here, "hosts"), "no hosts, and none can register")
        if hosts and all(host.weight == 0 for host in hosts):
            yield Problem(join(here, "hosts"), "every host has weight 0: none takes connections")
        if group.registration.mode != "off" and not agents.listen:
            yield Problem(join(here, "registration", "mode"), "hosts may register, but node.agents.listen is empty")
        if agents.listen and agents.interval_s >= group.health.suspect_after_s:
            yield Problem(
                join(here, "health", "suspect_after_s"),
                f"every host will look suspect: agents report only every {agents.interval_s:g} s",
                "allow for two or three reports",
            )
        owners: dict[str, str] = {}
        for host_name, host in group.hosts.items():
            if (owner := owners.setdefault(host.address, host_name)) != host_name:
                yield Problem(join(here, "hosts", host_name), f"same address as host {owner!r}")


# --- the node ---------------------------------------------------------------------------------------------


def _etcd_errors(node: Node, unreadable: Unreadable) -> Iterator[Problem]:
    etcd, used = node.etcd, node.store == ETCD
    if used and not etcd.endpoints:
        yield Problem("node.etcd.endpoints", "at least one is needed")
    if etcd.endpoints and not used:
        yield Problem("node.store", "node.etcd is there, but not used", 'store = "etcd:" uses it')
    yield from _addresses("node.etcd.endpoints", etcd.endpoints)
    if (etcd.certificate is None) is not (etcd.key is None):
        yield Problem("node.etcd", "certificate and key belong together")
    if etcd.certificate is not None and etcd.ca is None:
        yield Problem("node.etcd.ca", "missing", "a certificate is shown only over TLS")
    if (etcd.user is None) is not (etcd.password_file is None):
        yield Problem("node.etcd", "user and password_file belong together")
    for key in ("ca", "certificate", "key", "password_file"):
        path = getattr(etcd, key)
        if path is not None and (why := unreadable(path)):
            yield Problem(f"node.etcd.{key}", f"{path}: {why}")


def _node_errors(node: Node, unreadable: Unreadable) -> Iterator[Problem]:
    if not re.fullmatch(r"memory:|file:/.+|etcd:", node.store):
        yield Problem("node.store", "expected memory:, file:/path or etcd:", "the path must be absolute")
    yield from _etcd_errors(node, unreadable)
    if not node.roles:
        yield Problem("node.roles", "a director without a role does nothing", 'give it "balance", "manage" or both')
    if not node.log.target:
        yield Problem("node.log.target", "expected stderr, stdout or a file's path")
    for i, text in enumerate(node.resolvers):
        address, problems = _parsed(join("node.resolvers", i), text)
        yield from problems
        if address is not None and not address.is_ip:
            yield Problem(join("node.resolvers", i), "a resolver needs an IP address")
    yield from _agents_errors(node.agents, unreadable)
    yield from _peers_errors(node.peers, unreadable)
    yield from _vips_errors(node.vips)
    yield from _manhole_errors(node.manhole, unreadable)
    if node.control_socket is not None:
        yield from _address("node.control_socket", f"unix:{node.control_socket}")
    if node.vip_on_isolation == "keep" and node.peers.listen is None:
        yield Problem("node.vip_on_isolation", '"keep" needs the other directors\' promises', "set node.peers.listen")
    admin = node.admin
    if admin.htpasswd is not None and (why := unreadable(admin.htpasswd)):
        yield Problem("node.admin.htpasswd", f"cannot read {admin.htpasswd}: {why}")
    for i, endpoint in enumerate(admin.endpoints):
        place = join("node.admin.endpoints", i)
        address, problems = _parsed(join(place, "listen"), endpoint.listen, any_port=True)
        yield from problems
        yield from _tls_errors(join(place, "tls"), endpoint.tls, unreadable)
        if address is None or address.is_loopback:
            continue
        if not admin.users and admin.htpasswd is None:
            yield Problem(
                join(place, "listen"),
                f"{address} is reachable from outside, and there are no users",
                "add [node.admin.users.NAME] or htpasswd, or listen on loopback",
            )
        if endpoint.tls is None and not admin.insecure:
            yield Problem(
                join(place, "listen"),
                f"{address} would send passwords in plaintext",
                "add tls, listen on loopback, or set node.admin.insecure = true",
            )


def _agents_errors(agents: AgentListeners, unreadable: Unreadable) -> Iterator[Problem]:
    for i, text in enumerate(agents.listen):
        place = join("node.agents.listen", i)
        address, problems = _parsed(place, text, any_port=True)
        yield from problems
        if address is None or address.is_loopback:
            continue
        if agents.tls is None and not agents.insecure:
            yield Problem(
                place,
                f"{address} would take agents' tokens in plaintext",
                "add [node.agents.tls], listen on loopback, or set node.agents.insecure = true",
            )
        if not agents.identities:
            yield Problem(
                place,
                f"{address} is reachable from outside, and without identities anyone may report",
                "add [node.agents.identities.NAME], or listen on loopback",
            )
    yield from _addresses("node.agents.advertise", agents.advertise)
    yield from _tls_errors("node.agents.tls", agents.tls, unreadable)
    owners: dict[tuple[str, str], str] = {}
    for name, identity in agents.identities.items():
        place = join("node.agents.identities", name)
        yield from _identity_errors(place, identity, agents)
        for key in ("token_sha256", "certificate_name"):
            proof = getattr(identity, key)
            owner = owners.setdefault((key, proof), name)
            if proof is not None and owner != name:
                yield Problem(join(place, key), f"identity {owner!r} has the same one", "each needs a proof of its own")


def _identity_errors(place: str, identity: Identity, agents: AgentListeners) -> Iterator[Problem]:
    if (identity.token_sha256 is None) is (identity.certificate_name is None):
        yield Problem(
            place,
            "expected exactly one of token_sha256 and certificate_name",
            "`director token` prints a token and its line",
        )
    if identity.certificate_name is not None and (agents.tls is None or agents.tls.client_ca is None):
        yield Problem(
            join(place, "certificate_name"), "certificates are not asked for", "set node.agents.tls.client_ca"
        )
    for i, pattern in enumerate(identity.hosts):
        parts = pattern.split("/")
        if len(parts) != 3 or not all(_HOST_PATTERN_PART.fullmatch(part) for part in parts):
            yield Problem(
                join(place, "hosts", i), f"{pattern!r} is not service/group/host", "* stands for anything within a part"
            )


def _peers_errors(peers: Peers, unreadable: Unreadable) -> Iterator[Problem]:
    yield from _tls_errors("node.peers.tls", peers.tls, unreadable)
    if peers.secret_file is not None and (why := unreadable(peers.secret_file)):
        yield Problem("node.peers.secret_file", f"cannot read {peers.secret_file}: {why}")
    if peers.tls is not None and peers.tls.client_ca is None:
        yield Problem("node.peers.tls.client_ca", "missing", "directors prove who they are by their certificates")
    if peers.tls is not None and peers.certificate_domain is None:
        yield Problem("node.peers.certificate_domain", "missing", "it tells a director's certificate from an agent's")
    for place, text in (("node.peers.listen", peers.listen), ("node.peers.advertise", peers.advertise)):
        address, problems = (None, []) if text is None else _parsed(place, text, any_port=place.endswith("listen"))
        yield from problems
        if address is not None and address.is_unix:
            yield Problem(place, "other directors connect by TCP")
        if address is not None and address.host in _WILDCARDS and peers.advertise in (None, text):
            yield Problem("node.peers.advertise", f"other directors cannot connect to {address.host}",
                          "give the address of this machine that they reach")
    if peers.listen is not None and peers.secret_file is None and peers.tls is None:
        yield Problem("node.peers", "expected secret_file, tls or both", "the other directors have to prove who they are")


def _vips_errors(vips: Vips) -> Iterator[Problem]:
    if vips.addresses and vips.interface is None:
        yield Problem("node.vips.interface", "missing", "the network interface that takes the addresses")
    if vips.interface is not None and not re.fullmatch(r"[^\s/]{1,15}", vips.interface):
        yield Problem("node.vips.interface", "expected the name of a network interface, as `ip link` shows it")
    owners: dict[object, str] = {}
    for i, text in enumerate(vips.addresses):
        place = join("node.vips.addresses", i)
        try:
            ip = ipaddress.ip_interface(text).ip
        except ValueError:
            yield Problem(place, f"expected an address like 10.0.0.100/24 or 2001:db8::100/64, got {text!r}")
            continue
        if "/" not in text:
            yield Problem(place, f"{text} has no prefix length",
                          f"write it as {text}/{64 if ip.version == 6 else 24}, with the length of the network's prefix")
        if ip.is_loopback or ip.is_multicast or ip.is_unspecified:
            yield Problem(place, f"{ip} cannot be moved between machines")
        if (owner := owners.setdefault(ip, place)) != place:
            yield Problem(place, f"{ip} is there already, as {owner}")


def _manhole_errors(manhole: Manhole, unreadable: Unreadable) -> Iterator[Problem]:
    if manhole.listen is None:
        return
    address, problems = _parsed("node.manhole.listen", manhole.listen, any_port=True)
    yield from problems
    if address is not None and address.is_unix:
        yield Problem("node.manhole.listen", "ssh connects by TCP")
    if manhole.host_key is None:
        yield Problem("node.manhole.host_key", "missing", "the path of a private key; it is made when there is none")
    if manhole.authorized_keys is None and not manhole.passwords:
        yield Problem("node.manhole", "nobody could enter", "set authorized_keys, or passwords = true")
    if manhole.authorized_keys is not None and (why := unreadable(manhole.authorized_keys)):
        yield Problem("node.manhole.authorized_keys", f"cannot read {manhole.authorized_keys}: {why}")


def _tls_errors(place: str, tls: TLS | None, unreadable: Unreadable) -> Iterator[Problem]:
    if tls is None:
        return
    for key, path in (("certificate", tls.certificate), ("key", tls.key), ("client_ca", tls.client_ca)):
        if path is not None and (why := unreadable(path)):
            yield Problem(join(place, key), f"cannot read {path}: {why}")


# --- addresses --------------------------------------------------------------------------------------------


class Listener(NamedTuple):
    place: str
    address: Address

    @property
    def _families(self) -> set[int]:
        """By IP version; a name may have both."""
        return {6 if ":" in self.address.host else 4} if self.address.is_ip else {4, 6}

    def clashes(self, other: Listener) -> bool:
        """Whether the kernel would refuse the second of the two. Port 0 means any free one."""
        mine, theirs = self.address, other.address
        if mine.is_unix or theirs.is_unix:
            return mine == theirs
        if mine.port != theirs.port or mine.port == 0 or self._families.isdisjoint(other._families):
            return False
        if mine.host == theirs.host or mine.host in _WILDCARDS or theirs.host in _WILDCARDS:
            return True
        return {mine.host, theirs.host} in _LOCALHOST


def _unfit(listener: Listener) -> Iterator[Problem]:
    """An address that nobody can listen on, though others may connect to it."""
    if not listener.address.is_ip:
        return
    ip = ipaddress.ip_address(listener.address.host)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            yield Problem(listener.place, f"{listener.address} is an IPv4 address written as IPv6",
                          f"write it as {ip.ipv4_mapped}:{listener.address.port}")
        if ip.is_link_local and ip.scope_id is None:
            yield Problem(listener.place, f"{listener.address} is of one link only, and does not say which",
                          f"name the interface, as [{ip}%eth0]:{listener.address.port}")
    if ip.is_multicast or ip == ipaddress.IPv4Address("255.255.255.255"):
        yield Problem(listener.place, f"{listener.address} is many machines' address: nobody connects to it by TCP")


def _shared_listeners(configuration: Configuration) -> Iterator[Problem]:
    """Listeners that cannot be had, or not beside another, wherever they are configured."""
    found = listeners(configuration)
    for listener in found:
        yield from _unfit(listener)
    for one, other in combinations(found, 2):
        if one.clashes(other):
            yield Problem(other.place, f"{other.address} is taken by {one.place} ({one.address})")


def listener_errors(name: str, service: Service, beside: Configuration) -> Iterator[Problem]:
    """The addresses of a service that it has twice, or that something else in *beside* has."""
    others = {other: spec for other, spec in beside.services.items() if other != name}
    taken: dict[object, list[Listener]] = {}  # by port or path: only these can clash
    for other in listeners(Configuration(node=beside.node, services=others)):
        taken.setdefault(other.address.path or other.address.port, []).append(other)
    for mine in listeners(Configuration(services={name: service})):
        yield from _unfit(mine)
        near = taken.setdefault(mine.address.path or mine.address.port, [])
        for other in near:
            if mine.clashes(other):
                yield Problem(mine.place, f"{mine.address} is taken by {other.place} ({other.address})")
        if mine.address.is_unix or mine.address.port:
            near.append(mine)


def listeners(configuration: Configuration) -> list[Listener]:
    """Every address that is configured to be listened on; malformed ones are left out."""
    socket = configuration.node.control_socket
    texts: Mapping[str, tuple[str, ...]] = {
        "node.agents.listen": configuration.node.agents.listen,
        **{join("services", name, "listen"): service.listen for name, service in configuration.services.items()},
    }
    wanted = [(join(place, i), text) for place, several in texts.items() for i, text in enumerate(several)]
    wanted += [
        (join("node.admin.endpoints", i, "listen"), endpoint.listen)
        for i, endpoint in enumerate(configuration.node.admin.endpoints)
    ]
    others = {
        "node.peers.listen": configuration.node.peers.listen,
        "node.manhole.listen": configuration.node.manhole.listen,
        "node.control_socket": socket and f"unix:{socket}",
    }
    wanted += [(place, text) for place, text in others.items() if text]
    return [
        Listener(place, address)
        for place, text in wanted
        if (address := _parsed(place, text, any_port=True)[0]) is not None
    ]


def _parsed(place: str, text: str, *, any_port: bool = False) -> tuple[Address | None, list[Problem]]:
    try:
        return parse_address(text, any_port=any_port), []
    except ValueError as error:
        return None, [Problem(place, str(error))]


def _address(place: str, text: str) -> list[Problem]:
    return _parsed(place, text)[1]


def _addresses(place: str, texts: tuple[str, ...], *, any_port: bool = False) -> Iterator[Problem]:
    for i, text in enumerate(texts):
        yield from _parsed(join(place, i), text, any_port=any_port)[1]


def _networks(place: str, texts: tuple[str, ...], *, word: str = "") -> Iterator[Problem]:
    """:param word: what is allowed besides."""
    for i, text in enumerate(texts):
        try:
            parse_networks([text] if text != word else ())
        except ValueError as error:
            yield Problem(join(place, i), str(error), "write it as 10.0.0.0/8 or 2001:db8::/32")
