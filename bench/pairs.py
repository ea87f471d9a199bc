"""Pairs of machines of which one owns an address: directors, and keepalived's, in namespaces of the same kind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.lab.cluster import WEB, Cluster, all_up, until
from deploy.lab.net import Lab, Machine
from deploy.lab.side import INTERFACE, NETWORK, SIDE_VIP, Side, with_side

#: For connections to end in an orderly stop, before a second order cuts them.
STOPS_S = 2.0


class Pair:
    """Two machines of which one owns `SIDE_VIP`."""

    lab: Lab
    side: Side
    machines: list[Machine]
    thaw: Callable[[], None]  #: undoes what a fault did

    def signal(self, machine: Machine, number: int) -> None:
        """To all of the pair's processes there."""
        raise NotImplementedError

    def begin(self, machine: Machine) -> None:
        """Start what should run there."""
        raise NotImplementedError

    def ready(self) -> None:
        """Wait until all is well."""
        raise NotImplementedError

    def owner(self) -> Machine:
        """Raises NotYet."""
        return until(lambda: [each for each in self.machines if self.side.holds(each)], "an owner")[0]

    def other(self, machine: Machine) -> Machine:
        return next(each for each in self.machines if each is not machine)

    def deafen(self, machine: Machine, *others: Machine) -> None:
        """The machine hears nothing of the others any more, by neither network."""
        nft(machine, *(f"add rule inet cables in ip saddr {{ {address(other)}, {other.address} }} drop" for other in others))

    def cut(self, machine: Machine, *others: Machine) -> None:
        """Nothing passes between the machine and the others."""
        self.deafen(machine, *others)
        for other in others:
            self.deafen(other, machine)

    def heal(self, *machines: Machine) -> None:
        for machine in machines:
            nft(machine, "flush chain inet cables in")

    def power(self, machine: Machine, *, there: bool) -> None:
        """All its cables."""
        self.side.carrier(machine, there=there)
        cable = f"{self.lab.prefix}c{machine.address.rpartition('.')[2]}"
        subprocess.run(["ip", "-n", self.lab.switch, "link", "set", cable, "up" if there else "down"], check=True)


class Directors(Pair):
    def __init__(self, directory: Path, node: str = "") -> None:
        self.cluster = Cluster(directory, etcd=3, backends=1, node=node)
        assert isinstance(self.cluster.lab, Lab)
        self.lab = self.cluster.lab
        self.side = with_side(self.cluster)
        self.machines = [each.machine for each in self.cluster.directors]
        self.cluster._vip = False  # it is on the other side
        try:
            self.cluster.start()
        except BaseException:
            self.cluster.close()
            raise

    def signal(self, machine: Machine, number: int) -> None:
        director = self._on(machine)
        director.signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            assert director.process is not None
            try:
                director.process.wait(STOPS_S)
            except subprocess.TimeoutExpired:  # for a client whose end was sent to the other machine
                director.signal(number)
                director.process.wait()

    def begin(self, machine: Machine) -> None:
        self._on(machine).start()

    def ready(self) -> None:
        for member in self.cluster.etcd:
            until(member.healthy, f"{member.name} is healthy")
        for director in self.cluster.directors:
            until(lambda director=director: all_up(director, 1), f"{director.name} is well")
            until(lambda director=director: all(each["connected"] for each in director.status()["peers"]),
                  f"{director.name} is linked")
        self.owner()

    def _on(self, machine: Machine) -> Any:
        return next(each for each in self.cluster.directors if each.machine is machine)


class Keepalived(Pair):
    """With a server on each machine that does nothing but accept."""

    SERVER = ("import socket\ns = socket.create_server(('', {port}), backlog=4096)\nwhile True:\n"
              "    c, _ = s.accept()\n    c.close()\n")

    def __init__(self, directory: Path, interval: str) -> None:
        self.lab = Lab()
        self.side = Side(self.lab)
        self.machines = [self.lab.machine(f"keepalived{n}") for n in (1, 2)]
        self._directory = directory
        self._running: dict[str, list[subprocess.Popen[bytes]]] = {}
        for priority, machine in zip((100, 90), self.machines, strict=True):
            self.side.plug(machine)
            (directory / f"{machine.name}.conf").write_text(f"""
global_defs {{
    vrrp_version 3
}}
vrrp_instance pair {{
    state BACKUP
    nopreempt
    interface {INTERFACE}
    virtual_router_id 51
    priority {priority}
    advert_int {interval}
    virtual_ipaddress {{
        {SIDE_VIP}/24
    }}
}}
""")
            self.begin(machine)

    def signal(self, machine: Machine, number: int) -> None:
        for process in self._running[machine.name]:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            pids = [int(each) for each in children.read_text().split()] if children.exists() else []
            for pid in (process.pid, *pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number in (signal.SIGKILL, signal.SIGTERM):
                process.wait()

    def begin(self, machine: Machine) -> None:
        name = machine.name
        for kind in ("pid", "vrrp"):  # of a dead one, which would be taken for a living one
            (self._directory / f"{name}.{kind}").unlink(missing_ok=True)
        # What a dead one left on the interface it would take for another's, and leave there.
        subprocess.run(["ip", "-n", machine.namespace, "address", "del", f"{SIDE_VIP}/24", "dev", INTERFACE], check=False,
                       stderr=subprocess.DEVNULL)
        with (self._directory / f"{name}.log").open("ab") as log:
            self._running[name] = [
                machine.start(sys.executable, "-c", self.SERVER.format(port=WEB)),
                machine.start("keepalived", "--dont-fork", "--log-console", "--vrrp", "--use-file",
                              str(self._directory / f"{name}.conf"), "--pid", str(self._directory / f"{name}.pid"),
                              "--vrrp_pid", str(self._directory / f"{name}.vrrp"), log=log),
            ]

    def ready(self) -> None:
        until(lambda: sum(self.side.holds(each) for each in self.machines) == 1, "one owner")
        time.sleep(1)


def nft(machine: Machine, *commands: str) -> None:
    subprocess.run(["ip", "netns", "exec", machine.namespace, "nft", "; ".join(commands)], check=True)


def address(machine: Machine) -> str:
    """On the clients' side."""
    return f"{NETWORK}.{machine.address.rpartition('.')[2]}"
