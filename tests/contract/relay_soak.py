"""Both peers of thousands of connections through a balancer, in one loop: every byte is compared where it arrives.

What happens on a connection follows from its number alone, which is the first thing that the client sends: sizes, who
waits for whom, who stops reading for a while, who resets and when. So the host's end knows what must come.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import random
import select
import socket
import struct
import termios
import time
from typing import Literal, NamedTuple

Role = Literal["client", "host"]
OTHER: dict[Role, Role] = {"client": "host", "host": "client"}

BLOCK_BYTES = 1 << 20
#: Twice the same, so that a piece from anywhere is one slice.
BLOCK = memoryview(random.Random(1).randbytes(BLOCK_BYTES) * 2)
HEADER = struct.Struct("!Q")
PIECE_BYTES = 65_536
#: What fits into the buffers on the way, so that it arrives however late it is read.
SURE_BYTES = 30_000
#: Reading stops for at most this long, and data piles up.
PAUSE_S = 0.3
#: Connections on which one side goes on talking while what comes from the other is stuck.
TALKERS = 0.01
#: More than all buffers on the way hold.
FULL_BYTES = 8_000_000
#: Said with each read, and at least how often.
WORD_BYTES, WORDS = 3, 100
#: Whoever resets after the last byte looks this often whether the balancer's kernel has it all.
POLL_S = 0.002
#: When nothing at all happened for so long, something is stuck.
STUCK_S = 30.0
LINGER_0 = struct.pack("ii", 1, 0)


class Plan(NamedTuple):
    """Of one connection."""

    size: dict[Role, int]  #: bytes to send
    answers: bool  #: the host sends only once it has everything, client's FIN included
    breaker: Role | None  #: who ends by a reset
    breaks_at: int  #: after so many bytes; all of them: once they have left its kernel
    pause_at: dict[Role, int]  #: who stops reading for a while, and where
    talker: Role | None  #: who stops reading until all is full, and from then on says something with each read


def plan(number: int) -> Plan:
    rng = random.Random(number)
    most = 22 if rng.random() < 0.05 else 17
    size: dict[Role, int] = {"client": HEADER.size + int(2 ** rng.uniform(0, most)), "host": int(2 ** rng.uniform(0, most))}
    breaker = rng.choices((None, "client", "host"), (7, 1, 1))[0]
    breaks_at = 0
    pause_at: dict[Role, int] = {}
    if breaker is None:
        for role in OTHER:
            if rng.random() < 0.1:
                pause_at[role] = rng.randrange(size[OTHER[role]])
    elif rng.random() < 0.5 or size[breaker] < 2:
        size[breaker] = breaks_at = min(size[breaker], SURE_BYTES)
    else:
        breaks_at = rng.randrange(1, size[breaker])
    answers = breaker is None and rng.random() < 0.3
    talker: Role | None = None
    if breaker is None and rng.random() < TALKERS:
        roles: tuple[Role, Role] = ("client", "host")
        talker, answers = rng.choice(roles), False
        size[talker] += HEADER.size + WORDS * WORD_BYTES
        size[OTHER[talker]] = int(FULL_BYTES * rng.uniform(1, 2))
        pause_at[talker] = SURE_BYTES
    return Plan(size, answers, breaker, breaks_at, pause_at, talker)


def content(number: int, role: Role, at: int, size: int) -> memoryview:
    """What *role* sends from byte *at* on: up to *size* bytes."""
    if role == "client" and at < HEADER.size:
        return memoryview(HEADER.pack(number))[at : at + size]
    start = (number * 40_503 + (500_009 if role == "host" else 0) + at) % BLOCK_BYTES
    return BLOCK[start : start + min(size, BLOCK_BYTES)]


class End:
    """One peer's side of a connection. `wrong` says what was not as it must be."""

    def __init__(self, loop: Loop, sock: socket.socket, role: Role, number: int | None) -> None:
        self.loop = loop
        self.sock = sock
        self.role: Role = role
        self.number = number
        self.plan = None if number is None else plan(number)
        self.header = b""
        self.sent = self.received = 0
        self.paused = self.was_paused = False
        self.eof = self.fin = self.reset = False
        self.wrong = ""
        self.mask = -1

    def wanted(self) -> int:
        """The events that it can use."""
        mask = 0 if self.paused or self.eof else select.EPOLLIN
        if self.plan is None or self.reset or self.fin or (self.plan.answers and self.role == "host" and not self.eof):
            return mask
        return mask | select.EPOLLOUT if self.sent < self.goal and not self.talks else mask

    @property
    def talks(self) -> bool:
        """Once the other side knows who it is, it sends a word with each read, and nothing else, until all has come."""
        assert self.plan is not None
        if self.plan.talker != self.role or (self.role == "client" and self.sent < HEADER.size):
            return False
        return self.received < self.plan.size[OTHER[self.role]]

    @property
    def goal(self) -> int:
        assert self.plan is not None
        return self.plan.breaks_at if self.plan.breaker == self.role else self.plan.size[self.role]

    def ready(self, mask: int) -> None:
        if mask & ~select.EPOLLOUT and not (self.paused and not mask & (select.EPOLLERR | select.EPOLLHUP)):
            self.read()
        if mask & select.EPOLLOUT and not self.loop.is_closed(self):
            self.write()
        if not self.loop.is_closed(self):
            self.settle()

    def read(self) -> None:
        try:
            if self.plan is None:
                self.read_header()
                return
            size = self.sock.recv_into(self.loop.buffer)
        except BlockingIOError:
            return
        except OSError:
            self.reset = self.eof = True
            return
        if not size:
            self.eof = True
            return
        if self.was_paused and self.talks and self.sent < self.goal:
            self.write(WORD_BYTES)  # at once, so that the balancer learns of the room and the word together
        assert self.number is not None
        at = 0
        while at < size:
            expected = content(self.number, OTHER[self.role], self.received, size - at)
            if self.loop.buffer[at : at + len(expected)] != expected:
                self.wrong = f"other bytes than sent, between {self.received} and {self.received + size - at}"
                self.reset = self.eof = True
                return
            at += len(expected)
            self.received += len(expected)
        pause_at = self.plan.pause_at.get(self.role)
        if pause_at is not None and self.received > pause_at and not self.was_paused:
            self.paused = self.was_paused = True
            self.loop.later(PAUSE_S * (self.number % 100) / 100, self)

    def read_header(self) -> None:
        part = self.sock.recv(HEADER.size - len(self.header))
        self.header += part
        self.eof = not part
        if len(self.header) == HEADER.size:
            self.number = HEADER.unpack(self.header)[0]
            self.plan = plan(self.number)
            self.received = HEADER.size

    def go_on(self) -> None:
        self.paused = False
        self.settle()

    def write(self, most: int = PIECE_BYTES) -> None:
        assert self.number is not None
        try:
            self.sent += self.sock.send(
                content(self.number, self.role, self.sent, min(most, self.goal - self.sent))
            )
        except BlockingIOError:
            pass
        except OSError:  # what was received before can still be read
            self.reset = True

    def settle(self) -> None:
        """After whatever happened: end, or wait for what can happen next."""
        if self.plan is not None and not self.reset:
            breaks = self.plan.breaker == self.role
            waits = self.plan.answers and self.role == "host" and not self.eof
            if breaks and self.sent == self.goal:
                self.break_off()
                return
            if not breaks and not self.fin and not waits and self.sent == self.goal:
                self.fin = True
                try:
                    self.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    self.reset = True
        if self.eof and (self.fin or self.reset or self.plan is None):
            self.judge()
            self.loop.close(self)
        else:
            self.loop.watch(self)

    def break_off(self) -> None:
        assert self.plan is not None
        whole = self.plan.breaks_at == self.plan.size[self.role]
        if whole and any(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))):
            self.paused = True
            self.loop.watch(self)
            self.loop.later(POLL_S, self)
            return
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        self.loop.close(self)

    def judge(self) -> None:
        """Compare the end with the plan."""
        if self.wrong:
            return
        if self.plan is None:  # the client broke off before it said who it is, perhaps while the host was connected
            return
        other = OTHER[self.role]
        size, broken = self.plan.size[other], self.plan.breaker == other
        if broken and not self.reset:
            self.wrong = "the other side's reset came as an end"
        elif not broken and self.reset:
            self.wrong = "reset, though the other side did not"
        elif self.received > size or (self.received < size and not (broken and self.plan.breaks_at < size)):
            self.wrong = f"{self.received} bytes of {size}"


