"""Every way in which events can come to a relay together: generated, driven step by step, compared with a plain copy.

``python -m tests.contract.relay_events python|native`` prints JSON. The native relay must be a build with `OPTIONS`,
whose worker looks at its events only when told to.

A scenario is a start and two or three actions of the two peers; after each the relay either looks or does not, so that
what happened since comes as one event or as several. The sockets are the kernel's own, and so are the edges. Buffers
are small: bulk fills them all, the relay's chunk and pipe too. Afterwards both peers read all there is. What a blocking
copier would have delivered must then have arrived, each end as it was made, and the relay must have said so.
"""

from __future__ import annotations

import fcntl
import gc
import itertools
import json
import os
import random
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from typing import Any, Literal, NamedTuple

from twisted.internet.task import Clock

from cluster.model import Reason
from director.relay import make_relay, stream
from director.relay.interface import Limits
from director.relay.pipes import PIPE_BYTES
from director.relay.stream import CHUNK_BYTES
from tests.contract.relay_kit import LINGER_0, descriptors

#: What one direction may move at a time: so little that there is more, with buffers as small as here.
TURN_BYTES = 2 * CHUNK_BYTES
#: Sanitizers, which slow everything down many times, take one scenario in so many.
EVERY = int(os.environ.get("RELAY_EVENTS_EVERY", "1"))
OPTIONS = ("-DRELAY_FAULTS", f"-DTURN_BYTES={TURN_BYTES}")
#: Asked of each socket; the kernel doubles it. All on a way together hold more than the relay's pipe of full size.
BUFFER_BYTES = 2 * CHUNK_BYTES
#: A pipe's slots may hold 32 KiB each: the most that can be sent without anybody reading, and then some.
MOST_BYTES = 40 * PIPE_BYTES
SMALL_BYTES = 10
SOME_BYTES = 5_000
#: What the peers send, from its start; an urgent byte is none of these.
URGENT = b"!"
CONTENT = random.Random(2).randbytes(MOST_BYTES).replace(URGENT, b"?") * 2
#: More than any preface of a director, and more than the host's buffers.
BIG_PREFACE = bytes(8 * BUFFER_BYTES)
#: Without an end by then there is none. Nothing here waits for anything but the kernel, and a reset for its grace.
PATIENCE_S = 5.0
#: Scenarios that are told, of those that went wrong.
TOLD = 5
NO_LIMITS = Limits(0.0, 0.0, 0.0)
#: A step's look is one round. At the end two at a time go faster: one for the events, one for what they left to do.
ROUNDS = 2

Side = Literal["client", "host"]
Action = Literal["small", "bulk", "urgent", "some", "all", "shutdown", "reset"]
SENDS: tuple[Action, ...] = ("small", "bulk", "urgent")
READS: tuple[Action, ...] = ("some", "all")
ACTIONS: tuple[Action, ...] = (*SENDS, *READS, "shutdown", "reset")
OTHER: dict[Side, Side] = {"client": "host", "host": "client"}


class Step(NamedTuple):
    side: Side
    action: Action
    look: bool  #: whether the relay looks right after it

    def __str__(self) -> str:
        return f"{self.side} {self.action}{', look' if self.look else ''}"


class Start(NamedTuple):
    """What was before the first step."""

    connected: bool
    more: int  #: steps from here
    steps: tuple[Step, ...] = ()
    preface: bytes = b""


STARTS = {
    "connecting": Start(False, 3),
    "connecting, with a preface that the host does not take": Start(False, 2, preface=BIG_PREFACE),
    "connected": Start(True, 3),
    "connected, with a preface that the host does not take": Start(True, 2, preface=BIG_PREFACE),
    "a download is stuck": Start(True, 2, (Step("host", "bulk", True), Step("host", "bulk", True))),
    "an upload is stuck": Start(True, 2, (Step("client", "bulk", True), Step("client", "bulk", True))),
}


def scenarios() -> Iterator[tuple[str, tuple[Step, ...]]]:
    """All that make sense: nobody acts after a reset, sends after a shutdown or reads what cannot be there."""
    every = [Step(side, action, look) for side in OTHER for action in ACTIONS for look in (False, True)]
    for name, start in STARTS.items():
        for steps in itertools.product(every, repeat=start.more):
            if not steps[-1].look and makes_sense(start, start.steps + steps):
                yield name, steps


def makes_sense(start: Start, steps: tuple[Step, ...]) -> bool:
    gone, shut, sent, there = set[Side](), set[Side](), set[Side](), set[Side]()
    if start.preface:
        sent.add("client")
    if start.preface and start.connected:
        there.add("client")
    for side, action, look in steps:
        if side in gone or (side in shut and action in (*SENDS, "shutdown")):
            return False
        if action in READS and OTHER[side] not in there:
            return False
        if action in SENDS:
            sent.add(side)
        elif action == "shutdown":
            shut.add(side)
        elif action == "reset":
            gone.add(side)
        if look:
            there |= sent
    return True


