"""What every relay must do, on real sockets. A new implementation is one more class at the end."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, TestCase

from cluster.errors import Misuse
from cluster.model import Reason
from director.relay.choice import native_missing
from tests.contract.relay_kit import (
    LIMITS,
    Relayed,
    RelayKit,
    blocking,
    descriptors,
    local_address,
    many_descriptors,
    pattern,
    power_off,
    receive,
    receive_all,
    receive_until_reset,
    reset,
    unsent,
    wait_until,
)

SIZES = (1, 100, 5_000, 70_000, 400_000)
#: More than every buffer between two peers on loopback that do not read.
MORE_THAN_BUFFERS = 40_000_000
#: Of those that are many: none is to be cut while the others, on however slow a machine, are still being made.
PATIENT = LIMITS._replace(idle_s=0.0)


class RelayContract:
    """Base of the parts of the contract: a fresh relay for each test, and what must hold at the end of every one."""

    kind: str
    threads = 1
    splices = True
    make_kit: Callable[[str, int], RelayKit] = RelayKit

    def begin(self) -> None:
        """In the test's thread, once the reactor runs (which has descriptors of its own)."""
        gc.collect()
        self.descriptors = descriptors()
        self.kit = type(self).make_kit(self.kind, self.threads)
        self.addCleanup(self.check_the_end)  # type: ignore[attr-defined]
        self.kit.on_reactor(self.kit.start)

    def check_the_end(self) -> None:
        """Exactly one final event for each call, all on the reactor's thread; no descriptor is left behind."""
        self.kit.stop()
        assert self.kit.events.violations == []
        for token in self.kit.tokens:
            assert self.kit.events.has_final(token), f"{token} has no final event"
        assert descriptors() == self.descriptors


