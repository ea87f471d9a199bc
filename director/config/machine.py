"""What a configuration needs of the machine that it shall run on: `director check` and the start of `director run` ask.

A file may be good and yet not do here. Nothing is changed by looking, and nobody can connect meanwhile. Elsewhere, where
a file is only read (`reload`, `bootstrap`, `apply`), none of this is asked.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator

from cluster import journal
from cluster.address import Address
from cluster.errors import ConfigError, Problem
from cluster.log.datagrams import receiver, unreachable
from cluster.model import TLS, Configuration, Etcd, Node, Vips
from cluster.pem import PemFiles
from cluster.store import StoreDamaged
from cluster.table import HISTORY_LIMIT
from cluster.validate import did_you_mean, join
from director.checks.passwords import Passwords
from director.checks.programs import refusal as refusal_of_program
from director.checks.programs import unfit
from director.config import kernel
from director.config.addresses import Listener, listeners
from director.config.node import ETCD
from director.config.secret import exposed, read_secret
from director.ports.binding import FileAccess, ids, refusal
from director.ports.tls import server_options
from director.resources.places import hard_limit
from director.tls.contexts import file_problems as service_tls_problems
from director.tls.dialling import file_problems

#: What adding addresses and telling the neighbours take, by their numbers in linux/capability.h.
_VIP_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}


def errors(configuration: Configuration) -> Iterator[Problem]:
    """What keeps the configuration from being run here. It is sound as far as `check` can tell."""
    node = configuration.node
    if node.log.target not in ("stderr", "stdout") and (why := _no_log(node.log.target)):
        yield Problem("node.log.target", f"cannot write the log to {node.log.target}: {why}")
    if (path := _store_file(node)) and (why := _unwritable(path) or _unwritable(f"{path}.new")):
        yield Problem("node.store", f"cannot keep the store in {path}: {why}")
    yield from _pem_errors(node)
    if node.peers.secret_file is not None:
        try:
            read_secret(node.peers.secret_file)
        except ConfigError as error:
            yield from error.problems
    yield from _interface_errors(node.vips)
    for listener in _used(configuration):
        if why := _no_socket(listener.address):
            yield Problem(listener.place, f"cannot listen on {listener.address}: {why}")
    for name, service in configuration.services.items() if node.store != ETCD else ():
        for key in ("owner", "group"):
            try:
                ids(FileAccess(**{key: getattr(service.unix, key)}))
            except LookupError as error:
                yield Problem(join("services", name, "unix", key), str(error))


def warnings(configuration: Configuration) -> Iterator[Problem]:
    """What the director will run without."""
    snapshot = configuration.node.etcd.snapshot
    if snapshot is not None and (why := _unwritable(snapshot)):
        yield Problem("node.etcd.snapshot", f"cannot keep the last known state in {snapshot}: {why}")
    passwords = Passwords(configuration.node.probe_passwords)
    for name, service in configuration.services.items():
        if service.tls is not None:
            yield from service_tls_problems(service.tls, place=join("services", name, "tls"))
        for group_name, group in service.groups.items():
            command, tls = group.health.probe.command, group.health.probe.tls
            if tls is not None:
                yield from file_problems(join("services", name, "groups", group_name, "health", "probe", "tls"), tls)
            if group.health.probe.password is not None and (why := passwords.missing(group.health.probe.password)):
                yield Problem(join("services", name, "groups", group_name, "health", "probe", "password"),
                              f"nobody is probed: {why}")
            if group.tls is not None:
                yield from file_problems(join("services", name, "groups", group_name, "tls"), group.tls)
            if command and (why := refusal_of_program(command[0], configuration.node.scripts)):
                yield Problem(join("services", name, "groups", group_name, "health", "probe", "command", 0),
                              f"{command[0]} is not run, so nobody is probed: {why}")
    yield from _hook_warnings(configuration.node)
    yield from kernel.warnings(configuration, kernel.Kernel.here(), descriptors=hard_limit())
    lacking = _lacking_capabilities() if configuration.node.vips.addresses and "manage" in configuration.node.roles else ()
    if lacking:
        yield Problem("node.vips.addresses", "a leader could not take them: whoever asks here lacks the "
                      f"{'capability' if len(lacking) == 1 else 'capabilities'} {' and '.join(lacking)}",
                      "run it as root, or with AmbientCapabilities= in the systemd unit")


def _hook_warnings(node: Node) -> Iterator[Problem]:
    for name, hook in node.hooks.items():
        if hook.command and (why := unfit(hook.command[0])):
            yield Problem(join("node.hooks", name, "command", 0), f"{hook.command[0]} cannot be run: {why}")


def at_present(configuration: Configuration) -> Iterator[Problem]:
    """What keeps the director from starting now, and may be otherwise in a moment."""
    node = configuration.node
    virtual = {ipaddress.ip_interface(text).ip for text in node.vips.addresses}
    for place, address, _ in _used(configuration):
        absent = address.is_ip and ipaddress.ip_address(address.host) in virtual
        if why := refusal(address, absent=absent):
            yield Problem(place, why)
    if path := _store_file(node):
        try:
            with open(path, "rb") as file:
                journal.read(file.read(), history_limit=HISTORY_LIMIT)
        except FileNotFoundError:
            pass
        except OSError as error:
            yield Problem("node.store", f"{path}: {error.strerror}")
        except journal.Damaged as error:
            yield Problem("node.store", str(StoreDamaged(path, *error.damage)))


def _used(configuration: Configuration) -> Iterator[Listener]:
    """The addresses that a director with this file listens on; with etcd, its services are not the file's."""
    for listener in listeners(configuration):
        if configuration.node.store != ETCD or not listener.place.startswith("services."):
            yield listener


