"""Clients of TLS that a director passes through, by their server name and not: part of ``python -m bench.tls``.

One director with the native relay has two listeners for the same host, at one of which it has to look for the name. They
take turns. The host, which ends TLS, and the clients share the other core.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from bench.machine import HERE, LOAD_CORE, PROXY_CORE, Running, free_ports

WAYS = ("plain", "by name")
MEASURES = {
    "per_s": "connections per second, the handshake with the host included",
    "us": "CPU of a connection, microseconds",
    "bulk_mb_per_s": "bulk MB per second",
    "bulk_cpu": "CPU ms per GB",
}


class Passing:
    """The director and the host behind it.

    :param host: the words that start what ends TLS, at *port*.
    """

    def __init__(self, folder: Path, host: list[str], port: int) -> None:
        self.ports = dict(zip(WAYS, free_ports(2), strict=True))
        self.host = Running(host, core=LOAD_CORE)
        text = '[node.log]\nlevel = "warn"\n'
        for name, way, more in (("plain", "plain", ""), ("named", "by name", 'sni.names = ["localhost"]\n')):
            text += f'[services.{name}]\nlisten = ["127.0.0.1:{self.ports[way]}"]\n{more}'
            text += f'[services.{name}.groups.main]\nhealth.probe.kind = "none"\nhosts.s = "127.0.0.1:{port}"\n'
        config = folder / "passing.toml"
        config.write_text(text)
        self.director = Running([sys.executable, "-m", "director", "run", str(config)], core=PROXY_CORE, cwd=HERE.parent)
        for each in (port, *self.ports.values()):
            self.director.await_port(each)

    def stop(self) -> None:
        self.director.stop()
        self.host.stop()


def rounds(passing: Passing, load: Any, authority: str, *, seconds: float, megabytes: int,
           count: int) -> dict[str, list[dict[str, float]]]:
    """By way. *load* is `bench.tls.load`."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for way in WAYS:
        load("full", passing.ports[way], authority, 0.3)
    for number in range(count):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            port, cpu_s = passing.ports[way], passing.director.cpu_s
            before, began = cpu_s(), time.monotonic()
            done = load("full", port, authority, seconds)["done"]
            row = {"us": 1e6 * (cpu_s() - before) / done, "per_s": done / (time.monotonic() - began)}
            before = cpu_s()
            answer = load("bulk", port, authority, megabytes)
            row |= {"bulk_cpu": 1e12 * (cpu_s() - before) / answer["done"],
                    "bulk_mb_per_s": answer["done"] / answer["seconds"] / 1e6}
            found[way].append(row)
    return found
