"""The fence of second choice, for kernels or rights that do not allow a program: nftables, set up by libnftables.

A set's elements lapse in the kernel after so many milliseconds. That is relative: a process that is stopped between
computing how long, and asking for it, would open the fence too late. Hence a ticket: an element that lapses after `TICKET_S`
is made first, then the clock is read, and one transaction deletes the ticket, which fails when it has lapsed, and opens the
fence for what is left, `TICKET_S` subtracted. What remains open to chance are the microseconds within that call.

The filters see what comes to this machine and what leaves it, on whatever interface; what it forwards passes. A neighbour
solicitation may come: what answers it is sent from the address.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import struct
import time
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from director.ha.fence.elements import Add, Delete, Elements
from director.ha.fence.interface import Address

TABLE = "txdirector-fence"
#: Each refresh loses it. A tenth of a millisecond is what the two calls take; thirty are a machine that is busy.
TICKET_S = 0.03
#: A ticket is a number of its own: one of before may be there still.
_TICKETS = 1_000
#: A ticket that has lapsed means that this process was stopped, or is slow: so often it is tried again.
TRIES = 3
#: Whether all is in its place is asked so often.
LOOK_S = 0.5
#: Before other filters: nothing of theirs accepts finally.
_PRIORITY = -350
_SETS = (("inet", "open4", 4), ("inet", "open6", 6), ("arp", "open4", 4), ("netdev", "open4", 4))


class Libnftables:
    """libnftables(3). Its socket is of the network namespace in which this is made.

    :raises OSError: there is no such library.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL("libnftables.so.1")
        library.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(library, name).restype = ctypes.c_char_p
        self._library = library
        self._context: ctypes.c_void_p | None = ctypes.c_void_p(library.nft_ctx_new(0))
        if not self._context:
            raise OSError(errno.ENOMEM, "libnftables gives no context")
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def run(self, commands: str) -> str:
        """One transaction; what it says. Raises OSError with what it says of errors."""
        if self._context is None:
            raise OSError(errno.EBADF, "the fence was taken away")
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        said = self._library.nft_ctx_get_output_buffer(self._context) or b""
        errors = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise OSError(errno.EIO, lines[0].rpartition("Error: ")[2] if lines else "nftables refuses")
        return bytes(said).decode(errors="replace")

    def close(self) -> None:
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class NftFence:
    """See `director.ha.fence.interface.Fence`.

    :param interface: by which announcements leave, which pass the machine's own filters by.
    :param number: of the fence among those of this director.
    :raises OSError: nftables is not to be had.
    """

    kind = "nft"
    log = Logger()

    def __init__(self, addresses: Collection[Address], until_ns: int, *, interface: str, number: int, reactor: Any,
                 now_ns: Callable[[], int] = _now_ns, nft: Callable[[], Libnftables] = Libnftables) -> None:
        self._keys = {version: [each.packed for each in addresses if each.version == version] for version in (4, 6)}
        self._by_version = {version: [str(each) for each in addresses if each.version == version] for version in (4, 6)}
        self._table = f"{TABLE}-{number}"
        self._interface = interface
        self._reactor = reactor
        self._now_ns = now_ns
        self._until_ns = until_ns
        self._why = ""
        self._timer: IDelayedCall | None = None
        self._tickets = 0
        self._nft = nft()
        self._elements = Elements(self._table)
        try:
            self._families = self._install()
            self._seen = self._rules()
        except OSError:
            self._nft.close()
            self._elements.close()
            raise
        self._timer = reactor.callLater(LOOK_S, self._look)

    # --- Fence

    def open_until(self, boot_ns: int) -> None:
        self._until_ns = boot_ns
        try:
            self._open(boot_ns)
        except OSError:
            self._mend()  # somebody may have taken it away: then it is there again, and open until then

    def close(self) -> None:
        self._until_ns = 0
        try:
            self._elements.change(self._flushes())
        except OSError:
            self._mend()

    def holds(self) -> str:
        return self._why

    def release(self) -> None:
        try:
            self._nft.run("\n".join(f"delete table {family} {self._table}" for family in self._families))
        except OSError as error:
            self.log.error("the fence cannot be taken away, its addresses stay closed on this machine: {why}", why=error)
        self.leave()

    def leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._nft.close()
        self._elements.close()

    # --- what is asked of nftables

    def _install(self) -> tuple[str, ...]:
        """Put everything in its place, in that of what was there before, open until `_until_ns`; the families of tables."""
        families: tuple[str, ...] = ("inet", "arp", "netdev")
        try:
            self._nft.run("\n".join(self._tables(families)))
        except OSError:  # announcements that leave late are the least of it: kernels before 5.16 have no such hook
            families = ("inet", "arp")
            self._nft.run("\n".join(self._tables(families)))
        self._families = families
        if self._until_ns:
            self._open(self._until_ns)
        return families

    def _tables(self, families: tuple[str, ...]) -> list[str]:
        fenced = {version: ", ".join(each) for version, each in self._by_version.items()}
        said = [f"{what} table {family} {self._table}" for family in families for what in ("add", "delete", "add")]
        said.append(f"add set inet {self._table} ticket {{ type mark; flags timeout; }}")
        said += [f"add set {family} {self._table} {name} {{ type ipv{version}_addr; flags timeout; }}"
                 for family, name, version in _SETS if family in families]
        for family in ("inet", "arp"):
            said += [f"add chain {family} {self._table} {hook} {{ type filter hook {hook} priority {_PRIORITY}; }}"
                     for hook in ("input", "output")]
        rules = []
        if fenced[4]:
            rules += [f"inet {self._table} input iif != lo ip daddr {{ {fenced[4]} }} ip daddr != @open4 drop",
                      f"inet {self._table} output oif != lo ip saddr {{ {fenced[4]} }} ip saddr != @open4 drop",
                      f"arp {self._table} input arp daddr ip {{ {fenced[4]} }} arp saddr ip != {{ {fenced[4]} }} "
                      "arp daddr ip != @open4 drop",
                      f"arp {self._table} output arp saddr ip {{ {fenced[4]} }} arp saddr ip != @open4 drop"]
        if fenced[6]:
            rules += [f"inet {self._table} input iif != lo ip6 daddr {{ {fenced[6]} }} ip6 daddr != @open6 drop",
                      f"inet {self._table} output oif != lo ip6 saddr {{ {fenced[6]} }} ip6 saddr != @open6 drop"]
        if "netdev" in families:
            said.append(f"add chain netdev {self._table} leaving "
                        f"{{ type filter hook egress device \"{self._interface}\" priority {_PRIORITY}; }}")
            if fenced[4]:
                rules.append(f"netdev {self._table} leaving arp saddr ip {{ {fenced[4]} }} arp saddr ip != @open4 drop")
        return said + [f"add rule {rule}" for rule in rules]

    def _flushes(self) -> list[Delete]:
        return [Delete(family, name) for family, name, _ in _SETS if family in self._families]

    def _open(self, boot_ns: int) -> None:
        """:raises OSError: nftables refuses, or this process is too slow."""
        for attempt in range(TRIES):
            ticket = struct.pack("=I", self._tickets)
            self._tickets = (self._tickets + 1) % _TICKETS
            self._elements.change([Add("inet", "ticket", [ticket], round(TICKET_S * 1000))])
            left_ms = (boot_ns - self._now_ns()) // 1_000_000 - round(TICKET_S * 1000)
            if left_ms <= 0:
                self._elements.change(self._flushes())
                return
            # Flushed first: not every kernel gives an element that is there a new timeout.
            try:
                self._elements.change([Delete("inet", "ticket", [ticket]), *self._flushes(), *(
                    Add(family, name, self._keys[version], left_ms) for family, name, version in _SETS
                    if family in self._families and self._keys[version])])
            except OSError:
                if attempt == TRIES - 1:
                    raise
            else:
                return

    # --- looking after it

    def _rules(self) -> str:
        chains = [("inet", "input"), ("inet", "output"), ("arp", "input"), ("arp", "output"), ("netdev", "leaving")]
        return "".join(self._nft.run(f"list chain {family} {self._table} {chain}") for family, chain in chains
                       if family in self._families)

    def _look(self) -> None:
        self._timer = self._reactor.callLater(LOOK_S, self._look)
        try:
            there = self._rules()
        except OSError:
            there = ""
        if there != self._seen:
            try:
                self._mend()
            except OSError:
                return  # which `holds` tells

    def _mend(self) -> None:
        """Put everything back. Raises OSError."""
        try:
            self._install()
            self._seen = self._rules()
        except OSError as error:
            if not self._why:
                self.log.error("somebody else removed the fence, and it cannot be put back: {why}", why=error)
            self._why = f"somebody else removed the fence, and it cannot be put back: {error.strerror}"
            raise
        self._why = ""
        self.log.warn("somebody else removed the fence, or nftables was slow; it is back")


def try_out() -> None:
    """Whether this process may use nftables; nothing is changed. Raises OSError when it may not."""
    with contextlib.closing(Libnftables()) as nft:
        nft.run("list tables")


def sweep() -> None:
    """Take away the tables that another process left. Raises OSError."""
    with contextlib.closing(Libnftables()) as nft:
        tables = [line for line in nft.run("list tables").splitlines() if f" {TABLE}-" in line]
        if tables:
            nft.run("\n".join(f"delete {line}" for line in tables))
