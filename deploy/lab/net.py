"""A network of namespaces: machines with an address each, on one switch, and cables that can be pulled.

Everything has a name of this process (``txd<pid>-…``) and is gone after `Lab.close`, processes included. Needs the right
to make network namespaces, iproute2 and nftables; `why_not` says what is missing. Addresses are 10.77.0.0/24, which exist
only inside.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

NETWORK = "10.77.0"
_CLONE_NEWNET = 0x40000000
#: A process that was asked to end is killed after this.
PATIENCE_S = 10.0

#: By which a machine's cables are pulled.
CABLES = (
    "add table inet cables",
    "add chain inet cables in { type filter hook input priority 0; }",
    "add chain inet cables out { type filter hook output priority 0; }",
)

_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str:
    """Why there can be no lab here; empty when there can."""
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(program) is None:
            return f"{program} is missing: apt-get install {package}"
    probe = f"txd{os.getpid()}-probe"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no network namespaces here: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return ""


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Machine:
    """One namespace with ``eth0`` on the switch. Processes that run here end with it."""

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        self.name = name
        self.address = f"{lab.network}.{number}"
        self.home = "127.0.0.1"  #: what only this machine reaches
        self.namespace = f"{lab.prefix}-{name}"
        self.processes: list[subprocess.Popen[bytes]] = []
        cable = f"{lab.prefix}c{number}"
        _run("ip", "netns", "add", self.namespace)
        _run("ip", "link", "add", cable, "netns", lab.switch, "type", "veth", "peer", "name", "eth0", "netns",
             self.namespace)
        _run("ip", "-n", lab.switch, "link", "set", cable, "master", "switch", "up")
        for words in (("link", "set", "lo", "up"), ("link", "set", "eth0", "up"),
                      ("address", "add", f"{self.address}/24", "dev", "eth0")):
            _run("ip", "-n", self.namespace, *words)
        _run("ip", "netns", "exec", self.namespace, "nft", "; ".join(CABLES))
        self._cut: set[tuple[str, int | None]] = set()

    # --- cables

    def cut(self, *others: Machine, port: int | None = None) -> None:
        """Nothing passes between this machine and *others* any more, in either direction; or nothing to a TCP port there."""
        for other in others:
            self._cut.add((other.address, port))
            self._filter()
            if port is None:
                other._cut.add((self.address, None))
                other._filter()

    def heal(self, *others: Machine, port: int | None = None) -> None:
        """Plug the cables in again."""
        for other in others:
            self._cut.discard((other.address, port))
            self._filter()
            if port is None:
                other._cut.discard((self.address, None))
                other._filter()

    def _filter(self) -> None:
        rules = ["flush chain inet cables in", "flush chain inet cables out"]
        for address, port in self._cut:
            here, there = ("", "") if port is None else (f"tcp sport {port}", f"tcp dport {port}")
            rules.append(f"add rule inet cables in ip saddr {address} {here} drop")
            rules.append(f"add rule inet cables out ip daddr {address} {there} drop")
        _run("ip", "netns", "exec", self.namespace, "nft", "; ".join(rules))

    # --- processes

    def start(self, *words: str, log: IO[bytes] | None = None, env: Mapping[str, str] | None = None,
              stdout: int | None = None) -> subprocess.Popen[bytes]:
        """Run a program here. *log* takes what it says, unless *stdout* does."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *words], stdin=subprocess.PIPE,
            stdout=stdout if stdout is not None else log or subprocess.DEVNULL, stderr=log or subprocess.DEVNULL, env=env,
        )
        self.processes.append(process)
        return process

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets made by this thread in the block are this machine's."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{self.namespace}", "rb") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def addresses(self) -> set[str]:
        """What ``eth0`` answers to now."""
        out = _run("ip", "-n", self.namespace, "-o", "-4", "address", "show", "dev", "eth0")
        return {line.split()[3].partition("/")[0] for line in out.splitlines()}

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Ask it to end; kill it when it does not."""
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)  # it may be frozen
                process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def close(self) -> None:
        for process in reversed(self.processes):
            self.stop(process)
        with contextlib.suppress(OSError):
            _run("ip", "netns", "delete", self.namespace)


class Lab:
    """The switch and its machines.

    :param network: the first three numbers of their addresses.
    """

    def __init__(self, network: str = NETWORK) -> None:
        self.network = network
        self.prefix = f"txd{os.getpid()}"
        self.switch = f"{self.prefix}-switch"
        self.machines: dict[str, Machine] = {}
        _run("ip", "netns", "add", self.switch)
        _run("ip", "-n", self.switch, "link", "add", "switch", "type", "bridge", "forward_delay", "0")
        _run("ip", "-n", self.switch, "link", "set", "switch", "up")

    def machine(self, name: str, number: int | None = None) -> Machine:
        """Plug in another one; the first is 10.77.0.11, unless its last *number* is given."""
        made = self.machines[name] = Machine(self, name, number or 11 + len(self.machines))
        return made

    def close(self) -> None:
        for machine in self.machines.values():
            machine.close()
        with contextlib.suppress(OSError):
            _run("ip", "netns", "delete", self.switch)


class LoopbackMachine(Machine):
    """No namespace: an address of 127.0.0.0/8, of which every one is this machine's. Its cables cannot be pulled."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.address = self.home = f"127.77.0.{number}"
        self.processes = []

    def start(self, *words: str, log: IO[bytes] | None = None, env: Mapping[str, str] | None = None,
              stdout: int | None = None) -> subprocess.Popen[bytes]:
        output = stdout if stdout is not None else log or subprocess.DEVNULL
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=output, stderr=log or subprocess.DEVNULL, env=env)
        self.processes.append(process)
        return process

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        yield

    def addresses(self) -> set[str]:
        return {self.address}

    def close(self) -> None:
        for process in reversed(self.processes):
            self.stop(process)


class Loopback:
    """What stands in for a `Lab` where namespaces are not to be had."""

    def __init__(self) -> None:
        self.machines: dict[str, LoopbackMachine] = {}

    def machine(self, name: str) -> Machine:
        made = self.machines[name] = LoopbackMachine(name, 11 + len(self.machines))
        return made

    def close(self) -> None:
        for machine in self.machines.values():
            machine.close()


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def python_path() -> Path:
    """Where the packages of this checkout are, for processes that run elsewhere."""
    return Path(__file__).resolve().parents[2]
