"""Socket addresses as text: ``host:port``, ``[v6]:port``, ``unix:/path``."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

_LOOKS_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%.*)?")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
                        r"(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?\Z")
#: sockaddr_un.sun_path of Linux, less its closing NUL
MAX_UNIX_PATH = 107
#: Hosts that are remembered as literals or names: each probe asks.
KEPT_HOSTS = 16_384


class Address(NamedTuple):
    """A TCP address, or a UNIX socket's when *path* is set."""

    host: str
    port: int
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_unix(self) -> bool:
        return self.path is not None

    @property
    def is_ip(self) -> bool:
        """Whether the host is a literal, so that nothing has to be resolved."""
        return self.path is None and _is_literal(self.host)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it: 127/8, ::1, ``localhost`` or a UNIX socket."""
        if self.path is not None or self.host == "localhost":
            return True
        return self.is_ip and ipaddress.ip_address(self.host).is_loopback


@lru_cache(maxsize=KEPT_HOSTS)
def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_address(text: str, *, any_port: bool = False) -> Address:
    """Parse an address.

    :param any_port: accept port 0 ("choose a free one"), for listeners.
    :raises ValueError: with what is wrong, in a sentence.
    """
    if text.startswith("unix:"):
        path = text[5:]
        if not path.startswith(("/", "@")) or "\0" in path:
            raise ValueError(f"{text!r}: a UNIX socket's path is absolute")
        if len(path.encode()) > MAX_UNIX_PATH:
            raise ValueError(f"{text!r}: a UNIX socket's path has at most {MAX_UNIX_PATH} bytes")
        return Address("", 0, path)
    if text != text.strip():
        raise ValueError(f"{text!r}: write it without blanks around it")
    if "://" in text:
        scheme, _, rest = text.partition("://")
        raise ValueError(f"{text!r}: connections are plain TCP; write host:port, without {scheme}://"
                         f"{' and without a path' if '/' in rest else ''}")
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r}: expected host:port, [ipv6]:port or unix:/path")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IPv6 address") from None
    elif ":" in host and _LOOKS_IPV6.fullmatch(host):
        raise ValueError(f"{text!r}: write an IPv6 address as [{host}]:{port_text}")
    elif not _HOST_NAME.match(host):
        raise ValueError(f"{text!r}: {host!r} is neither an IP address nor a host name")
    elif re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IPv4 address") from None
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        raise ValueError(f"{text!r}: {port_text!r} is not a port number")
    port = int(port_text)
    if not (0 if any_port else 1) <= port <= 65535:
        raise ValueError(f"{text!r}: the port must be {0 if any_port else 1} to 65535")
    return Address(host, port)
