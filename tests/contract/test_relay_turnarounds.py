"""What every relay counts of who speaks: turnarounds, their times, and hosts that speak unasked."""

from __future__ import annotations

import os
import random
import time

from twisted.trial.unittest import SkipTest, TestCase

from director.relay.choice import native_missing
from director.relay.turnarounds import NO_TALLY, STILL_S, Turnarounds
from tests.contract.relay_kit import (
    Relayed,
    blocking,
    pattern,
    receive,
    receive_all,
    receive_until_reset,
    reset,
    wait_until,
)
from tests.contract.test_relay import RelayContract
from tests.contract.tls_kit import TLSBothWaysKit

#: Beyond one chunk, one pipe and what sockets hold by themselves: it goes by splice.
BULK_BYTES = 6_000_000
#: Longer than what counts as a silence, by more than any clock's step.
SILENCE_S = STILL_S * 1.5


class Turns(RelayContract):
    """One relay's tallies."""

    def begin(self) -> None:
        super().begin()
        self.tally: int = self.kit.on_reactor(self.kit.relay.tally)
        assert self.tally != NO_TALLY
        self.paused = 0
        self.spoken = time.monotonic()

    def relayed(self, **arguments: object) -> Relayed:
        return self.kit.relayed(tally=self.tally, **arguments)  # type: ignore[arg-type]

    def counted(self, count: int, unasked: int = 0, tally: int | None = None) -> Turnarounds:
        """Wait until so many turnarounds are counted: the last bytes may reach their peer before they are.

        Each pause of a busy machine may have been a host's silence.
        """
        number = self.tally if tally is None else tally

        def so_many() -> bool:
            found = self.kit.turnarounds(number)
            return found.total == count and unasked <= found.unasked <= unasked + self.paused

        wait_until(so_many)
        return self.kit.turnarounds(number)

    def ends(self, relayed: Relayed) -> None:
        """Nothing is counted after the connection's last event."""
        relayed.client.close()
        relayed.server.close()
        self.kit.events.final(relayed.token)

    def ask(self, relayed: Relayed, question: bytes = b"?", answer: bytes = b"!") -> None:
        self.say(relayed, "client", question)
        self.say(relayed, "host", answer)

    def say(self, relayed: Relayed, who: str, words: bytes, pushed: bool = False) -> None:
        """Until the other has heard all of it. Unless the host shall have *pushed* it, a pause before it was the machine's."""
        before, self.spoken = self.spoken, time.monotonic()
        speaker, listener = (relayed.client, relayed.server) if who == "client" else (relayed.server, relayed.client)
        said = self.kit.run(speaker.sendall, words)
        assert receive(listener, len(words)) == words
        said.result()
        if who == "host" and not pushed and time.monotonic() - before > STILL_S:
            self.paused += 1

    @blocking
    def test_requests(self) -> None:
        """Each request with its answer is one, at every size; nothing is unasked."""
        relayed = self.relayed()
        for number in range(1, 31):
            self.ask(relayed, pattern(number * 1777 % 90_000 + 1, number), pattern(number * 2999 % 200_000 + 1, -number))
            self.counted(number)
        self.ends(relayed)
        self.counted(30)

    @blocking
    def test_time(self) -> None:
        """It lies between what the host took and what the client waited; a first part of the question is no beginning."""
        relayed = self.relayed()
        least = most = 0.0
        for number in range(1, 6):
            self.say(relayed, "client", b"first part, ")
            time.sleep(0.05)
            asked = time.monotonic()
            self.say(relayed, "client", b"last part")
            heard = time.monotonic()
            time.sleep(0.02 * number)
            answered = time.monotonic()
            self.say(relayed, "host", b"answer")
            least += answered - heard
            most += time.monotonic() - asked
            seconds = self.counted(number).seconds
            assert least - 0.005 <= seconds <= most + 0.005  # the relay's clock is read once for many events

    @blocking
    def test_pipeline(self) -> None:
        """Requests before an answer are one turnaround, and so is an answer in pieces."""
        relayed = self.relayed()
        for _ in range(3):
            self.say(relayed, "client", b"?")
        for _ in range(3):
            self.say(relayed, "host", b"!")
        self.counted(1)
        self.ask(relayed)
        self.ends(relayed)
        assert self.counted(2)

    @blocking
    def test_banner(self) -> None:
        """A host that speaks first was not asked, and has not pushed; with a PROXY header before it neither."""
        for preface in (b"", b"PROXY UNKNOWN\r\n"):
            relayed = self.relayed(preface=preface)
            assert receive(relayed.server, len(preface)) == preface
            self.say(relayed, "host", b"220 welcome")
            self.ends(relayed)
        self.counted(0)

    @blocking
    def test_question_behind_a_preface(self) -> None:
        """Bytes that the client sent during the connect are a question, though the preface goes out with them."""
        client, accepted = self.kit.client()
        client.sendall(b"?")
        with self.kit.listener() as listener:
            self.kit.hand_over(accepted, self.kit.connecting(listener), preface=b"preface", tally=self.tally)
            server = self.kit.accept(listener)
        assert receive(server, 8) == b"preface?"
        server.sendall(b"!")
        self.counted(1)

    @blocking
    def test_half_close(self) -> None:
        """A host that answers when the client has finished is timed from the FIN; a FIN alone asks nothing."""
        relayed = self.relayed()
        asked = time.monotonic()
        self.say(relayed, "client", b"all of it")
        time.sleep(0.3)
        relayed.client.shutdown(1)
        assert receive_all(relayed.server) == b""
        relayed.server.sendall(b"answer")
        assert self.counted(1).seconds < time.monotonic() - asked - 0.25
        mute = self.relayed()
        mute.client.shutdown(1)
        assert receive_all(mute.server) == b""
        mute.server.sendall(b"answer")
        mute.server.close()
        assert receive_all(mute.client) == b"answer"
        self.kit.events.final(mute.token)
        self.counted(1)

    @blocking
    def test_bulk(self) -> None:
        """What goes by splice is counted alike: both ways megabytes, and once in each direction alone."""
        relayed = self.relayed()
        bulk = pattern(BULK_BYTES, "bulk")
        for number, (question, answer) in enumerate(((bulk, bulk), (b"?", bulk), (bulk, b"!")), 1):
            self.ask(relayed, question, answer)
            self.counted(number)

    @blocking
    def test_pushes(self) -> None:
        """What a host says after a silence without having been asked is unasked, each time once."""
        relayed = self.relayed()
        self.ask(relayed)
        for number in range(1, 4):
            time.sleep(SILENCE_S)
            self.say(relayed, "host", b"news", pushed=True)
            self.say(relayed, "host", b" and more of it")
            self.counted(1, unasked=number)
        time.sleep(SILENCE_S)
        self.ask(relayed)
        self.counted(2, unasked=3)

    @blocking
    def test_slow_answer(self) -> None:
        """An answer that takes long is a long turnaround and no push; nor is a client's slow reading the host's doing."""
        relayed = self.relayed()
        bulk = pattern(30_000_000, "bulk")
        self.say(relayed, "client", b"?")
        time.sleep(SILENCE_S)
        sent = self.kit.run(relayed.server.sendall, bulk)  # one call: the host itself makes no pause
        assert self.counted(1).seconds >= SILENCE_S - 0.005
        for at in range(0, len(bulk), len(bulk) // 3):
            assert receive(relayed.client, len(bulk) // 3) == bulk[at : at + len(bulk) // 3]
            time.sleep(SILENCE_S)
        sent.result()
        self.ends(relayed)
        self.counted(1)

    @blocking
    def test_reset_behind_an_answer(self) -> None:
        """An answer that a reset follows at once is an answer."""
        for number in range(1, 6):
            relayed = self.relayed()
            self.say(relayed, "client", b"?")
            relayed.server.sendall(b"!")
            reset(relayed.server)
            assert receive_until_reset(relayed.client)[0] == b"!"
            self.counted(number)

    @blocking
    def test_apart(self) -> None:
        """Each tally has its own, a connection without one counts nowhere, and there is room for many hosts."""
        take = self.kit.relay.tally
        others: list[int] = self.kit.on_reactor(lambda: [take() for _ in range(1000)])
        assert len({self.tally, *others}) == 1001 and NO_TALLY not in others
        for times, tally in ((1, self.tally), (2, others[0]), (3, others[-1]), (4, NO_TALLY), (5, 10**6)):
            relayed = self.kit.relayed(tally=tally)
            for _ in range(times):
                self.ask(relayed)
            self.ends(relayed)
        found = self.kit.on_reactor(lambda: [self.kit.relay.turnarounds(each)[::2] for each in (*others, self.tally)])
        assert found == [(2, 0), *[(0, 0)] * 998, (3, 0), (1, 0)]
        assert self.kit.turnarounds(NO_TALLY) == self.kit.turnarounds(10**6) == Turnarounds(0, 0.0, 0)

    @blocking
    def test_free(self) -> None:
        """A tally that is taken anew begins at zero, whatever the connections of the host that had it go on doing."""
        relay, lasting, failed = self.kit.relay, self.relayed(), self.kit.client()[1]
        self.ask(lasting)
        self.counted(1)
        self.kit.on_reactor(relay.free_tally, self.tally)
        self.kit.on_reactor(relay.free_tally, self.tally)  # no harm
        assert self.kit.turnarounds(self.tally) == Turnarounds(0, 0.0, 0)
        fresh: list[int] = self.kit.on_reactor(lambda: [relay.tally() for _ in range(600)])
        self.ask(lasting)
        after = self.kit.relayed(tally=fresh[0])
        self.ask(after)
        self.counted(1, tally=fresh[0])
        assert all(self.kit.turnarounds(tally).total == 0 for tally in fresh[1:])
        with self.kit.listener() as gone:
            host = self.kit.connecting(gone)
        token, _ = self.kit.hand_over(failed, host, tally=fresh[1])
        if self.kit.events.final(token).error:
            os.close(failed)
        self.ends(lasting)
        self.ends(after)
        for each in fresh:
            self.kit.on_reactor(relay.free_tally, each)
        again: list[int] = self.kit.on_reactor(lambda: [relay.tally() for _ in range(700)])
        assert len(set(again)) == 700
        assert all(self.kit.turnarounds(tally) == Turnarounds(0, 0.0, 0) for tally in again)

    @blocking
    def test_together(self) -> None:
        """Connections of one host count together, on whatever thread."""
        many = [self.relayed() for _ in range(12)]
        for relayed in many:
            self.ask(relayed)
        self.counted(12)

    @blocking
    def test_any_dialogue(self) -> None:
        """Whoever speaks when and how much: as many turnarounds as a plain model counts."""
        rng = random.Random(7)
        total = 0
        for _ in range(12):
            preface = rng.choice((b"", b"preface"))
            relayed = self.relayed(preface=preface)
            assert receive(relayed.server, len(preface)) == preface
            asked = False
            for _ in range(25):
                who, words = rng.choice(("client", "host")), pattern(rng.choice((1, 10, 3_000, 40_000, 300_000)), rng.random())
                self.say(relayed, who, words)
                total += asked and who == "host"
                asked = who == "client"
        self.counted(total)

    @blocking
    def test_stopped(self) -> None:
        """A relay that has stopped has no tallies, and no room for any."""
        self.kit.on_reactor(self.kit.relay.stop)
        self.kit.on_reactor(self.kit.relay.free_tally, self.tally)
        assert self.kit.on_reactor(self.kit.relay.tally) == NO_TALLY


class PythonTurnsTests(Turns, TestCase):
    kind = "python"


class TLSTurnsTests(Turns, TestCase):
    kind = "tls"
    make_kit = TLSBothWaysKit


class NativeTurnsTests(Turns, TestCase):
    kind = "native"

    def setUp(self) -> None:
        if why := native_missing():
            if os.environ.get("CI"):
                raise AssertionError(f"no native relay: {why}")
            raise SkipTest(f"no native relay: {why}; `python hatch_build.py` builds it")


class NativeTurnsThreadsTests(NativeTurnsTests):
    threads = 3