class Streams(RelayContract):
    """Bytes and FIN."""

    @blocking
    def test_request_then_fin_then_answer(self) -> None:
        """A client that finished sending still gets the whole answer, at every size."""
        for size in SIZES:
            relayed = self.kit.relayed()
            request, answer = pattern(size, "request"), pattern(size, "answer")
            sending = self.kit.run(lambda r=relayed, b=request: (r.client.sendall(b), r.client.shutdown(socket.SHUT_WR)))
            assert receive_all(relayed.server) == request
            sending.result()
            answering = self.kit.run(lambda r=relayed, b=answer: (r.server.sendall(b), r.server.close()))
            assert receive_all(relayed.client) == answer
            answering.result()
            assert self.kit.events.final(relayed.token)[:3] == (Reason.CLIENT_CLOSED, size, size)

    @blocking
    def test_server_finishes_first(self) -> None:
        """A host that finished sending still gets everything the client goes on to send, at every size."""
        for size in SIZES:
            relayed = self.kit.relayed()
            banner, upload = pattern(size, "banner"), pattern(size, "upload")
            answering = self.kit.run(lambda r=relayed, b=banner: (r.server.sendall(b), r.server.shutdown(socket.SHUT_WR)))
            assert receive_all(relayed.client) == banner
            answering.result()
            sending = self.kit.run(lambda r=relayed, b=upload: (r.client.sendall(b), r.client.close()))
            assert receive_all(relayed.server) == upload
            sending.result()
            assert self.kit.events.final(relayed.token)[:3] == (Reason.HOST_CLOSED, size, size)

    @blocking
    def test_fin_behind_a_stall(self) -> None:
        """FIN waits its turn behind bytes that a slow reader has not taken yet."""
        relayed = self.kit.relayed()
        answer = pattern(MORE_THAN_BUFFERS, "stall")
        answering = self.kit.run(lambda: (relayed.server.sendall(answer), relayed.server.close()))
        wait_until(lambda: self.kit.on_reactor(self.kit.relay.counters).stalled == 1)
        assert receive_all(relayed.client) == answer
        answering.result()

    @blocking
    def test_banner(self) -> None:
        """A host that speaks first is heard without a byte from the client."""
        relayed = self.kit.relayed()
        relayed.server.sendall(b"220 ready\r\n")
        assert receive(relayed.client, 11) == b"220 ready\r\n"

    @blocking
    def test_ping_pong(self) -> None:
        """Small messages go back and forth as often as one likes."""
        relayed = self.kit.relayed()
        for turn in range(500):
            message = pattern(turn % 200 + 1, turn)
            relayed.client.sendall(message)
            assert receive(relayed.server, len(message)) == message
            relayed.server.sendall(message)
            assert receive(relayed.client, len(message)) == message

    @blocking
    def test_both_ways_at_once(self) -> None:
        """Bulk in both directions at the same time arrives whole."""
        relayed = self.kit.relayed()
        up, down = pattern(8_000_000, "up"), pattern(8_000_000, "down")
        jobs = [
            self.kit.run(lambda: (relayed.client.sendall(up), relayed.client.shutdown(socket.SHUT_WR))),
            self.kit.run(lambda: (relayed.server.sendall(down), relayed.server.shutdown(socket.SHUT_WR))),
        ]
        received = self.kit.run(receive_all, relayed.server)
        assert receive_all(relayed.client) == down
        assert received.result() == up
        for job in jobs:
            job.result()
        assert self.kit.events.final(relayed.token)[1:3] == (len(up), len(down))

    @blocking
    def test_sizes_around_every_boundary(self) -> None:
        """Messages of all magnitudes, one after the other on one connection, whether copied or spliced."""
        relayed = self.kit.relayed()
        rng = random.Random(7)
        sizes = (
            [1 << n for n in range(21)] + [(1 << n) + 1 for n in range(21)] + [rng.randrange(1, 3 << 20) for _ in range(20)]
        )
        rng.shuffle(sizes)
        for number, size in enumerate(sizes):
            message = pattern(size, number)
            sending = self.kit.run(relayed.client.sendall, message)
            assert receive(relayed.server, size) == message
            sending.result()

    @blocking
    def test_urgent_data_stalls_nothing(self) -> None:
        """What follows TCP urgent data is not held up; the urgent byte itself may be lost."""
        relayed = self.kit.relayed()
        relayed.client.sendall(b"before")
        relayed.client.send(b"!", socket.MSG_OOB)
        relayed.client.sendall(b"after")
        relayed.client.shutdown(socket.SHUT_WR)
        assert receive_all(relayed.server).replace(b"!", b"") == b"beforeafter"

    @blocking
    def test_ipv6_and_unix(self) -> None:
        """IPv6 and UNIX sockets, in every combination with IPv4; UNIX sockets half-close too."""
        families = [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX]
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            families.remove(socket.AF_INET6)
        for front in families:
            for back in families:
                relayed = self.kit.relayed(families=(front, back))
                request, answer = pattern(300_000, front), pattern(300_000, back)
                sending = self.kit.run(lambda r=relayed, b=request: (r.client.sendall(b), r.client.shutdown(socket.SHUT_WR)))
                assert receive_all(relayed.server) == request
                answering = self.kit.run(lambda r=relayed, b=answer: (r.server.sendall(b), r.server.close()))
                assert receive_all(relayed.client) == answer
                sending.result(), answering.result()
                assert self.kit.events.final(relayed.token).reason is Reason.CLIENT_CLOSED

    @blocking
    def test_urgent_data_of_a_unix_peer(self) -> None:
        """As over TCP."""
        relayed = self.kit.relayed(families=(socket.AF_UNIX, socket.AF_UNIX))
        relayed.client.sendall(b"before")
        relayed.client.send(b"!", socket.MSG_OOB)
        relayed.client.sendall(b"after")
        relayed.client.shutdown(socket.SHUT_WR)
        assert receive_all(relayed.server).replace(b"!", b"") == b"beforeafter"

    @blocking
    def test_preface(self) -> None:
        """The preface reaches the host before the client's first byte, and is not counted."""
        relayed = self.kit.relayed(preface=b"PROXY UNKNOWN\r\n")
        relayed.client.sendall(b"hello")
        relayed.client.shutdown(socket.SHUT_WR)
        assert receive_all(relayed.server) == b"PROXY UNKNOWN\r\nhello"
        relayed.server.close()
        assert self.kit.events.final(relayed.token).to_host == 5

    @blocking
    def test_preface_without_a_client_byte(self) -> None:
        """The preface does not wait for the client to speak."""
        relayed = self.kit.relayed(preface=b"PROXY UNKNOWN\r\n")
        assert receive(relayed.server, 15) == b"PROXY UNKNOWN\r\n"

    @blocking
    def test_many_connections(self) -> None:
        """2,000 connections at once, each with its own bytes both ways."""
        with many_descriptors(9_000) as allowed:
            if not allowed:
                raise SkipTest("needs 9,000 descriptors")
            every = [self.kit.relayed(PATIENT) for _ in range(2_000)]
            for each in every:
                each.client.sendall(pattern(1_000 + each.token, each.token))
            for each in every:
                assert receive(each.server, 1_000 + each.token) == pattern(1_000 + each.token, each.token)
                each.server.sendall(pattern(3_000, -each.token))
            for each in every:
                assert receive(each.client, 3_000) == pattern(3_000, -each.token)
            assert self.kit.on_reactor(self.kit.relay.counters).open == 2_000
            for each in every:
                each.client.close()
                each.server.close()
            for each in every:
                assert self.kit.events.final(each.token)[1:3] == (1_000 + each.token, 3_000)


