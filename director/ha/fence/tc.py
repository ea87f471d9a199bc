"""The fence of first choice: a program on every interface, and a deadline in memory that it reads with every packet.

Setting a deadline is one store into memory that the kernel shares with us: no call that may wait, nothing to fail. The
program stays on the interfaces when the process dies, and reads what was last written.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
import time
from collections.abc import Collection
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from director.ha.fence import bpf
from director.ha.fence.interface import Address
from director.ha.fence.interfaces import ENTERING, LEAVING, Interfaces, Nic, listen
from director.ha.fence.program import classifier, key

#: Of all fences together. A slot is eight bytes: one page of memory.
MAX_SLOTS = 512
MAX_ADDRESSES = 4_096
#: Whether everything is in its place is asked when the kernel says that something changed, and besides so often, for what it
#: says may be lost. A missing program is noticed within a second.
LOOK_S = 0.5
#: Changes come in bursts; the first is acted on so soon.
SOON_S = 0.005
#: A look takes at most such a part of the time, however many interfaces there are: regularly, and while they change.
SHARE, SHARE_SOON = 50, 10
#: While one process follows another, and when two directors run where one should.
ELSEWHERE = "another process of a director on this machine has put up its own fence"
_DRAIN_BYTES = 65_536
_CLOSED = 0
_OFFSETS = "/proc/self/timens_offsets"


@implementer(IReadDescriptor)
class Barrier:
    """The program on every interface of this machine, which fences stand on. Puts back what others take away.

    :raises OSError: the kernel does not take it: too old, not permitted.
    """

    log = Logger()

    def __init__(self, *, reactor: Any) -> None:
        self._reactor = reactor
        self._fences: dict[int, TcFence] = {}
        self._why = ""
        self._told = ""
        self._soon_s = SOON_S
        self._timer: IDelayedCall | None = None
        self._descriptors: list[int] = []
        self._programs: dict[int, tuple[int, int]] = {}  # by hook: descriptor and number
        self._links: frozenset[Nic] = frozenset()
        _same_clock()
        self._interfaces = Interfaces()
        try:
            self.addresses = self._keep(bpf.make_map(bpf.HASH, 16, 4, MAX_ADDRESSES, bpf.NO_PREALLOC, "txd_vips"))
            deadlines = self._keep(bpf.make_map(bpf.ARRAY, 4, 8, MAX_SLOTS, bpf.MMAPABLE, "txd_deadlines"))
            for hook in (ENTERING, LEAVING):
                program = self._keep(bpf.load_classifier(
                    classifier(self.addresses, deadlines, leaving=hook == LEAVING), "txd_fence"))
                self._programs[hook] = program, bpf.program_id(program)
            # Not by struct or by slices: each may write byte after byte.
            self.deadlines = (ctypes.c_uint64 * MAX_SLOTS).from_buffer(mmap.mmap(deadlines, MAX_SLOTS * 8))
            self._news = listen()
        except OSError:
            self.close()
            raise

    def _keep(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor

    # --- fences

    def fence(self, addresses: Collection[Address], until_ns: int) -> TcFence:
        """One more deadline, for these. Raises OSError."""
        slot = next((number for number in range(MAX_SLOTS) if number not in self._fences), None)
        if slot is None:
            raise OSError(errno.ENOSPC, f"{MAX_SLOTS} fences at most")
        made = TcFence(self, slot, addresses)
        self.deadlines[slot] = until_ns
        for address in addresses:
            bpf.update(self.addresses, key(address), struct.pack("=I", slot))
        self._fences[slot] = made
        return made

    def forget(self, slot: int) -> None:
        """A fence is released; with the last one the program goes."""
        if not self._descriptors:
            return  # it was left to another process
        try:
            for address in self._fences.pop(slot).addresses:
                bpf.delete(self.addresses, key(address))
            if not self._fences:
                self._detach()
        except OSError as error:
            self.log.error("the fence cannot be taken away, its addresses stay closed on this machine: {why}", why=error)
        if not self._fences:
            self.leave()

    def holds(self) -> str:
        return self._why

    # --- on the interfaces

    def attach(self) -> None:
        """Put the program onto every interface, in the place of one that another process left there, and look after it.

        :raises OSError: it cannot be put onto one of them, and is on none.
        """
        try:
            for link in self._interfaces.links():
                for hook in self._programs:
                    self._attach(link, hook)
        except OSError:
            self._detach()
            raise
        self._reactor.addReader(self)
        self._look()

    def leave(self) -> None:
        """Look after it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._reactor.removeReader(self)
        self.close()

    def close(self) -> None:
        """What is on the interfaces stays there."""
        self._interfaces.close()
        news = getattr(self, "_news", None)
        if news is not None:
            news.close()
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _detach(self) -> None:
        for link in self._interfaces.links():
            for hook, (_, number) in self._programs.items():
                if self._interfaces.attached(link, hook) == number:
                    self._interfaces.detach(link, hook)

    def _attach(self, link: Nic, hook: int) -> None:
        try:
            self._interfaces.attach(link, hook, self._programs[hook][0])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return  # it has just gone
            way = "entering" if hook == ENTERING else "leaving"
            raise OSError(error.errno, f"{link.name}, packets {way}: {os.strerror(error.errno or 0)}") from None

    # --- looking after it

    def _look(self) -> None:
        began = time.monotonic()
        try:
            self._why = self._mend()
        except OSError as error:
            self._why = f"the fence cannot be looked after: {error}"
        if self._why and self._why not in (self._told, ELSEWHERE):
            self.log.error("{why}", why=self._why)
        self._told = self._why
        took_s = time.monotonic() - began
        self._soon_s = max(SOON_S, SHARE_SOON * took_s)
        self._timer = self._reactor.callLater(max(LOOK_S, SHARE * took_s), self._look)

    def _mend(self) -> str:
        """Put back what is missing; why that is not possible, or empty."""
        missing, why = set(), ""
        links = self._interfaces.links()
        for link in links:
            for hook, (_, number) in self._programs.items():
                there = self._interfaces.attached(link, hook)
                if there == number:
                    continue
                if there:
                    return ELSEWHERE
                if link in self._links:
                    missing.add(link.name)
                try:
                    self._attach(link, hook)
                except OSError as error:
                    why = f"the fence is not in its place: {error.strerror}"
        self._links = frozenset(links)
        if missing:
            self.log.warn("somebody else removed the fence from {names}; it is {back}", names=", ".join(sorted(missing)),
                          back="not back" if why else "back")
        return why

    def doRead(self) -> None:
        while True:
            try:
                self._news.recv(_DRAIN_BYTES)
            except BlockingIOError:
                break
            except OSError:
                continue  # ENOBUFS: more than fitted
        if self._timer is not None and self._timer.getTime() - self._reactor.seconds() > self._soon_s:
            self._timer.reset(self._soon_s)

    def fileno(self) -> int:
        return self._news.fileno()

    def logPrefix(self) -> str:
        return "fence"

    def connectionLost(self, reason: Any) -> None:
        """The reactor stops."""


