"""Which service of a shared listener a client would come to, by the server name that it asks for, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cluster.model import Service
from director.core.server_names import ServerNames


def name_steps(service: str, services: Mapping[str, Service], server_name: str | None) -> Iterator[str]:
    """The way to *service* at each of its listeners that looks at names.

    :param server_name: that the client asks for; None: that is not known, and taken for one of the service's.
    """
    for address in services[service].listen:
        beside = {name: spec for name, spec in services.items() if address in spec.listen}
        if all(spec.sni is None for spec in beside.values()):
            continue
        if server_name is None:
            yield f"at {address} it has {_clients(service, services[service])}"
            continue
        taker = ServerNames(beside).service_of(server_name.lower())
        asking = f"a client that asks for {server_name} at {address}"
        if taker is None:
            yield f"{asking} is closed: no service has such clients"
        elif taker == service:
            yield f"{asking} is this service's"
        else:
            yield f"{asking} is not this service's, but that of {taker!r}; what follows is of one that is"


def _clients(name: str, spec: Service) -> str:
    if spec.sni is None:
        return "those that ask for no other service's name"
    offering = f" and offer {' or '.join(spec.sni.alpn)}" if spec.sni.alpn else ""
    return f"those that ask for {' or '.join(spec.sni.names)}{offering}"