class Resets(RelayContract):
    """RST, and peers that vanish."""

    def both_ways(self, relayed: Relayed) -> list[tuple[socket.socket, socket.socket, Reason]]:
        return [
            (relayed.server, relayed.client, Reason.HOST_RESET),
            (relayed.client, relayed.server, Reason.CLIENT_RESET),
        ]

    @blocking
    def test_reset_is_passed_on(self) -> None:
        """RST on one side arrives as RST on the other, both ways."""
        for way in (0, 1):
            relayed = self.kit.relayed()
            sender, receiver, reason = self.both_ways(relayed)[way]
            reset(sender)
            assert receive_until_reset(receiver) == (b"", True)
            assert self.kit.events.final(relayed.token).reason is reason

    @blocking
    def test_reset_after_an_answer(self) -> None:
        """Everything that was sent before a RST arrives before the RST, at every size, both ways."""
        for size in SIZES:
            for way in (0, 1):
                relayed = self.kit.relayed()
                sender, receiver, reason = self.both_ways(relayed)[way]
                data = pattern(size, way)
                receiving = self.kit.run(receive_until_reset, receiver)
                sender.sendall(data)
                # a reset destroys what the sender's own kernel still holds: that is not the relay's doing
                wait_until(lambda sender=sender: unsent(sender) == 0)
                reset(sender)
                assert receiving.result() == (data, True)
                assert self.kit.events.final(relayed.token).reason is reason

    @blocking
    def test_answer_without_reading_the_request(self) -> None:
        """A host that answers and closes with the request unread: its kernel resets, the client has the answer."""
        relayed = self.kit.relayed()
        relayed.client.sendall(pattern(5_000, "request"))
        assert receive(relayed.server, 1)
        relayed.server.sendall(b"413 too large")
        relayed.server.close()
        assert receive_until_reset(relayed.client) == (b"413 too large", True)

    @blocking
    def test_reset_while_half_closed(self) -> None:
        """RST after FIN is passed on too."""
        relayed = self.kit.relayed()
        relayed.client.sendall(b"request")
        relayed.client.shutdown(socket.SHUT_WR)
        assert receive_all(relayed.server) == b"request"
        reset(relayed.client)
        wait_until(lambda: self.kit.events.has_final(relayed.token))
        try:
            relayed.server.sendall(b"answer")
            relayed.server.sendall(b"answer")
            got_reset = receive_until_reset(relayed.server)[1]
        except (ConnectionResetError, BrokenPipeError):
            got_reset = True
        assert got_reset
        assert self.kit.events.final(relayed.token).reason is Reason.CLIENT_RESET

    @blocking
    def test_peers_that_answer_no_more(self) -> None:
        """A peer whose machine is gone is lost, and not reset: noticed by keepalive when idle, else by the user timeout; also
        after its FIN. The other end is reset."""
        ways = [self.kit.run(self.lost, way, busy, half) for way in (0, 1) for busy in (0, 1) for half in (0, 1)]
        for way in ways:
            way.result()

    def lost(self, way: int, busy: int, half: int) -> None:
        options = [(socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 1)]
        client, accepted = self.kit.client()
        with self.kit.listener() as listener:
            host = self.kit.connecting(listener)
            with socket.socket(fileno=os.dup((accepted, host)[way])) as mine:
                mine.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in [(socket.TCP_USER_TIMEOUT, 300)] if busy else options:
                    mine.setsockopt(socket.IPPROTO_TCP, option, value)
            token, _ = self.kit.hand_over(accepted, host)
            server = self.kit.accept(listener)
        self.kit.events.wait_connected(token)
        gone, other = (client, server)[:: -1 if way else 1]
        if half:
            gone.shutdown(socket.SHUT_WR)
            assert receive_all(other) == b""
        power_off(gone)
        if busy:
            other.sendall(b"anybody there?")
        reason = self.kit.events.final(token).reason
        assert reason is (Reason.CLIENT_LOST, Reason.HOST_LOST)[way], (way, busy, half, reason)
        assert half or receive_until_reset(other) == (b"", True)

    @blocking
    def test_reset_behind_a_stall(self) -> None:
        """A receiver that does not read cannot hold a reset connection for longer than the grace."""
        relayed = self.kit.relayed()
        relayed.server.setblocking(False)
        counters = self.kit.relay.counters
        while self.kit.on_reactor(counters).stalled == 0:
            with contextlib.suppress(BlockingIOError):
                relayed.server.send(bytes(65_536))
        wait_until(lambda: self.kit.on_reactor(counters).stalled == 1)
        before = time.monotonic()
        reset(relayed.server)
        assert self.kit.events.final(relayed.token).reason is Reason.HOST_RESET
        assert time.monotonic() - before < 10
        assert receive_until_reset(relayed.client)[1]

    @blocking
    def test_sending_to_a_closed_peer(self) -> None:
        """Bytes for a host that is gone bring its RST back to the client."""
        relayed = self.kit.relayed()
        relayed.server.close()
        assert receive_all(relayed.client) == b""
        relayed.client.sendall(b"anybody?")
        assert self.kit.events.final(relayed.token).reason is Reason.HOST_RESET

    @blocking
    def test_host_is_killed_in_mid_transfer(self) -> None:
        """SIGKILL of a backend in the middle of a download: the client has a prefix and an end, the relay one event."""
        for _ in range(5):
            client, accepted = self.kit.client()
            with self.kit.listener() as listener:
                token, _ = self.kit.hand_over(accepted, self.kit.connecting(listener))
                server, _ = listener.accept()
                backend = subprocess.Popen(
                    [sys.executable, "-c", f"import os\nwhile True: os.write({server.fileno()}, b'x' * 65536)"],
                    pass_fds=[server.fileno()],
                    stderr=subprocess.DEVNULL,
                )
                server.close()
            assert receive(client, 3_000_000) == b"x" * 3_000_000
            backend.send_signal(signal.SIGKILL)
            backend.wait()
            assert set(receive_until_reset(client)[0]) == {ord("x")}
            client.close()
            assert self.kit.events.final(token).to_client > 3_000_000