class Loop:
    """Clients of *address*, *width* at a time, and the host behind it, which is `listener`."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.buffer = memoryview(bytearray(262_144))
        self.wrong: list[str] = []  #: what was wrong on which connection
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self.listener, select.EPOLLIN)
        self._ends: dict[int, End] = {}
        self._later: list[tuple[float, int, End]] = []
        self._order = itertools.count()
        self._clients = 0

    def run(self, address: tuple[str, int], numbers: range) -> None:
        """Returns when all of them are over, on both sides. :raises AssertionError: nothing happens any more."""
        waiting = iter(numbers)
        more, seen = True, time.monotonic()
        while more or self._ends:
            while more and self._clients < self.width:
                number = next(waiting, None)
                if number is None:
                    more = False
                else:
                    self.connect(address, number)
            events = self._epoll.poll(self._timeout())
            now = time.monotonic()
            if events:
                seen = now
            assert now - seen < STUCK_S, f"stuck: {[(end.role, end.number) for end in self._ends.values()]}"
            for fd, mask in events:
                if fd == self.listener.fileno():
                    self.accept()
                elif (end := self._ends.get(fd)) is not None:
                    end.ready(mask)
            while self._later and self._later[0][0] <= now:
                _, _, end = heapq.heappop(self._later)
                if not self.is_closed(end):
                    end.go_on()

    def _timeout(self) -> float:
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else 1.0

    def connect(self, address: tuple[str, int], number: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(address)
        self._clients += 1
        self._add(End(self, sock, "client", number))

    def accept(self) -> None:
        for _ in range(64):
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            self._add(End(self, sock, "host", None))

    def _add(self, end: End) -> None:
        self._ends[end.sock.fileno()] = end
        end.mask = end.wanted()
        self._epoll.register(end.sock, end.mask)

    def watch(self, end: End) -> None:
        mask = end.wanted()
        if mask != end.mask:
            end.mask = mask
            self._epoll.modify(end.sock, mask)

    def later(self, seconds: float, end: End) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), end))

    def is_closed(self, end: End) -> bool:
        return end.sock.fileno() < 0

    def close(self, end: End) -> None:
        del self._ends[end.sock.fileno()]
        end.sock.close()
        self._clients -= end.role == "client"
        if end.wrong:
            self.wrong.append(f"{end.role} of {end.number} ({end.plan}): {end.wrong}")

    def stop(self) -> None:
        for end in list(self._ends.values()):
            end.sock.close()
        self._epoll.close()
        self.listener.close()