class TcFence:
    """See `director.ha.fence.interface.Fence`."""

    kind = "tc"

    def __init__(self, barrier: Barrier, slot: int, addresses: Collection[Address]) -> None:
        self.addresses = tuple(addresses)
        self._barrier = barrier
        self._slot = slot

    def open_until(self, boot_ns: int) -> None:
        self._barrier.deadlines[self._slot] = boot_ns

    def close(self) -> None:
        self._barrier.deadlines[self._slot] = _CLOSED

    def holds(self) -> str:
        return self._barrier.holds()

    def release(self) -> None:
        self._barrier.forget(self._slot)

    def leave(self) -> None:
        self._barrier.leave()


def _same_clock() -> None:
    """In a time namespace (time_namespaces(7)) CLOCK_BOOTTIME is not the clock of the program. Raises OSError there."""
    with contextlib.suppress(FileNotFoundError), open(_OFFSETS, encoding="ascii") as file:
        for line in file:
            clock, *offset = line.split()
            if clock == "boottime" and any(map(int, offset)):
                raise OSError(errno.EINVAL, "this process is in a time namespace, its clock is not the kernel's")


def try_out() -> None:
    """Whether the kernel takes the program from this process; nothing is changed. Raises OSError when it does not."""
    Barrier(reactor=None).close()


def sweep() -> None:
    """Take away the programs that another process left on interfaces. Raises OSError."""
    with contextlib.closing(Interfaces()) as interfaces:
        for link in interfaces.links():
            for hook in (ENTERING, LEAVING):
                if interfaces.attached(link, hook):
                    interfaces.detach(link, hook)