class Connects(RelayContract):
    """While the connect is pending, and when it fails."""

    @blocking
    def test_refused_then_another_host(self) -> None:
        """A refused connect gives the client's descriptor back with its bytes unread, good for another host."""
        client, accepted = self.kit.client()
        client.sendall(b"early bytes")
        closed = self.kit.listener()
        address = closed.getsockname()
        closed.close()
        host = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        host.connect_ex(address)
        token, _ = self.kit.hand_over(accepted, host.detach(), preface=b"first ")
        failed = self.kit.events.final(token)
        assert (failed.client, failed.error) == (accepted, errno.ECONNREFUSED)
        assert not self.kit.events.was_connected(token)
        with self.kit.listener() as listener:
            again, _ = self.kit.hand_over(failed.client, self.kit.connecting(listener), preface=b"second ")
            server = self.kit.accept(listener)
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"second early bytes"
        server.close()
        assert self.kit.events.final(again).to_host == 11

    @blocking
    def test_connect_timeout(self) -> None:
        """A connect without an answer fails with ETIMEDOUT after *connect_s*; the client is kept."""
        client, accepted = self.kit.client()
        listener = self.kit.unanswering()
        before = time.monotonic()
        token, _ = self.kit.hand_over(accepted, self.kit.connecting(listener), LIMITS._replace(connect_s=0.2))
        failed = self.kit.events.final(token)
        assert (failed.client, failed.error) == (accepted, errno.ETIMEDOUT)
        assert time.monotonic() - before >= 0.2
        self.kit.answer(failed.client, b"sorry")
        assert receive_all(client) == b"sorry"

    @blocking
    def test_reset_during_connect(self) -> None:
        """A client's RST ends a pending connect."""
        client, accepted = self.kit.client()
        token, _ = self.kit.hand_over(accepted, self.kit.connecting(self.kit.unanswering()))
        reset(client)
        assert self.kit.events.final(token)[:3] == (Reason.CLIENT_RESET, 0, 0)
        assert not self.kit.events.was_connected(token)

    @blocking
    def test_fin_during_connect(self) -> None:
        """A client's FIN does not: it follows the bytes once the connect succeeds, and the answer arrives."""
        client, accepted = self.kit.client()
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        listener = self.kit.unanswering()
        connecting = self.kit.connecting(listener)
        source = local_address(connecting)
        token, _ = self.kit.hand_over(accepted, connecting)
        while True:  # the fillers of the queue come first
            server, peer = listener.accept()
            if peer == source:
                server = self.kit.serve(server)
                break
            self.kit.keep(server)
        assert receive_all(server) == b"request"
        server.sendall(b"answer")
        server.close()
        assert receive_all(client) == b"answer"
        assert self.kit.events.final(token)[:3] == (Reason.CLIENT_CLOSED, 7, 6)

    @blocking
    def test_kill_during_connect(self) -> None:
        """A pending connect can be killed; the client's descriptor is not given back then."""
        client, accepted = self.kit.client()
        token, handle = self.kit.hand_over(accepted, self.kit.connecting(self.kit.unanswering()))
        self.kit.on_reactor(self.kit.relay.kill, handle, Reason.KILLED)
        assert self.kit.events.final(token).reason is Reason.KILLED
        assert receive_until_reset(client) == (b"", True)