def _store_file(node: Node) -> str:
    kind, _, path = node.store.partition(":")
    return path if kind == "file" else ""


def _unwritable(path: str) -> str:
    """Why the file *path* cannot be written or made; empty when it can."""
    if os.path.isdir(path):
        return "it is a directory"
    if os.path.exists(path):
        return "" if os.access(path, os.W_OK, effective_ids=True) else os.strerror(errno.EACCES)
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        return f"there is no directory {parent}"
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
        return f"no file can be made in {parent}: {os.strerror(errno.EACCES)}"
    return ""


def _no_log(target: str) -> str:
    found = receiver(target)
    return _unwritable(target) if found is None else unreachable(found[1])


def _no_socket(address: Address) -> str:
    """Why no UNIX socket can be made at *address*; empty when it can, or is none."""
    path = address.path
    if path is None or path.startswith("@"):
        return ""
    if not os.path.lexists(path):
        return _unwritable(path)
    return "" if stat.S_ISSOCK(os.lstat(path).st_mode) else "something else is there, and no socket"


def _lacking_capabilities() -> tuple[str, ...]:
    """Of those that virtual addresses take, the ones that this process does not have; none where that cannot be told."""
    effective = _effective_capabilities()
    return tuple(name for name, bit in _VIP_CAPABILITIES.items() if effective is not None and not effective >> bit & 1)


def _effective_capabilities() -> int | None:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            [effective] = [int(line.split()[1], 16) for line in file if line.startswith("CapEff:")]
    except (OSError, ValueError):
        return None
    return effective


def _exposed(path: str) -> str:
    try:
        return exposed(path)
    except OSError:
        return ""  # which is told as such


def _interface_errors(vips: Vips) -> Iterator[Problem]:
    if vips.addresses and vips.interface is not None:
        there = [name for _, name in socket.if_nameindex()]
        if vips.interface not in there:
            yield Problem("node.vips.interface", f"there is no network interface {vips.interface!r} on this machine",
                          did_you_mean(vips.interface, there) or f"there are {', '.join(there)}")


def _pem_errors(node: Node) -> Iterator[Problem]:
    """Certificates and keys that are no such thing, or do not belong together."""
    places: list[tuple[str, TLS | None]] = [("node.agents.tls", node.agents.tls), ("node.peers.tls", node.peers.tls)]
    places.append(("node.metrics.tls", node.metrics.tls))
    places += [(f"node.admin.endpoints[{i}].tls", each.tls) for i, each in enumerate(node.admin.endpoints)]
    for place, tls in places:
        try:
            if tls is not None:
                server_options(tls, place=place)
        except ConfigError as error:
            yield from error.problems
    yield from _etcd_pem_errors(node.etcd)
    for name, hook in node.hooks.items():
        if hook.token_file is not None and (why := _exposed(hook.token_file)):
            yield Problem(join("node.hooks", name, "token_file"), f"{hook.token_file}: {why}", "chmod 640")
        files = PemFiles(join("node.hooks", name))
        if hook.ca is not None:
            files.authorities("ca", hook.ca)
        yield from files.problems


def _etcd_pem_errors(etcd: Etcd) -> Iterator[Problem]:
    files = PemFiles("node.etcd")
    if etcd.ca is not None:
        files.authorities("ca", etcd.ca)
    if etcd.certificate is not None and etcd.key is not None:
        files.identity(etcd.certificate, etcd.key)
    yield from files.problems
