"""A second switch: the clients' side of directors that reach etcd, backends and each other by a network of their own."""

from __future__ import annotations

import json

from deploy.lab.cluster import VIP, Cluster
from deploy.lab.net import Lab, Machine, _run

NETWORK = "10.78.0"
INTERFACE = "eth1"
SIDE_VIP = f"{NETWORK}.100"


class Side:
    """Plugs machines of *lab* into the second switch, as ``eth1``; the last number of their addresses stays."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        _run("ip", "-n", lab.switch, "link", "add", "side", "type", "bridge", "forward_delay", "0")
        _run("ip", "-n", lab.switch, "link", "set", "side", "up")

    def plug(self, machine: Machine) -> str:
        """Its address there."""
        address = f"{NETWORK}.{machine.address.rpartition('.')[2]}"
        _run("ip", "link", "add", self._cable(machine), "netns", self._lab.switch, "type", "veth", "peer", "name", INTERFACE,
             "netns", machine.namespace)
        _run("ip", "-n", self._lab.switch, "link", "set", self._cable(machine), "master", "side", "up")
        _run("ip", "-n", machine.namespace, "link", "set", INTERFACE, "up")
        _run("ip", "-n", machine.namespace, "address", "add", f"{address}/24", "dev", INTERFACE)
        return address

    def mac(self, machine: Machine) -> str:
        mac: str = json.loads(_run("ip", "-n", machine.namespace, "-j", "link", "show", "dev", INTERFACE))[0]["address"]
        return mac

    def carrier(self, machine: Machine, *, there: bool) -> None:
        """Pull its cable on this side, or plug it in."""
        _run("ip", "-n", self._lab.switch, "link", "set", self._cable(machine), "up" if there else "down")

    def holds(self, machine: Machine) -> bool:
        """Whether the virtual address is on its interface."""
        return f" {SIDE_VIP}/" in _run("ip", "-n", machine.namespace, "-o", "-4", "address", "show", "dev", INTERFACE)

    def addresses(self, machine: Machine) -> set[str]:
        """What its interface there answers to."""
        out = _run("ip", "-n", machine.namespace, "-o", "-4", "address", "show", "dev", INTERFACE)
        return {line.split()[3].partition("/")[0] for line in out.splitlines()}

    def _cable(self, machine: Machine) -> str:
        return f"{self._lab.prefix}s{machine.address.rpartition('.')[2]}"


def with_side(cluster: Cluster) -> Side:
    """Give the directors of a cluster that was not started yet a clients' side, and the virtual address there."""
    assert isinstance(cluster.lab, Lab)
    side = Side(cluster.lab)
    for director in cluster.directors:
        side.plug(director.machine)
        config = director.config.read_text()
        vips = f'interface = "eth0"\naddresses = ["{VIP}/24"]'
        assert vips in config
        director.config.write_text(config.replace(vips, f'interface = "{INTERFACE}"\naddresses = ["{SIDE_VIP}/24"]'))
    return side
