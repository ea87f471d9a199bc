"""Services whose hosts are this director itself, as far as a configuration tells."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.address import Address, parse_address
from cluster.errors import Problem
from cluster.model import Configuration
from cluster.validate import join
from director.core.loops import Ours, leads_back, reaches


def loop_errors(configuration: Configuration, ours: Ours) -> Iterator[Problem]:
    """Hosts through which a client would come back to the service that it came from."""
    listeners = [(name, address) for name, service in configuration.services.items()
                 for text in service.listen if (address := _address(text)) is not None]
    ports = {address.path or address.port for _, address in listeners}
    found: list[tuple[str, str, str, Address]] = []  # service, its host's place, what it is, where
    for name, service in configuration.services.items():
        for group_name, group in service.groups.items():
            for host_name, host in group.hosts.items():
                address = _address(host.address)
                if address is None or (address.path or address.port) not in ports:
                    continue
                place = join("services", name, "groups", group_name, "hosts", host_name, "address")
                found += [(name, place, other, listener) for other, listener in listeners
                          if reaches(address, listener, ours)]
    edges: dict[str, list[str]] = {}
    for name, _, other, _ in found:
        edges.setdefault(name, []).append(other)
    for name, place, other, listener in found:
        if leads_back(name, other, edges):
            what = "this service" if other == name else f"service {other!r}, which leads back here,"
            yield Problem(place, f"{what} listens on {listener}: clients would be connected in a circle")


def _address(text: str) -> Address | None:
    try:
        return parse_address(text, any_port=True)
    except ValueError:
        return None  # told elsewhere
