"""What types cannot tell about a configuration: references, addresses, combinations, safety.

Pure: whether files can be read is asked through a function. Errors keep a director from starting; warnings do not.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterator

from cluster.address import Address
from cluster.errors import Problem
from cluster.model import (
    AgentListeners,
    Configuration,
    Group,
    Host,
    HostTLS,
    Probe,
    ProbeTLS,
    Service,
)
from cluster.validate import did_you_mean, join
from director.config.addresses import (
    address_errors,
    addresses_errors,
    networks_errors,
    parsed,
    shared_listeners,
    sharing_warnings,
)
from director.config.node import ETCD, Unreadable, hook_warnings, metrics_warnings, node_errors
from director.config.probing import asking_errors
from director.core.access import UNIX_PEERS
from director.core.schedulers import check_parameters
from director.ports.binding import BACKLOG
from director.resources.places import divide

#: Descriptors for fewer clients than wait in one listener's backlog are worth a word.
FEW_CLIENTS = 4_096


def errors(configuration: Configuration, *, unreadable: Unreadable) -> list[Problem]:
    """Everything that keeps *configuration* from being used."""
    return [
        *node_errors(configuration.node, unreadable),
        *(problem for name, service in configuration.services.items() for problem in service_errors(name, service)),
        *shared_listeners(configuration),
    ]


def warnings(configuration: Configuration, *, descriptors: float = math.inf,
             ours: Callable[[str], bool] = lambda ip: True, backlog: int = BACKLOG) -> list[Problem]:
    """What is allowed but probably not meant.

    :param descriptors: that a director may have open on this machine.
    :param ours: whether an IP address is this machine's.
    :param backlog: what a listener is granted of the one it asks for.
    """
    node = configuration.node
    found = [*_places_warnings(configuration, descriptors), *metrics_warnings(node.metrics), *hook_warnings(node.hooks)]
    if "balance" in configuration.node.roles and backlog < BACKLOG:
        found.append(Problem("node.roles", f"net.core.somaxconn is {backlog}: so many clients may wait at a listener, which "
                             f"asks for {BACKLOG}; the handshakes of more are dropped when many come at once",
                             f"sysctl net.core.somaxconn={BACKLOG}"))
    if configuration.node.store != ETCD:
        found += _source_warnings(configuration, ours)
        found += sharing_warnings(configuration)
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
    yield from addresses_errors(join(place, "listen"), service.listen, any_port=True)
    if service.enable is not None and service.enable not in service.groups:
        yield Problem(
            join(place, "enable"), f"there is no group {service.enable!r}", did_you_mean(service.enable, service.groups)
        )
    yield from _split_errors(join(place, "split"), service)
    if service.tls is not None and not service.tls.certificates:
        yield Problem(join(place, "tls", "certificates"), "there is no certificate",
                      "remove the table for clients without TLS")
    if service.tls is not None and service.tls.client_ca is None and service.tls.client_certificate == "optional":
        yield Problem(join(place, "tls", "client_certificate"), "certificates are not asked for", "set client_ca")
    if service.sni is not None and not service.sni.names:
        yield Problem(join(place, "sni", "names"), "there is no name", "remove the table for clients of every name")
    for key, networks in (
        ("proxy.accept_from", service.proxy.accept_from),
        ("access.allow", service.access.allow),
        ("access.deny", service.access.deny),
    ):
        yield from networks_errors(f"{place}.{key}", networks, word=UNIX_PEERS if key.startswith("proxy") else "")
    for group_name, group in service.groups.items():
        yield from _group_errors(join(place, "groups", group_name), group)


def _split_errors(place: str, service: Service) -> Iterator[Problem]:
    for name in sorted(service.split.keys() - service.groups.keys()):
        yield Problem(join(place, name), f"there is no group {name!r}", did_you_mean(name, service.groups))
    if not service.split:
        return
    if not any(service.split.values()):
        yield Problem(place, "nobody has a share above 0", "to end the split, remove it")
    enabled = service.enabled_group
    if enabled in service.groups and enabled not in service.split:
        yield Problem(place, f"the enabled group, {enabled!r}, has no share: it stands in for the others",
                      "give it one, 0 if need be, or enable another group")


# --- groups -----------------------------------------------------------------------------------------------


def _group_errors(place: str, group: Group) -> Iterator[Problem]:
    for name, host in group.hosts.items():
        yield from address_errors(join(place, "hosts", name, "address"), host.address)
        yield from _host_tls_errors(join(place, "hosts", name, "address"), host, group.tls)
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
    if group.tls is not None:
        yield from _pair_errors(join(place, "tls"), group.tls)
    if group.health.agent_check is not None:
        for name, host in group.hosts.items():
            address, _ = parsed(place, host.address)
            if address is not None and address.is_unix:
                yield Problem(join(place, "hosts", name, "address"),
                              "the group's agent_check has a port, and a UNIX socket has none")
    yield from networks_errors(join(place, "registration", "networks"), group.registration.networks)
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
        address, _ = parsed(place, host.address)
        if families and address is not None and address.is_ip:
            version = ipaddress.ip_address(address.host).version
            if version not in families:
                yield Problem(place, f"none is an IPv{version} address, as that of host {name!r} is")


def _probe_port_errors(place: str, host: Host, probe: Probe) -> Iterator[Problem]:
    address, _ = parsed(place, host.address)
    if host.probe_port is not None and probe.address is not None:
        yield Problem(join(place, "probe_port"), "the group's probe has an address of its own, which goes for every host",
                      "remove one of the two")
    elif address is not None and address.is_unix and host.probe_port is not None:
        yield Problem(join(place, "probe_port"), "a UNIX socket has no port")
    elif address is not None and address.is_unix and probe.port is not None:
        yield Problem(join(place, "address"), "the group's probe has a port, and a UNIX socket has none")
    if probe.address is None and address is not None:
        yield from _nameless(join(place, "address"), address, probe)


def _nameless(place: str, address: Address, probe: Probe) -> Iterator[Problem]:
    """A UNIX socket has no name that a certificate could have."""
    if address.is_unix and probe.tls is not None and probe.tls.verify and probe.tls.server_name is None:
        yield Problem(place, "it is probed over TLS, and a UNIX socket has no name for its certificate",
                      "say one with probe.tls.server_name")


def _host_tls_errors(place: str, host: Host, tls: HostTLS | None) -> Iterator[Problem]:
    address, _ = parsed(place, host.address)
    if address is not None and address.is_unix and tls is not None and tls.verify and tls.server_name is None:
        yield Problem(place, "the group has tls, and a UNIX socket has no name for its certificate",
                      "say one with tls.server_name")


def _probe_errors(place: str, probe: Probe) -> Iterator[Problem]:
    if probe.address is not None:
        address, problems = parsed(join(place, "address"), probe.address)
        yield from problems if address is None else _nameless(join(place, "address"), address, probe)
        if probe.port is not None:
            yield Problem(join(place, "port"), "the probe's address has a port already", "remove one of the two")
    if probe.weight_header and probe.kind != "http":
        yield Problem(join(place, "weight_header"), f"a {probe.kind} probe has no headers", 'kind = "http" does')
    yield from asking_errors(place, probe)
    if probe.tls is not None:
        yield from _probe_tls_errors(join(place, "tls"), probe.kind, probe.tls)
    if probe.kind == "script" and not probe.command:
        yield Problem(join(place, "command"), "missing", "a script probe runs a program")
    elif probe.kind != "script" and probe.command:
        yield Problem(join(place, "command"), f"a {probe.kind} probe runs no program", 'kind = "script" does')
    elif probe.command and not probe.command[0].startswith("/"):
        yield Problem(join(place, "command", 0), "expected the absolute path of a program")
    if not re.fullmatch(r"/[!-~]*", probe.path):
        yield Problem(
            join(place, "path"),
            "expected a path that begins with / and has no blanks",
            "percent-encode other characters",
        )
    if probe.host_header is not None and not re.fullmatch(r"[!-~]+", probe.host_header):
        yield Problem(join(place, "host_header"), "expected a host name, perhaps with a port")


def _probe_tls_errors(place: str, kind: str, tls: ProbeTLS) -> Iterator[Problem]:
    if kind in ("script", "none"):
        yield Problem(place, f"a {kind} probe makes no connection that could be TLS", "all other kinds do")
    yield from _pair_errors(place, tls)


def _pair_errors(place: str, tls: ProbeTLS) -> Iterator[Problem]:
    for key, other in (("certificate", "key"), ("key", "certificate")):
        if getattr(tls, key) is not None and getattr(tls, other) is None:
            yield Problem(join(place, other), f"missing: the {key} is of no use alone")


def _service_warnings(place: str, service: Service, agents: AgentListeners) -> Iterator[Problem]:
    if service.relay == "native" and service.has_tls:
        yield Problem(join(place, "relay"), "the native relay knows no TLS: this service's connections are moved by Python")
    if not service.listen:
        yield Problem(join(place, "listen"), "nothing can connect: there is no listener")
    if not service.groups:
        yield Problem(join(place, "groups"), "nothing can answer: there is no group")
    for name, group in service.groups.items():
        here = join(place, "groups", name)
        hosts = group.hosts.values()
        if service.sticky is not None and service.sticky.mode == "hash" and group.scheduler == "maglev":
            yield Problem(join(place, "sticky"), f"group {name!r} is scheduled by maglev, which is sticky by itself")
        if not hosts and group.registration.mode == "off" and group.discover is None:
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