class Timeouts(RelayContract):
    """Timeouts."""

    @blocking
    def test_idle(self) -> None:
        """A connection without progress is cut after *idle_s*, by RST both ways: a cut must not look like an end."""
        relayed = self.kit.relayed(LIMITS._replace(idle_s=0.3))
        before = time.monotonic()
        assert self.kit.events.final(relayed.token).reason is Reason.IDLE_TIMEOUT
        assert time.monotonic() - before >= 0.25
        assert receive_until_reset(relayed.client) == (b"", True)
        assert receive_until_reset(relayed.server) == (b"", True)

    @blocking
    def test_either_direction_is_activity(self) -> None:
        """Progress in one direction alone keeps a connection alive, small and spliced, up and down."""
        jobs = [self.kit.run(self.one_direction, way, size) for way in (0, 1) for size in (1, 300_000)]
        for job in jobs:
            job.result()

    def one_direction(self, way: int, size: int) -> None:
        relayed = self.kit.relayed(LIMITS._replace(idle_s=1.0))
        sender, receiver = (relayed.client, relayed.server)[:: -1 if way else 1]
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            sending = self.kit.run(sender.sendall, bytes(size))
            assert len(receive(receiver, size)) == size
            sending.result()
            time.sleep(0.05)
        assert not self.kit.events.has_final(relayed.token)

    @blocking
    def test_half_closed(self) -> None:
        """Once one side finished, *half_closed_s* holds instead."""
        for way in (0, 1):
            relayed = self.kit.relayed(LIMITS._replace(half_closed_s=0.3))
            (relayed.client, relayed.server)[way].shutdown(socket.SHUT_WR)
            assert self.kit.events.final(relayed.token).reason is Reason.HALF_CLOSED_TIMEOUT

    @blocking
    def test_max_age(self) -> None:
        """*max_age_s* cuts a connection however busy it is."""
        relayed = self.kit.relayed(LIMITS._replace(max_age_s=0.5))
        try:
            while not self.kit.events.has_final(relayed.token):
                relayed.client.sendall(b"x")
                relayed.server.recv(1)
        except OSError:
            pass
        assert self.kit.events.final(relayed.token).reason is Reason.MAX_AGE

    @blocking
    def test_no_limits(self) -> None:
        """Zero turns a limit off."""
        relayed = self.kit.relayed(LIMITS._replace(connect_s=0, idle_s=0, half_closed_s=0))
        relayed.client.shutdown(socket.SHUT_WR)
        assert receive_all(relayed.server) == b""
        relayed.server.sendall(b"still here")
        assert receive(relayed.client, 10) == b"still here"


