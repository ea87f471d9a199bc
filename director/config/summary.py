"""A configuration in a few lines, for people: what `director check` and the start of `director run` tell."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.model import Configuration, Service
from cluster.web import parse_url
from director.config.node import ETCD
from director.relay.choice import choose


def start_lines(configuration: Configuration, *, native_missing: str) -> Iterator[str]:
    """One line for each service, and for where agents and operators connect.

    :param native_missing: why there is no native relay (`director.relay.choice`).
    """
    services = configuration.services if configuration.node.store != ETCD else {}
    for name, service in services.items():
        chosen = choose(service.relay, native_missing)
        relay = "tls (Python, with OpenSSL)" if service.has_tls else f"{chosen.name} ({chosen.why})"
        yield f"service {name}: {_joined(service.listen)} → {_enabled(service)}, relay {relay}"
    node = configuration.node
    if node.agents.listen:
        yield f"agents: {_joined(node.agents.listen)}, {_secured(node.agents.tls is not None)}"
    for endpoint in node.admin.endpoints:
        yield f"admin: http{'s' if endpoint.tls else ''}://{endpoint.listen}/"
    if node.metrics.listen is not None:
        yield f"metrics, without a password: http{'s' if node.metrics.tls else ''}://{node.metrics.listen}/metrics"
    for name, hook in node.hooks.items():
        told = hook.command[0] if hook.url is None else parse_url(hook.url).authority
        yield f"hook {name}: {', '.join(hook.on)} → {told}"
    if node.store == ETCD:
        yield f"store: etcd at {', '.join(node.etcd.endpoints)}; the services are those of cluster {node.etcd.cluster} there"
    else:
        yield f"store: {node.store}"


def _enabled(service: Service) -> str:
    name = service.enabled_group
    if name is None:
        return "no group"
    if service.split:
        return " and ".join(f"{100 * part:.4g} % {_group(service, each)}" for each, part in service.shares.items())
    return _group(service, name)


def _group(service: Service, name: str) -> str:
    group = service.groups[name]
    several = "host" if len(group.hosts) == 1 else "hosts"
    return f"group {name}: {len(group.hosts)} {several}, {group.scheduler}"


def _joined(addresses: tuple[str, ...]) -> str:
    return ", ".join(addresses) or "no listener"


def _secured(tls: bool) -> str:
    return "TLS" if tls else "plaintext"