class Peer:
    """A client or a host: what it did, and what it saw."""

    def __init__(self, sock: socket.socket, other_first: bytes = b"") -> None:
        self.sock = sock
        self.first = other_first  #: comes before the other's content
        self.sent = self.urgent = self.got = 0
        self.arrived = 0  #: bytes that had left this kernel when it was reset
        self.shut = self.gone = False
        self.saw_end = self.saw_reset = False
        self.wrong = ""

    def act(self, action: Action) -> None:
        try:
            self._act(action)
        except BlockingIOError:
            pass
        except OSError:  # ECONNRESET or EPIPE; ENOTCONN of a shutdown
            self.saw_reset = True

    def _act(self, action: Action) -> None:
        if action == "small":
            self.send(SMALL_BYTES)
        elif action == "bulk":
            while self.sent < MOST_BYTES:
                self.send(MOST_BYTES - self.sent)
        elif action == "urgent":
            self.sock.send(URGENT, socket.MSG_OOB)
            self.urgent += 1
        elif action == "some":
            self.read(SOME_BYTES)
        elif action == "all":
            while not self.saw_end:
                self.read(MOST_BYTES)
        elif action == "shutdown":
            self.sock.shutdown(socket.SHUT_WR)
            self.shut = True
        else:
            queued = int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
            self.arrived = max(0, self.sent - queued)
            self.close()

    def send(self, size: int) -> None:
        self.sent += self.sock.send(CONTENT[self.sent : self.sent + size])

    def read(self, size: int) -> None:
        data = self.sock.recv(size)
        self.saw_end = not data
        data = data.replace(URGENT, b"")
        at = self.got - len(self.first)
        expected = self.first[self.got : self.got + len(data)] + CONTENT[max(0, at) : max(0, at + len(data))]
        if data != expected:
            self.wrong = f"other bytes than sent after {self.got}"
        self.got += len(data)

    def take(self) -> None:
        """Read all there is, up to the end."""
        if not (self.gone or self.saw_end):
            self.act("all")  # after a reset too: a send may have told of it, and bytes be left

    def close(self) -> None:
        self.gone = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        self.sock.close()


class Reactor(Clock):
    """Real time that passes when it is told to; no descriptor is looked at but by the scenario."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = time.monotonic()

    def catch_up(self) -> None:
        self.advance(max(0.0, time.monotonic() - self.rightNow))

    def addReader(self, _: object) -> None: ...

    def removeReader(self, _: object) -> None: ...


class Stepped:
    """A relay that looks when it is told to, and remembers what it said."""

    def __init__(self, kind: Literal["python", "native"]) -> None:
        self.reactor = Reactor()
        self.relay = make_relay(kind, reactor=self.reactor)
        self.said: dict[object, list[str]] = {}
        self.final: tuple[Any, ...] = ()
        self._look: Callable[[int], None] = self._look_python
        stream.TURN_BYTES = TURN_BYTES
        if kind == "native":
            native = import_module("director.relay._relay")
            native.hold(True)
            self._look = native.look
        self.relay.start(self)

    def _look_python(self, rounds: int) -> None:
        for _ in range(rounds):
            self.relay.doRead()  # type: ignore[attr-defined]

    def look(self, rounds: int = 1) -> None:
        self.reactor.catch_up()
        self._look(rounds)
        self.relay.doRead()  # type: ignore[attr-defined]

    def stop(self) -> None:
        if self.relay.name == "native":
            import_module("director.relay._relay").hold(False)
        self.relay.stop()

    # RelayEvents

    def connected(self, token: object) -> None:
        self.said.setdefault(token, []).append("connected")

    def connect_failed(self, token: object, client: int, error: int) -> None:
        self.said.setdefault(token, []).append("connect_failed")
        self.final = (client, error)

    def closed(self, token: object, reason: Reason, to_host: int, to_client: int) -> None:
        self.said.setdefault(token, []).append("closed")
        self.final = (reason, to_host, to_client)


class Address:
    """Where one side connects to; its sockets have small buffers that do not grow."""

    def __init__(self) -> None:
        self.listener = self.sock()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()

    def sock(self) -> socket.socket:
        sock = socket.socket()
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        return sock

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Who connected, and what was accepted; neither blocks."""
        sock = self.sock()
        sock.connect(self.listener.getsockname())
        accepted, _ = self.listener.accept()
        for each in (sock, accepted):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock, accepted


