"""What somebody wants of a new cluster, as typed: read and judged, one piece at a time. Pure.

Each function takes one text and raises ValueError with a sentence.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from cluster.address import Address, parse_address
from cluster.wire import MAX_DIRECTORS
from director.config.addresses import WILDCARDS

#: Names of files and first labels of DNS names, too: narrower than those of the model.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
#: Where clients connect if nothing is said: every address, virtual ones included, at a port that takes no capability.
LISTEN_IPV4 = "0.0.0.0:8080"
LISTEN_IPV6 = "[::]:8080"


class Wanted(NamedTuple):
    """The answers. `director.config.init.layout` makes files of them."""

    directors: dict[str, str]  #: names, and the address of each without a port, as `director` answers it
    hosts: dict[str, Address] = {}  # noqa: RUF012 - nobody changes it
    vips: tuple[str, ...] = ()
    interface: str | None = None
    etcd: tuple[str, ...] = ()
    listen: tuple[str, ...] = ()  #: empty: `LISTEN_IPV4`, `LISTEN_IPV6` or both, as virtual addresses or directors are


def director(text: str) -> tuple[str, str]:
    """Name and host of ``NAME=ADDRESS``: an IP address or a host name, which the others, agents and operators reach."""
    name, host = _named(text, "NAME=ADDRESS")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        address = parse_address(f"[{host}]:1" if ":" in host else f"{host}:1")
    except ValueError:
        raise ValueError(f"{text!r}: {host!r} is neither an IP address nor a host name; ports are the usual ones") from None
    if address.host in WILDCARDS:
        raise ValueError(f"{text!r}: nobody can connect to {host}: give the address that others reach it by")
    return name, address.host


def host(text: str) -> tuple[str, Address]:
    """Name and address of ``NAME=ADDRESS:PORT``."""
    name, rest = _named(text, "NAME=ADDRESS:PORT")
    address = parse_address(rest)
    if address.is_unix or address.host in WILDCARDS:
        raise ValueError(f"{text!r}: directors on other machines cannot connect there")
    return name, address


def vip(text: str) -> str:
    """``ADDRESS/PREFIX``."""
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"{text!r}: expected an address like 10.0.0.100/24 or 2001:db8::100/64") from None
    if "/" not in text:
        raise ValueError(f"{text!r}: it takes the length of the network's prefix: {text}/{64 if ':' in text else 24}")
    return text


def endpoint(text: str) -> str:
    """``HOST:PORT`` of an etcd member."""
    if parse_address(text).is_unix:
        raise ValueError(f"{text!r}: expected host:port")
    return text


def listener(text: str) -> str:
    parse_address(text, any_port=True)
    return text


def listening(wanted: Wanted) -> tuple[str, ...]:
    """Where clients connect."""
    if wanted.listen:
        return wanted.listen
    addresses = wanted.vips or tuple(wanted.directors.values())
    ipv6 = [":" in address for address in addresses]
    return (() if all(ipv6) else (LISTEN_IPV4,)) + ((LISTEN_IPV6,) if any(ipv6) else ())


def whole(wanted: Wanted) -> None:
    """Judge the answers together.

    :raises ValueError: what does not go together, in a sentence.
    """
    if not wanted.directors:
        raise ValueError("it takes one director at least: --director NAME=ADDRESS")
    if len(wanted.directors) > MAX_DIRECTORS:
        raise ValueError(f"{len(wanted.directors)} directors are more than an agent reports to: {MAX_DIRECTORS} at most")
    if len(wanted.directors) > 1 and not wanted.etcd:
        raise ValueError("several directors share what they know in etcd: --etcd HOST:PORT, once for each member")
    addresses = list(wanted.directors.values())
    if (twice := next((each for each in addresses if addresses.count(each) > 1), None)) is not None:
        raise ValueError(f"two directors cannot have the address {twice}: their ports are the same")
    if wanted.vips and wanted.interface is None:
        raise ValueError("a virtual address takes the network interface of the directors that shall have it: --interface")
    if wanted.interface is not None and not wanted.vips:
        raise ValueError("--interface is for virtual addresses: --vip ADDRESS/PREFIX")


def _named(text: str, form: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not equals or not rest:
        raise ValueError(f"{text!r}: expected {form}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{text!r}: a name has letters, digits, dots, underscores and hyphens, 63 at most, and begins and "
                         "ends with a letter or a digit")
    return name, rest