class Steering(RelayContract):
    """Kill, progress, counters, stop."""

    @blocking
    def test_kill(self) -> None:
        """A killed connection is reset on both sides, with the given reason; a second kill is ignored."""
        relayed = self.kit.relayed()
        self.kit.on_reactor(self.kit.relay.kill, relayed.handle, Reason.DRAIN_DEADLINE)
        self.kit.on_reactor(self.kit.relay.kill, relayed.handle, Reason.KILLED)
        assert self.kit.events.final(relayed.token).reason is Reason.DRAIN_DEADLINE
        assert receive_until_reset(relayed.client) == (b"", True)
        assert receive_until_reset(relayed.server) == (b"", True)

    @blocking
    def test_handles_are_never_reused(self) -> None:
        """A handle of a connection that is over does not kill the next one, though the descriptors are the same."""
        handles = set()
        for _ in range(20):
            relayed = self.kit.relayed()
            for old in handles:
                self.kit.on_reactor(self.kit.relay.kill, old, Reason.KILLED)
                assert self.kit.on_reactor(self.kit.relay.progress, old) is None
            handles.add(relayed.handle)
            relayed.client.close()
            relayed.server.close()
            assert self.kit.events.final(relayed.token).reason is not Reason.KILLED
        assert len(handles) == 20

    @blocking
    def test_descriptors_that_live_on_elsewhere(self) -> None:
        """Another process that inherited descriptors keeps them alive beyond their connection: what happens there does
        not touch the connection that comes after, on the same numbers."""
        client, accepted = self.kit.client()
        with self.kit.listener() as listener:
            host = self.kit.connecting(listener)
            server = self.kit.accept(listener)
        holder = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[accepted, host], stderr=subprocess.DEVNULL
        )
        self.addCleanup(holder.communicate, b"\n")  # type: ignore[attr-defined]
        old, handle = self.kit.hand_over(accepted, host)
        self.kit.events.wait_connected(old)
        self.kit.on_reactor(self.kit.relay.kill, handle, Reason.KILLED)
        self.kit.events.final(old)
        with open(os.devnull) as nothing:  # keeps their numbers
            os.dup2(nothing.fileno(), accepted), os.dup2(nothing.fileno(), host)
        relayed = self.kit.relayed(numbers=(accepted, host))
        reset(client)
        reset(server)
        for turn in range(20):
            relayed.client.sendall(b"%d" % turn)
            assert receive(relayed.server, len(b"%d" % turn)) == b"%d" % turn
        assert not self.kit.events.has_final(relayed.token)

    def progress_of(self, relayed: Relayed) -> Any:
        return self.kit.on_reactor(self.kit.relay.progress, relayed.handle)

    @blocking
    def test_progress(self) -> None:
        """Bytes each way and the time since the last of them, until it is over."""
        relayed = self.kit.relayed(preface=b"preface")
        relayed.client.sendall(bytes(100_000))
        receive(relayed.server, 100_007)
        relayed.server.sendall(bytes(200))
        receive(relayed.client, 200)
        wait_until(lambda: self.progress_of(relayed)[:2] == (100_000, 200))  # counted right after it was sent
        assert 0 <= self.progress_of(relayed).idle_s < 20
        relayed.client.close()
        relayed.server.close()
        self.kit.events.final(relayed.token)
        assert self.kit.on_reactor(self.kit.relay.progress, relayed.handle) is None

    @blocking
    def test_tokens(self) -> None:
        """Of everybody, pending connects included, until it is over."""
        kit = self.kit
        relayed = kit.relayed()
        _, accepted = kit.client()
        connecting, handle = kit.hand_over(accepted, kit.connecting(kit.unanswering()))
        assert set(kit.on_reactor(kit.relay.tokens)) == {relayed.token, connecting}
        relayed.client.close()
        relayed.server.close()
        kit.events.final(relayed.token)
        assert kit.on_reactor(kit.relay.tokens) == [connecting]
        kit.on_reactor(kit.relay.kill, handle, Reason.KILLED)
        kit.events.final(connecting)
        assert kit.on_reactor(kit.relay.tokens) == []

    @blocking
    def test_counters(self) -> None:
        """Gauges of what is, totals of what was; bulk is spliced."""
        kit = self.kit
        relayed = kit.relayed()
        _, accepted = kit.client()
        kit.hand_over(accepted, kit.connecting(kit.unanswering()))
        sending = kit.run(relayed.server.sendall, bytes(5_000_000))
        receive(relayed.client, 5_000_000)
        sending.result()
        wait_until(lambda: kit.on_reactor(kit.relay.counters)[:4] == (2, 1, 0, 5_000_000))
        counters = kit.on_reactor(kit.relay.counters)
        assert counters.spliced_bytes > 2_000_000 or not self.splices
        relayed.client.close()
        relayed.server.close()
        kit.events.final(relayed.token)
        counters = kit.on_reactor(kit.relay.counters)
        assert counters[:4] == (1, 1, 0, 5_000_000)
        assert counters.stalled == 0

    @blocking
    def test_owes_nothing(self) -> None:
        """A relay that turns owes no sign of life, whether there is anything to do or not, nor once it has stopped."""
        kit = self.kit
        assert kit.on_reactor(kit.relay.owes_s) == 0
        for _ in range(3):
            wait_until(lambda: kit.on_reactor(kit.relay.owes_s) == 0)
        relayed = kit.relayed()
        sending = kit.run(relayed.server.sendall, bytes(5_000_000))
        receive(relayed.client, 5_000_000)
        sending.result()
        for _ in range(3):
            wait_until(lambda: kit.on_reactor(kit.relay.owes_s) == 0)

        def stopped() -> float:
            kit.events.calling = False  # stop is the one call that delivers
            kit.relay.stop()
            return kit.relay.owes_s()

        assert kit.on_reactor(stopped) == 0

    @blocking
    def test_stop(self) -> None:
        """Stopping ends every connection and delivers every event before it returns; then relaying is misuse."""
        relayed = [self.kit.relayed() for _ in range(50)]
        _, accepted = self.kit.client()
        pending, _ = self.kit.hand_over(accepted, self.kit.connecting(self.kit.unanswering()))
        tokens = [each.token for each in relayed] + [pending]

        def stop() -> list[Reason | None]:
            self.kit.events.calling = False  # stop is the one call that delivers
            self.kit.relay.stop()
            return [self.kit.events.final(token).reason for token in tokens if self.kit.events.has_final(token)]

        assert self.kit.on_reactor(stop) == [Reason.SHUTDOWN] * 51
        for each in relayed:
            assert receive_until_reset(each.client) == (b"", True)
        try:
            self.kit.hand_over(-1, -1)
        except Misuse:
            self.kit.tokens.pop()
        else:
            raise AssertionError("no Misuse")

    @blocking
    def test_callbacks_that_raise(self) -> None:
        """An exception out of a callback is logged and costs nothing else."""

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        events = self.kit.events
        events.connected = broken  # type: ignore[method-assign]
        client, accepted = self.kit.client()
        with self.kit.listener() as listener:
            token, _ = self.kit.hand_over(accepted, self.kit.connecting(listener))
            server = self.kit.accept(listener)
        client.sendall(b"x")
        assert receive(server, 1) == b"x"
        client.close()
        server.close()
        assert events.final(token).to_host == 1
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1  # type: ignore[attr-defined]

    @blocking
    def test_callbacks_may_call_the_relay(self) -> None:
        """From within an event the next connection may be handed over, and this one killed."""
        events, kit = self.kit.events, self.kit
        recorded = events.connected
        handles: dict[object, int] = {}

        def kill(token: object) -> None:
            recorded(token)
            events.calling = True
            kit.relay.kill(handles[token], Reason.KILLED)
            events.calling = False

        events.connected = kill  # type: ignore[method-assign]
        for _ in range(10):
            client, accepted = kit.client()
            with kit.listener() as listener:
                host = kit.connecting(listener)

                def hand_over(accepted: int = accepted, host: int = host) -> int:
                    token = kit.new_token(accepted)
                    handles[token] = kit.relay.relay(token, accepted, host, LIMITS)
                    return token

                token = kit.on_reactor(hand_over)
                kit.accept(listener)
                assert events.final(token).reason is Reason.KILLED
            assert receive_until_reset(client)[1]