def run(stepped: Stepped, address: Address, token: int, name: str, steps: tuple[Step, ...]) -> str:
    """Play a scenario; returns what went wrong, or nothing."""
    start = STARTS[name]
    client, accepted = address.pair()
    host, server = address.pair()
    peers: dict[Side, Peer] = {"client": Peer(client), "host": Peer(server, start.preface)}
    handle = stepped.relay.relay(token, accepted.detach(), host.detach(), NO_LIMITS, start.preface)
    stepped.final = ()
    if start.connected:
        stepped.look()
    for side, action, look in start.steps + steps:
        peers[side].act(action)
        if look:
            stepped.look()
    wrong, deadline = "never looked at", time.monotonic() + PATIENCE_S
    while wrong and time.monotonic() < deadline:
        stepped.look(ROUNDS)
        for peer in peers.values():
            peer.take()
        wrong = what_is_wrong(stepped, token, peers)
    if not stepped.final:
        stepped.relay.kill(handle, Reason.KILLED)
        while not stepped.final and time.monotonic() < deadline + PATIENCE_S:
            stepped.look(ROUNDS)
        if not stepped.final:
            return wrong or "killed, and not over"
    if len(stepped.final) == 2:
        with socket.socket(fileno=stepped.final[0]) as given_back:
            given_back.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    for peer in peers.values():
        if not peer.gone:
            peer.close()
    said = stepped.said.pop(token)
    if said not in (["connected", "closed"], ["closed"], ["connect_failed"]):
        return f"events {said}"
    return wrong


def what_is_wrong(stepped: Stepped, token: int, peers: dict[Side, Peer]) -> str:
    """Compare with what a blocking copier would have brought about; empty when all of it has come."""
    final, client, host = stepped.final, peers["client"], peers["host"]
    connected = "connected" in stepped.said.get(token, ())
    for side, peer in peers.items():
        if peer.wrong:
            return f"{side}: {peer.wrong}"
    if not (client.gone or host.gone):
        for side, peer in peers.items():
            sender = peers[OTHER[side]]
            if peer.saw_reset:
                return f"{side}: reset by nobody"
            if peer.got != len(peer.first) + sender.sent:
                return f"{side}: {peer.got} bytes of {len(peer.first) + sender.sent}"
            if peer.saw_end != sender.shut:
                return f"{side}: {'an' if peer.saw_end else 'no'} end"
        if client.shut and host.shut:
            if not final:
                return "both finished, and it is not over"
            return counted(final, client, host)
        return f"over: {final}" if final else ""
    if not final:
        return "reset, and not over"
    if len(final) == 2:
        return "" if host.gone and not connected else f"connect_failed: {final}"
    both_shut = client.shut and host.shut
    allowed = {Reason.CLIENT_RESET} if client.gone else set()
    allowed |= {Reason.HOST_RESET} if host.gone else set()
    allowed |= {Reason.CLIENT_CLOSED, Reason.HOST_CLOSED} if both_shut else set()
    if final[0] not in allowed:
        return f"ended with {final[0]}"
    for side, peer in peers.items():
        sender = peers[OTHER[side]]
        if peer.gone:
            continue
        if not (peer.saw_reset or peer.saw_end):
            return f"{side}: no end at all"
        if peer.saw_end and not peer.saw_reset and not sender.shut:
            return f"{side}: a reset came as an end"
        if connected and peer.got < len(peer.first) + sender.arrived:
            return f"{side}: {peer.got} bytes, of {len(peer.first) + sender.arrived} that came before the reset"
    return ""


def counted(final: tuple[Any, ...], client: Peer, host: Peer) -> str:
    """An urgent byte may have been passed on, or not."""
    for got, sender in ((final[1], client), (final[2], host)):
        if not sender.sent <= got <= sender.sent + sender.urgent:
            return f"counted {got} bytes of {sender.sent}"
    if final[0] not in (Reason.CLIENT_CLOSED, Reason.HOST_CLOSED):
        return f"ended with {final[0]}"
    return ""


def main(kind: Literal["python", "native"]) -> dict[str, Any]:
    gc.collect()
    before = descriptors()
    stepped, address = Stepped(kind), Address()
    count, wrong = 0, []
    for name, steps in islice(scenarios(), 0, None, EVERY):
        if found := run(stepped, address, count, name, steps):
            wrong.append(f"{name}; {', '.join(map(str, steps))}: {found}")
            if len(wrong) == TOLD:
                break
        count += 1
    counters = stepped.relay.counters()
    stepped.stop()
    address.listener.close()
    gc.collect()
    return {"count": count, "wrong": wrong, "open": counters.open, "spliced": counters.spliced_bytes > 0,
            "leaked": descriptors() - before}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))  # type: ignore[arg-type]
