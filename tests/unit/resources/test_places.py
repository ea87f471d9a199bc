"""How descriptors are divided, and how places are given and given back."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import parse_address
from director.relay.pipes import MAX_PIPES
from director.resources.descriptors import Descriptors, pipes_for
from director.resources.places import OWN, PER_CLIENT, SPARE, Places, divide, in_use, soft_limit
from director.traffic.listener import Listener


class DivideTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Large limits keep a fixed part back, small ones a quarter of what is left; agents have one each."""
        for limit, agents, reserve, clients in (
            (20_000, 0, OWN + SPARE, 9_728), (20_000, 1_000, OWN + SPARE + 1_000, 9_228), (1_024, 0, 280, 372),
            (60, 0, 39, 10), (10, 0, 32, 1), (math.inf, 7, OWN + SPARE + 7, math.inf),
        ):
            room = divide(limit, agents=agents)
            self.assertEqual((room.reserve, room.clients), (reserve, clients), limit)

    @given(st.integers(100, 2_000_000), st.integers(0, 80), st.integers(0, 100_000))
    def test_never_more_than_there_is(self, limit: int, own: int, agents: int) -> None:
        """Clients, pipes and the reserve fit, something is left beside what is open anyway, and clients get their share."""
        pipes = pipes_for(limit)
        room = divide(limit, own=own, agents=agents, pipes=pipes)
        self.assertLessEqual(room.reserve + PER_CLIENT * room.clients, max(limit, room.reserve + PER_CLIENT))
        self.assertGreater(room.reserve, own)
        self.assertGreaterEqual(room.clients, 1)

    def test_pipes(self) -> None:
        """One for 64 descriptors, up to what a relay would take."""
        self.assertEqual([pipes_for(limit) for limit in (60, 1_024, 20_000, 65_536, math.inf)],
                         [0, 16, 312, MAX_PIPES, MAX_PIPES])

    def test_counted(self) -> None:
        """The kernel's count of what is open."""
        before = in_use()
        with open("/dev/null"):
            self.assertEqual(in_use(), before + 1)


class PlacesTests(SynchronousTestCase):
    def test_told_once_there_is_one(self) -> None:
        """Who waits is told when a client left or the limit was raised, once; who gave up is not."""
        places = Places(2)
        told: list[int] = []
        places.taken = 3

        def resume() -> None:
            told.append(places.taken)

        places.wait(resume)
        places.leave()
        self.assertEqual(told, [])
        places.leave()
        places.leave()
        self.assertEqual(told, [1])
        places.taken = 5
        places.wait(resume)
        places.resize(5)
        places.resize(6)
        self.assertEqual(told, [1, 5])
        places.wait(resume)
        places.forget(resume)
        places.leave()
        self.assertEqual(told, [1, 5])

    def test_process(self) -> None:
        """The process's limit, less what it has open."""
        descriptors = Descriptors({}, lambda: 3)
        descriptors.count_own()
        room = descriptors.room()
        self.assertEqual((room.limit, descriptors.places.most), (soft_limit(), room.clients))
        self.assertGreaterEqual(room.reserve, in_use() + 3)

    def test_pipes_are_kept_back(self) -> None:
        """For each relay that splices, and not for the one that never does."""
        relays = {name: mock.Mock() for name in ("native", "python", "tls")}
        without, splicing = Descriptors({}, lambda: 0).room(), Descriptors(relays, lambda: 0).room()
        self.assertEqual(splicing.reserve - without.reserve, 2 * 2 * pipes_for(soft_limit()))


class Readers:
    """A reactor that only knows who reads."""

    def __init__(self) -> None:
        self.reading: list[Any] = []
        self.addReader, self.removeReader = self.reading.append, self.reading.remove


class ListenerTests(SynchronousTestCase):
    def test_waits_for_a_place(self) -> None:
        """Without a place nobody is accepted and nothing is read; with one, reading goes on; stopped, nothing is left."""
        reactor, places = Readers(), Places(0)
        nobody = mock.Mock()
        listener = Listener(parse_address("127.0.0.1:80"), nobody, reactor=reactor, sock=mock.Mock(), places=places)
        listener.startService()
        listener.doRead()
        self.assertEqual((reactor.reading, places.pauses), ([], 1))
        places.resize(1)
        self.assertEqual(reactor.reading, [listener])
        places.resize(0)
        listener.doRead()
        listener.stopService()
        places.resize(1)
        self.assertEqual((reactor.reading, places.pauses), ([], 2))
