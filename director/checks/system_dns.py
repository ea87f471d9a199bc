"""What the machine says about names: ``/etc/hosts`` and ``/etc/resolv.conf``, read again when they change.

Both are small local files; reading one costs less than a query's socket, so it is done on the reactor's thread.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from cluster.shortage import OutOfResources, short_of

T = TypeVar("T")

DNS_PORT = 53
#: Limits of resolv.conf(5): more servers are ignored, and so are more than 15 dots of ``ndots``.
MAX_SERVERS = 3
MAX_NDOTS = 15

HOSTS_FILE = "/etc/hosts"
RESOLV_CONF = "/etc/resolv.conf"

#: RFC 6761, 6.3: ``localhost`` never needs the network.
LOOPBACK = ("127.0.0.1", "::1")


class Server(NamedTuple):
    """A DNS server: a literal address and a port."""

    host: str
    port: int = DNS_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ResolvConf(NamedTuple):
    """What resolv.conf(5) says, as far as it matters here."""

    servers: tuple[Server, ...]
    search: tuple[str, ...] = ()
    ndots: int = 1

    def candidates(self, name: str) -> Iterator[str]:
        """The full names that *name* may stand for, in the order to try them.

        With fewer than *ndots* dots the search domains come first; a trailing dot says the name is full already.
        """
        if name.endswith("."):
            yield name[:-1]
            return
        absolute_first = name.count(".") >= self.ndots
        if absolute_first:
            yield name
        for domain in self.search:
            yield f"{name}.{domain}"
        if not absolute_first:
            yield name


def is_ip(host: str) -> bool:
    """Whether *host* is a literal address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_resolv_conf(text: str) -> ResolvConf:
    """Parse resolv.conf(5). Without a server, one on this machine is assumed, as the C library does."""
    servers: list[Server] = []
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        match line.split():
            case ["nameserver", host, *_] if is_ip(host):
                servers.append(Server(host))
            case ["search" | "domain", *domains]:  # the last one counts
                search = tuple(domain.rstrip(".") for domain in domains if domain.rstrip("."))
            case ["options", *options]:
                for option in options:
                    key, _, value = option.partition(":")
                    if key == "ndots" and value.isdecimal():
                        ndots = min(int(value), MAX_NDOTS)
    return ResolvConf(tuple(servers[:MAX_SERVERS]) or (Server("127.0.0.1"),), search, ndots)


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Parse hosts(5): lower-case name to its addresses, in the file's order."""
    names: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        address, *aliases = line.partition("#")[0].split() or [""]
        if is_ip(address):
            for alias in map(str.lower, aliases):
                if address not in names.get(alias, ()):
                    names[alias] = (*names.get(alias, ()), address)
    return names


class WatchedFile(Generic[T]):
    """The parsed content of a file, parsed again when the file was changed or replaced; a missing file is empty. One that
    changed, and that cannot be opened for want of a descriptor, raises `OutOfResources`."""

    def __init__(self, path: str, parse: Callable[[str], T]) -> None:
        self._path = path
        self._parse = parse
        self._seen: tuple[int, ...] | None = None
        self._value = parse("")

    def value(self) -> T:
        try:
            status = os.stat(self._path)
            seen = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
            if seen != self._seen:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._value = self._parse(file.read())
                self._seen = seen
        except OSError as error:
            if what := short_of(error.errno or 0):
                raise OutOfResources(what) from error
            self._seen, self._value = None, self._parse("")
        return self._value


class HostsFile:
    """Names that need no DNS."""

    def __init__(self, path: str = HOSTS_FILE) -> None:
        self._file = WatchedFile(path, parse_hosts)

    def addresses(self, name: str) -> tuple[str, ...]:
        """The addresses of *name*, empty when the file doesn't have it. ``localhost`` has both of `LOOPBACK`, whichever of
        them the file lists, unless it lists something else."""
        name = name.lower().rstrip(".")
        known = self._file.value().get(name, ())
        if set(known) <= set(LOOPBACK) and (name == "localhost" or name.endswith(".localhost")):
            return LOOPBACK
        return known
