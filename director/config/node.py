"""What types cannot tell about a node's own section: what belongs together, what must not be exposed. Pure."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping

from cluster.address import Address
from cluster.errors import Misuse, Problem
from cluster.model import (
    TLS,
    AgentListeners,
    Hook,
    Identity,
    Manhole,
    MetricsPort,
    Node,
    Peers,
    Vips,
)
from cluster.takeover import Timing
from cluster.validate import join
from cluster.web import parse_url
from director.config.addresses import WILDCARDS, address_errors, addresses_errors, parsed

#: The store that directors share.
ETCD = "etcd:"
#: Each may have a program running.
MAX_HOOKS = 16
#: Each beats 20 times a second, with every other director.
MAX_SPREAD = 64
#: Says why a file cannot be read; empty when it can.
Unreadable = Callable[[str], str]

_HOST_PATTERN_PART = re.compile(r"[A-Za-z0-9._*-]{1,63}")


def _etcd_errors(node: Node, unreadable: Unreadable) -> Iterator[Problem]:
    etcd, used = node.etcd, node.store == ETCD
    if used and not etcd.endpoints:
        yield Problem("node.etcd.endpoints", "at least one is needed")
    if etcd.endpoints and not used:
        yield Problem("node.store", "node.etcd is there, but not used", 'store = "etcd:" uses it')
    yield from addresses_errors("node.etcd.endpoints", etcd.endpoints)
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


def node_errors(node: Node, unreadable: Unreadable) -> Iterator[Problem]:
    if not re.fullmatch(r"memory:|file:/.+|etcd:", node.store):
        yield Problem("node.store", "expected memory:, file:/path or etcd:", "the path must be absolute")
    yield from _etcd_errors(node, unreadable)
    if not node.roles:
        yield Problem("node.roles", "a director without a role does nothing", 'give it "balance", "manage" or both')
    if not node.log.target:
        yield Problem("node.log.target", "expected stderr, stdout, syslog, journal or a file's path")
    for i, text in enumerate(node.resolvers):
        address, problems = parsed(join("node.resolvers", i), text)
        yield from problems
        if address is not None and not address.is_ip:
            yield Problem(join("node.resolvers", i), "a resolver needs an IP address")
    if node.scripts is not None and not node.scripts.startswith("/"):
        yield Problem("node.scripts", "expected the absolute path of a directory")
    yield from _agents_errors(node.agents, unreadable)
    yield from _peers_errors(node.peers, unreadable)
    yield from _vips_errors(node.vips)
    yield from _spread_errors(node)
    yield from _manhole_errors(node.manhole, unreadable)
    yield from _metrics_errors(node.metrics, unreadable)
    yield from _hooks_errors(node.hooks, unreadable)
    if node.control_socket is not None:
        yield from address_errors("node.control_socket", f"unix:{node.control_socket}")
    if node.vip_on_isolation == "keep" and node.peers.listen is None:
        yield Problem("node.vip_on_isolation", '"keep" needs the other directors\' promises', "set node.peers.listen")
    yield from _takeover_errors(node)
    admin = node.admin
    if admin.htpasswd is not None and (why := unreadable(admin.htpasswd)):
        yield Problem("node.admin.htpasswd", f"cannot read {admin.htpasswd}: {why}")
    for i, endpoint in enumerate(admin.endpoints):
        place = join("node.admin.endpoints", i)
        address, problems = parsed(join(place, "listen"), endpoint.listen, any_port=True)
        yield from problems
        yield from tls_errors(join(place, "tls"), endpoint.tls, unreadable)
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


def _takeover_errors(node: Node) -> Iterator[Problem]:
    if node.takeover == "lease":
        return
    if node.peers.listen is None or node.store != "etcd:":
        yield Problem("node.takeover", '"promises" needs the other directors, and etcd',
                      'set node.peers.listen and store = "etcd:"')
    try:
        Timing.of(node.takeover_s)
    except Misuse as error:
        yield Problem("node.takeover_s", str(error), "0.45 is what etcd and a network of a data centre allow")


def _agents_errors(agents: AgentListeners, unreadable: Unreadable) -> Iterator[Problem]:
    for i, text in enumerate(agents.listen):
        place = join("node.agents.listen", i)
        address, problems = parsed(place, text, any_port=True)
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
    yield from addresses_errors("node.agents.advertise", agents.advertise)
    yield from tls_errors("node.agents.tls", agents.tls, unreadable)
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
    yield from tls_errors("node.peers.tls", peers.tls, unreadable)
    if peers.secret_file is not None and (why := unreadable(peers.secret_file)):
        yield Problem("node.peers.secret_file", f"cannot read {peers.secret_file}: {why}")
    if peers.tls is not None and peers.tls.client_ca is None:
        yield Problem("node.peers.tls.client_ca", "missing", "directors prove who they are by their certificates")
    if peers.tls is not None and peers.certificate_domain is None:
        yield Problem("node.peers.certificate_domain", "missing", "it tells a director's certificate from an agent's")
    for place, text in (("node.peers.listen", peers.listen), ("node.peers.advertise", peers.advertise)):
        address, problems = (None, []) if text is None else parsed(place, text, any_port=place.endswith("listen"))
        yield from problems
        if address is not None and address.is_unix:
            yield Problem(place, "other directors connect by TCP")
        if address is not None and address.host in WILDCARDS and peers.advertise in (None, text):
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


def _spread_errors(node: Node) -> Iterator[Problem]:
    vips = node.vips
    if not vips.spread:
        if vips.priorities:
            yield Problem("node.vips.priorities", "only addresses that are spread have any", "set node.vips.spread")
        return
    place = "node.vips.spread"
    if node.takeover != "promises":
        yield Problem(place, "addresses can be spread by promises only", 'set node.takeover = "promises"')
    if not vips.addresses:
        yield Problem(place, "there are no addresses to spread", "set node.vips.addresses")
    if "balance" not in node.roles:
        yield Problem(place, "a director that does not balance takes no address", "leave [node.vips] out here")
    if len(vips.addresses) > MAX_SPREAD:
        yield Problem(place, f"{MAX_SPREAD} addresses at most can each have an owner of its own")
    own = set()
    for text in vips.addresses:
        with contextlib.suppress(ValueError):  # is told of the addresses
            own.add(ipaddress.ip_interface(text).ip)
    for text in vips.priorities:
        try:
            missing = ipaddress.ip_address(text) not in own
        except ValueError:
            missing = True
        if missing:
            yield Problem(join("node.vips.priorities", text), "is not one of node.vips.addresses, without its prefix length")


def _manhole_errors(manhole: Manhole, unreadable: Unreadable) -> Iterator[Problem]:
    if manhole.listen is None:
        return
    address, problems = parsed("node.manhole.listen", manhole.listen, any_port=True)
    yield from problems
    if address is not None and address.is_unix:
        yield Problem("node.manhole.listen", "ssh connects by TCP")
    if manhole.host_key is None:
        yield Problem("node.manhole.host_key", "missing", "the path of a private key; it is made when there is none")
    if manhole.authorized_keys is None and not manhole.passwords:
        yield Problem("node.manhole", "nobody could enter", "set authorized_keys, or passwords = true")
    if manhole.authorized_keys is not None and (why := unreadable(manhole.authorized_keys)):
        yield Problem("node.manhole.authorized_keys", f"cannot read {manhole.authorized_keys}: {why}")


def _metrics_errors(metrics: MetricsPort, unreadable: Unreadable) -> Iterator[Problem]:
    if metrics.listen is not None:
        yield from parsed("node.metrics.listen", metrics.listen, any_port=True)[1]
    elif metrics.tls is not None:
        yield Problem("node.metrics.listen", "missing", "the address where the metrics shall be without a password")
    yield from tls_errors("node.metrics.tls", metrics.tls, unreadable)


def _hooks_errors(hooks: Mapping[str, Hook], unreadable: Unreadable) -> Iterator[Problem]:
    if len(hooks) > MAX_HOOKS:
        yield Problem("node.hooks", f"{len(hooks)} are more than the {MAX_HOOKS} there may be", "let one tell the others")
    for name, hook in hooks.items():
        place = join("node.hooks", name)
        if bool(hook.command) is (hook.url is not None):
            yield Problem(place, "expected either a command or a url")
        if hook.command and not hook.command[0].startswith("/"):
            yield Problem(join(place, "command", 0), "expected the absolute path of a program")
        if not hook.on:
            yield Problem(join(place, "on"), "it would be told of nothing", "without the key it is told of most")
        for key in ("ca", "token_file"):
            path = getattr(hook, key)
            if path is not None and hook.url is None:
                yield Problem(join(place, key), "only a url needs it")
            elif path is not None and (why := unreadable(path)):
                yield Problem(join(place, key), f"cannot read {path}: {why}")
        if hook.url is None:
            continue
        try:
            url = parse_url(hook.url)
        except ValueError as error:
            yield Problem(join(place, "url"), str(error))
        else:
            if hook.ca is not None and not url.secure:
                yield Problem(join(place, "ca"), "http:// shows no certificate")


def hook_warnings(hooks: Mapping[str, Hook]) -> Iterator[Problem]:
    """Whether what is shown to a URL can be read on the way."""
    for name, hook in hooks.items():
        if hook.token_file is not None and hook.url is not None and hook.url.startswith("http://"):
            host = parse_url(hook.url).host
            if not Address(host, 80).is_loopback:
                yield Problem(join("node.hooks", name, "token_file"), f"the token can be read on the way to {host}",
                              "let the url begin with https://")


def metrics_warnings(metrics: MetricsPort) -> Iterator[Problem]:
    """Whether strangers may be able to read the metrics."""
    address = None if metrics.listen is None else parsed("", metrics.listen, any_port=True)[0]
    if address is not None and address.is_ip:
        ip = ipaddress.ip_address(address.host)
        if ip.is_unspecified or ip.is_global:
            yield Problem("node.metrics.listen", f"whoever reaches {address} can read the metrics, which name every "
                          "service and host", "listen on loopback or at an address of a private network")


def tls_errors(place: str, tls: TLS | None, unreadable: Unreadable) -> Iterator[Problem]:
    if tls is None:
        return
    for key, path in (("certificate", tls.certificate), ("key", tls.key), ("client_ca", tls.client_ca)):
        if path is not None and (why := unreadable(path)):
            yield Problem(join(place, key), f"cannot read {path}: {why}")