class Endurance(RelayContract):
    """Memory, exhaustion, and everything at once."""

    def in_a_child(self, scenario: str) -> dict[str, Any]:
        """A scenario of relay_child.py in a fresh process; what it found."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.contract.relay_child", self.kind, scenario],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @blocking
    def test_stalled_readers(self) -> None:
        """20 readers that take nothing of 100 MB each cost less than 4 MB."""
        found = self.in_a_child("stalled")
        assert found["stalled"] == 20
        assert found["rss_bytes"] < 4_000_000, found

    @blocking
    def test_without_pipes(self) -> None:
        """An ordinary user over the quota of pipes: bulk is copied, and arrives whole."""
        found = self.in_a_child("no_pipes")
        assert found == {"whole": 100, "spliced_bytes": 0, "pipes": 0, "reasons": ["host_closed"]}

    @blocking
    def test_more_streams_than_pipes(self) -> None:
        """As an ordinary user with more stalled bulk streams than there are pipes: all arrive whole."""
        found = self.in_a_child("many_streams")
        assert found["whole"] == 600, found
        assert found["spliced_bytes"] > 0
        assert 0 < found["pipes"] < 600
        assert found["reasons"] == ["host_closed"]

    @blocking
    def test_soak(self) -> None:
        """Random sizes, pauses, ends and resets on 300 connections: what arrives is always a prefix of what was sent,
        and all of it unless somebody reset or killed."""
        with ThreadPoolExecutor(32) as connections, ThreadPoolExecutor(128) as peers:
            jobs = [connections.submit(self.one_of_the_soak, peers, seed) for seed in range(300)]
            for job in jobs:
                job.result()

    def one_of_the_soak(self, peers: ThreadPoolExecutor, seed: int) -> None:
        rng = random.Random(seed)
        relayed = self.kit.relayed()
        sides = [Side(relayed.client, seed, "client"), Side(relayed.server, seed, "server")]
        fate = rng.choices(["whole", "reset", "killed"], [8, 3, 1])[0]
        if fate == "reset":
            rng.choice(sides).resets = True
        jobs = [peers.submit(work) for side in sides for work in (side.send, side.take)]
        if fate == "killed":
            self.kit.on_reactor(self.kit.relay.kill, relayed.handle, Reason.KILLED)
        for job in jobs:
            job.result()
        final = self.kit.events.final(relayed.token)
        for side, other in zip(sides, sides[::-1], strict=True):
            side.sock.close()
            assert other.data.startswith(side.received), f"seed {seed}"
            if fate == "whole":
                assert side.received == other.data, f"seed {seed}"
        if fate == "whole":
            assert final[1:3] == (len(sides[0].data), len(sides[1].data)), f"seed {seed}"
        elif fate == "reset":
            resetting = Reason.CLIENT_RESET if sides[0].resets else Reason.HOST_RESET
            # the other may have finished first, and everything with it
            assert final.reason in (resetting, Reason.CLIENT_CLOSED, Reason.HOST_CLOSED), f"seed {seed}: {final}"


class Side:
    """One peer of a soaked connection: sends and takes in random pieces with random pauses, then ends or resets."""

    def __init__(self, sock: socket.socket, seed: int, name: str) -> None:
        self.sock = sock
        self.rng = random.Random(f"{seed} {name}")
        self.data = pattern(int(2 ** self.rng.uniform(0, 21)), (seed, name))
        self.received = b""
        self.resets = False

    def send(self) -> None:
        rng = random.Random(self.rng.random())
        at = 0
        try:
            while at < len(self.data):
                size = int(2 ** rng.uniform(0, 19))
                self.sock.sendall(self.data[at : at + size])
                at += size
                if rng.random() < 0.2:
                    time.sleep(rng.random() * 0.02)
            if self.resets:
                wait_until(lambda: unsent(self.sock) == 0)
                reset(self.sock)
            else:
                self.sock.shutdown(socket.SHUT_WR)
        except OSError:  # reset by the other side, or killed
            pass

    def take(self) -> None:
        if self.resets:  # and therefore does not read: a close does not happen while another thread waits in recv
            return
        rng = random.Random(self.rng.random())
        parts = []
        try:
            while part := self.sock.recv(int(2 ** rng.uniform(8, 20))):
                parts.append(part)
                if rng.random() < 0.1:
                    time.sleep(rng.random() * 0.02)
        except OSError:
            pass
        self.received = b"".join(parts)


class PythonRelayTests(Streams, Resets, Connects, Timeouts, Steering, Endurance, TestCase):
    """The Python relay keeps the contract."""

    kind = "python"

    @blocking
    def test_epoll_refuses(self) -> None:
        """ENOSPC (max_user_watches) for either descriptor costs that connection alone. The native one's: test_relay_faults."""
        bystander, relay = self.kit.relayed(), self.kit.relay
        epoll = relay._epoll  # type: ignore[attr-defined]
        for answers in ([errno.ENOSPC], [0, errno.ENOSPC]):
            client, accepted = self.kit.client()
            with self.kit.listener() as listener:
                host = self.kit.connecting(listener)
                server = self.kit.accept(listener)
            relay._epoll = Refusing(epoll, iter(answers))  # type: ignore[attr-defined]
            token, _ = self.kit.hand_over(accepted, host)
            assert self.kit.events.final(token)[:3] == (Reason.RELAY_ERROR, 0, 0)
            relay._epoll = epoll  # type: ignore[attr-defined]
            assert receive_until_reset(client)[1] and receive_until_reset(server)[1]
            bystander.client.sendall(b"x")
            assert receive(bystander.server, 1) == b"x"
        assert len(self.flushLoggedErrors()) == 0


class Refusing:
    """An epoll object that registers a descriptor or raises, as its answers say."""

    def __init__(self, epoll: Any, answers: Iterator[int]) -> None:
        self._epoll, self._answers = epoll, answers

    def register(self, fd: int, mask: int) -> None:
        if error := next(self._answers):
            raise OSError(error, os.strerror(error))
        self._epoll.register(fd, mask)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


class NativeRelayTests(Streams, Resets, Connects, Timeouts, Steering, Endurance, TestCase):
    """So does the native one."""

    kind = "native"

    def setUp(self) -> None:
        if why := native_missing():
            if os.environ.get("CI"):
                raise AssertionError(f"no native relay: {why}")
            raise SkipTest(f"no native relay: {why}; `python hatch_build.py` builds it")


class NativeRelayThreadsTests(NativeRelayTests):
    """And with several threads, where a connection may be on any of them."""

    threads = 3
