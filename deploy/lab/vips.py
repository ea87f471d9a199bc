"""Who held an address when: the kernels' own word, by netlink notifications in every machine."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from typing import NamedTuple

from deploy.lab.net import Machine

_NETLINK_ROUTE = 0
_RTMGRP_IPV4_IFADDR = 0x10
_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_IFA_LOCAL = 2


class Held(NamedTuple):
    """One machine had the address from *since* to *until* (monotonic seconds; None: still)."""

    machine: str
    since: float
    until: float | None


class VipLog:
    """Listens from its making to `close`; machines that have the address already are not known to."""

    def __init__(self, address: str, machines: list[Machine]) -> None:
        self._address = socket.inet_aton(address)
        self._sockets: dict[socket.socket, str] = {}
        for machine in machines:
            with machine.inside():
                sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
            sock.bind((0, _RTMGRP_IPV4_IFADDR))
            self._sockets[sock] = machine.name
        self._since: dict[str, float] = {}
        self._held: list[Held] = []
        self._over = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over:
            for sock in select.select(list(self._sockets), [], [], 0.2)[0]:
                self._take(sock.recv(65_536), self._sockets[sock], time.monotonic())

    def _take(self, data: bytes, machine: str, now: float) -> None:
        with self._lock:
            while len(data) >= 16:
                size, kind = struct.unpack_from("=IH", data)
                if kind in (_RTM_NEWADDR, _RTM_DELADDR) and self._address in _locals(data[24:size]):
                    if kind == _RTM_NEWADDR:  # a refresh says so again
                        self._since.setdefault(machine, now)
                    elif (since := self._since.pop(machine, None)) is not None:
                        self._held.append(Held(machine, since, now))
                data = data[(size + 3) & ~3:]

    def held(self) -> list[Held]:
        """In order of their begin."""
        with self._lock:
            now = [Held(machine, since, None) for machine, since in self._since.items()]
            return sorted([*self._held, *now], key=lambda each: each.since)

    def overlaps(self) -> list[tuple[Held, Held]]:
        """Pairs that held it at the same time, which must never be."""
        held = self.held()
        return [(one, two) for number, one in enumerate(held) for two in held[number + 1:]
                if one.machine != two.machine and (one.until is None or two.since < one.until)]

    def close(self) -> None:
        self._over = True
        self._thread.join()
        for sock in self._sockets:
            sock.close()


def _locals(attributes: bytes) -> list[bytes]:
    """The IFA_LOCAL values among a message's attributes."""
    found = []
    while len(attributes) >= 4:
        size, kind = struct.unpack_from("=HH", attributes)
        if size < 4:
            break
        if kind == _IFA_LOCAL:
            found.append(attributes[4:size])
        attributes = attributes[(size + 3) & ~3:]
    return found
