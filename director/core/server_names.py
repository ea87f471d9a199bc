"""Which of the services that share a listener a client is for, by the server name and the protocols of its ClientHello.

Rules:

- A service with `cluster.model.Sni` has the clients that ask for one of its names, if it names protocols (ALPN) those only
  that offer one of them; the service without is the listener's default and has everybody else.
- An exact name goes before a wildcard, a longer wildcard before a shorter one. ``*.example.org`` is every name below
  ``example.org``, however deep, and not ``example.org`` itself; ``*`` is every name.
- Among the services with one name, the first of the client's protocols that one of them has decides; then the one that names
  no protocols. If there is none, the next wildcard may have the client.
- Whatever two services both claim, the first by name has. A configuration where they do is refused (`conflicts`), but in a
  shared store it may come about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from cluster.model import Service

#: Who offers none of a service's protocols.
_ANY = b""


class ServerNames:
    """The names of one listener.

    :param services: that share it, by name.
    :ivar default: the service of those whom no name leads to another one.
    """

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._of: dict[str, dict[bytes, str]] = {}  # service by pattern and protocol
        for service, pattern, protocol in _claims(services):
            self._of.setdefault(pattern, {}).setdefault(protocol, service)
        self.default = next((name for name in sorted(services) if services[name].sni is None), None)

    def service_of(self, name: str | None, protocols: tuple[bytes, ...] = ()) -> str | None:
        """:param name: in lower case; None: the client names none.
        :returns: None when no service has such clients."""
        if name is not None:
            for pattern in _patterns(name):
                found = self._of.get(pattern)
                if found is not None:
                    for protocol in (*protocols, _ANY):
                        if protocol in found:
                            return found[protocol]
        return self.default


def may_share(services: Mapping[str, Service]) -> bool:
    """Whether the services may have a listener together: all but one have names."""
    return sum(service.sni is None for service in services.values()) <= 1


def conflicts(one: str, other: str, services: Mapping[str, Service]) -> Iterator[str]:
    """What two services that share a listener both claim, in words."""
    if not may_share({one: services[one], other: services[other]}):
        yield f"neither {one!r} nor {other!r} has server names (sni.names)"
    mine, theirs = ({(pattern, protocol) for _, pattern, protocol in _claims({name: services[name]})}
                    for name in (one, other))
    for pattern, protocol in sorted(mine & theirs):
        offering = f" with the protocol {protocol.decode('ascii', 'replace')}" if protocol else ""
        yield f"{pattern}{offering} is claimed by {other!r} too"


def leader_of(services: Mapping[str, Service]) -> str:
    """Of those that share a listener, the one whose settings go for what happens before a client's service is known."""
    return ServerNames(services).default or min(services)


def _claims(services: Mapping[str, Service]) -> Iterator[tuple[str, str, bytes]]:
    """Services with their patterns and protocols."""
    for name in sorted(services):
        sni = services[name].sni
        if sni is not None:
            protocols = [text.encode("ascii") for text in sni.alpn] or [_ANY]
            yield from ((name, pattern.lower(), protocol) for pattern, protocol in product(sni.names, protocols))


def _patterns(name: str) -> Iterator[str]:
    """Of a name, from itself to what every name has."""
    yield name
    at = name.find(".")
    while at >= 0:
        yield f"*{name[at:]}"
        at = name.find(".", at + 1)
    yield "*"
