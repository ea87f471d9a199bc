"""Shortages of a director's own: what they are, and that they are nobody's fault."""

from __future__ import annotations

import errno
import os
import random
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ConnectBindError, getConnectError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Configuration, Group, Health, Host, HostRef, HostState, Probe, Reason, Service
from cluster.shortage import DESCRIPTORS, MEMORY, PORTS, OutOfResources, errno_of, short_of
from director.checks.nameservers import Answer, NameServers
from director.checks.resolver import Resolver
from director.engine.node import Node
from director.metrics.counters import Metrics
from director.relay.interface import Limits
from director.relay.turnarounds import Turnarounds
from director.resources.shortages import ACCEPT, PROBE, Shortages
from director.timing.seldom import MAX_KEYS, Seldom, more
from director.traffic.frontend import Frontend
from director.traffic.target import Target
from director.traffic.tries import NO_PORT_S

OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EADDRINUSE)
#: On loopback, so that there is an address of ours to reach it from.
HOSTS = {"a": "127.0.0.1:1", "b": "127.0.0.1:2", "named": "app.example:80"}


class ErrnoTests(SynchronousTestCase):
    def test_whose(self) -> None:
        """What the network says is the host's; what the kernel refuses us is ours."""
        for error, what in ((errno.EMFILE, DESCRIPTORS), (errno.ENFILE, DESCRIPTORS), (errno.ENOMEM, MEMORY),
                            (errno.ENOBUFS, MEMORY), (errno.EADDRNOTAVAIL, PORTS), (errno.EADDRINUSE, PORTS)):
            self.assertEqual(short_of(error), what)
        for error in (errno.ECONNREFUSED, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNRESET,
                      errno.EACCES, errno.ENOENT, errno.EAGAIN, 0):
            self.assertEqual(short_of(error), "")

    def test_within_exceptions(self) -> None:
        """Python's and Twisted's exceptions carry it in different places."""
        for error in (OSError(errno.EMFILE, "x"), getConnectError((errno.EMFILE, "x")), ConnectBindError(errno.EMFILE, "x"),
                      CannotListenError("", 0, OSError(errno.EMFILE, "x"))):
            self.assertEqual(errno_of(error), errno.EMFILE, repr(error))
        self.assertEqual(errno_of(MemoryError()), errno.ENOMEM)
        self.assertEqual(errno_of(ValueError("x")), 0)


class SeldomTests(SynchronousTestCase):
    def test_once_in_a_while(self) -> None:
        """One line a second for each key, which says how many it stands for."""
        now = 0.0
        seldom = Seldom(monotonic=lambda: now)
        self.assertEqual([seldom.due("a"), seldom.due("a"), seldom.due("b"), seldom.due("a")], [0, None, 0, None])
        now = 1.0
        self.assertEqual([seldom.due("a"), seldom.due("b"), seldom.due("a")], [2, 0, None])
        self.assertEqual((more(0), more(2)), ("", " (2 more since the last such line)"))

    def test_bounded(self) -> None:
        """However many keys there are, what is remembered of them is bounded, and so are the lines."""
        now = 0.0
        seldom = Seldom(monotonic=lambda: now)
        said = [key for key in range(3 * MAX_KEYS) if seldom.due(key) is not None]
        self.assertEqual(len(said), MAX_KEYS + 1)
        self.assertLessEqual(len(seldom._held), MAX_KEYS + 1)
        now = 1.0
        self.assertEqual(seldom.due("new"), 0)


class FakeRelay:
    """Takes connections and does nothing with them."""

    name = "fake"

    def __init__(self) -> None:
        self.taken: dict[int, tuple[Any, int, int]] = {}

    def start(self, events: Any) -> None:
        self.events = events

    def relay(
        self, token: object, client: int, host: int, limits: Limits, preface: bytes = b"", tally: int = 0
    ) -> int:
        handle = len(self.taken) + 1
        self.taken[handle] = token, client, host
        return handle

    def tally(self) -> int:
        return 0

    def owes_s(self) -> float:
        return 0.0

    def free_tally(self, number: int) -> None: ...

    def turnarounds(self, number: int) -> Turnarounds:
        return Turnarounds()

    def counters(self) -> Any:
        raise NotImplementedError

    def tokens(self) -> list[object]:
        return []

    def kill(self, handle: int, reason: Reason) -> None: ...

    def stop(self) -> None: ...


class ShortDirector:
    """A node whose connects, probes and lookups fail as they are told. Its hosts: `HOSTS`."""

    def __init__(self) -> None:
        self.clock = MemoryReactorClock()
        self.clock.advance(1000.0)
        self.relay = FakeRelay()
        self.metrics = Metrics(CollectorRegistry())
        self.node = Node(
            Configuration(), {"fake": self.relay}, self.metrics, reactor=self.clock, random=random.Random(7).random,
            monotonic=self.clock.seconds,
        )
        self.node.resolver._lookup = lambda name: fail(OutOfResources(DESCRIPTORS))
        self.node.probing.prober._monotonic = self.node.resolver._monotonic = self.clock.seconds
        self.clock.advance(100.0)  # past its grace
        self.node.probing.prober.startService()
        self.node.resolver.startService()
        self.node.probing.loop.startService()
        group = Group(hosts={name: Host(address=address) for name, address in HOSTS.items()}, scheduler="roundrobin",
                      health=Health(jitter=0.0, fall=1, probe=Probe(kind="http")))
        self.relay.start(None)
        self.node.apply_service("web", Service(groups={"main": group}))
        for entry in self.node.inventory.hosts.values():
            if entry.target is not None:
                entry.target = Target(self.connect, entry.target.address)
        self.answers: list[int] = []

    @property
    def frontend(self) -> Frontend:
        return self.node.frontends["web"]

    def connect(self) -> int:
        return -self.answers.pop(0) if self.answers else os.open(os.devnull, os.O_RDONLY)

    def arrive(self, *errors: int) -> None:
        """A client, whose connects fail so."""
        self.answers = list(errors)
        self.frontend.accepted(os.open(os.devnull, os.O_RDONLY), None)

    def relay_says(self, error: int) -> None:
        """The latest connect that the relay has failed after all."""
        if self.relay.taken:
            handle = max(self.relay.taken)
            connection, client, host = self.relay.taken.pop(handle)
            os.close(host)
            self.frontend.connect_failed(connection, client, error)

    def fail_probes(self, error: int) -> None:
        """Those that are due begin, and fail so."""
        self.clock.advance(3.0)
        clients, self.clock.tcpClients[:] = list(self.clock.tcpClients), []
        for _, _, factory, *_ in clients:
            factory.clientConnectionFailed(None, Failure(getConnectError((error, os.strerror(error)))))

    def end(self) -> None:
        """Who is relayed goes."""
        for connection, client, host in self.relay.taken.values():
            os.close(client)
            os.close(host)
            self.frontend.closed(connection, Reason.CLIENT_CLOSED, 0, 0)
        self.relay.taken.clear()

    def verdicts(self) -> list[Any]:
        """All that is held against hosts."""
        return [
            (entry.health.state, entry.health._probe_failures, entry.health._connect_failures, entry.connect_failures,
             entry.verdict.down, entry.health.last_check, tuple(entry.health.history), entry.host.available)
            for entry in self.node.inventory.hosts.values()
        ]

    def ended(self) -> dict[str, int]:
        return {reason.value: count for reason, count in self.metrics.service("web").ended.items() if count}

    def stop(self) -> None:
        self.end()
        self.node.cut()
        self.node.probing.prober.stopService()
        self.node.resolver.stopService()


ERRORS = st.sampled_from(OURS)
STEPS = st.one_of(
    st.tuples(st.just("arrive"), st.lists(ERRORS, max_size=4)),
    st.tuples(st.just("relay_says"), ERRORS),
    st.tuples(st.just("fail_probes"), ERRORS),
)


class NobodysFaultTests(SynchronousTestCase):
    @given(st.lists(STEPS, max_size=20))
    def test_whatever_we_lack(self, steps: list[tuple[str, Any]]) -> None:
        """Whatever sequence of own shortages hits connects, probes and lookups: nothing is held against any host, no
        client counts as failed by one, and nothing stays in flight."""
        director = ShortDirector()
        before = director.verdicts()
        for name, argument in steps:
            getattr(director, name)(*argument if isinstance(argument, list) else (argument,))
            self.assertEqual(director.verdicts(), before, name)
        director.end()
        self.assertLessEqual(set(director.ended()), {"client_closed", "out_of_resources"})
        self.assertEqual([entry.host.in_flight for entry in director.node.inventory.hosts.values()], [0, 0, 0])
        self.assertEqual(director.node.inventory.services["web"].admission.connections, 0)
        self.assertEqual((director.frontend.open, director.node.descriptors.places.taken), (0, 0))
        self.assertEqual(sum(host.connect_failures for host in director.metrics.service("web").hosts.values()), 0)
        director.stop()

    def test_hosts_faults_still_count(self) -> None:
        """The same kit, and errors of the network: the hosts are down."""
        director = ShortDirector()
        director.fail_probes(errno.ECONNREFUSED)
        states = {ref.host: entry.health.state for ref, entry in director.node.inventory.hosts.items()}
        self.assertEqual(states, {"a": HostState.DOWN, "b": HostState.DOWN, "named": HostState.UP})
        director.stop()

    def test_another_host_has_ports(self) -> None:
        """No port to one host: the client goes to the next. None to any: out_of_resources."""
        director = ShortDirector()
        director.arrive(errno.EADDRNOTAVAIL)
        self.assertEqual((director.ended(), len(director.relay.taken)), ({}, 1))
        director.arrive(errno.EADDRNOTAVAIL, errno.EADDRNOTAVAIL)
        self.assertEqual(director.ended(), {"out_of_resources": 1})
        director.stop()

    def test_passed_over_for_a_moment(self) -> None:
        """After a host had no port the kernel is not made to search again for every client, but soon is."""
        director = ShortDirector()
        director.arrive(errno.EADDRNOTAVAIL, errno.EADDRNOTAVAIL)
        director.arrive(errno.EADDRNOTAVAIL)
        self.assertEqual((director.ended(), director.answers), ({"out_of_resources": 2}, [errno.EADDRNOTAVAIL]))
        self.assertEqual(director.node.shortages.counts[PORTS, "connect"], 4)
        director.clock.advance(NO_PORT_S)
        director.arrive()
        self.assertEqual(len(director.relay.taken), 1)
        director.stop()

    def test_no_descriptor_is_no_reason_to_try_another(self) -> None:
        """Every host would need one; and one line stands for the second client too."""
        director = ShortDirector()
        for _ in range(2):
            director.arrive(errno.EMFILE)
        self.assertEqual((director.ended(), director.answers), ({"out_of_resources": 2}, []))
        self.assertEqual(director.node.shortages.counts[DESCRIPTORS, "connect"], 2)
        director.stop()

    def test_failed_and_short(self) -> None:
        """One host refused, and to the other there was no port: the first gets its strike, the reason is ours."""
        director = ShortDirector()
        director.arrive(errno.ECONNREFUSED, errno.EADDRNOTAVAIL)
        self.assertEqual(director.ended(), {"out_of_resources": 1})
        self.assertEqual(sum(entry.connect_failures for entry in director.node.inventory.hosts.values()), 1)
        director.stop()

    def test_no_address_for_a_family(self) -> None:
        """EADDRNOTAVAIL where this machine has no address at all to reach the host from says that it is unreachable."""
        director = ShortDirector()
        with mock.patch("director.ports.sockets._has_source", return_value=False):
            director.arrive(errno.EADDRNOTAVAIL, errno.EADDRNOTAVAIL)
        self.assertEqual(director.ended(), {"connect_failed": 1})
        director.stop()

    def test_name_without_address(self) -> None:
        """That a name has no address is the host's: its probe and its clients' connects fail."""
        director = ShortDirector()
        entry = director.node.inventory.hosts[HostRef("web", "main", "named")]
        director.node.resolver._lookup = lambda name: not_found()
        director.clock.advance(2.0)
        self.assertEqual(entry.address_error, "no such name")
        director.clock.advance(3.0)
        self.assertIs(entry.health.state, HostState.DOWN)
        director.stop()

    def test_probe_is_made_again_soon(self) -> None:
        """After a shortage the next probe comes after suspect_interval_s, and counts."""
        director = ShortDirector()
        director.fail_probes(errno.EMFILE)
        self.assertEqual(director.node.shortages.counts[DESCRIPTORS, PROBE], 2)
        director.clock.advance(Health().suspect_interval_s)
        self.assertEqual(len(director.clock.tcpClients), 2)
        director.stop()


def not_found() -> Deferred[Answer]:
    return succeed(Answer((), (), 1.0, "no such name"))


class LookupTests(SynchronousTestCase):
    def test_what_is_known_stays(self) -> None:
        """Who asked is told of the shortage; addresses that are known stay; it is asked again after a second."""
        clock, asked = MemoryReactorClock(), 0

        def lookup(name: str) -> Deferred[Any]:
            nonlocal asked
            asked += 1
            return succeed(Answer(("192.0.2.1",), (), 1.0)) if asked == 2 else fail(OutOfResources(DESCRIPTORS if asked == 1 else PORTS))

        shortages = Shortages(monotonic=clock.seconds)
        resolver = Resolver(reactor=clock, lookup=lookup, hosts_file="/nonexistent", monotonic=clock.seconds,
                            shortages=shortages)
        told: list[Any] = []
        resolver.startService()
        resolver.watch("app.example", told.append)
        self.failureResultOf(resolver.resolve("app.example"), OutOfResources)
        clock.advance(1.0)
        self.assertEqual(told, [("192.0.2.1",)])
        clock.advance(1.0)
        self.assertEqual((told, asked), ([("192.0.2.1",)], 3))
        self.assertEqual(self.successResultOf(resolver.resolve("app.example")), ("192.0.2.1",))
        self.assertEqual(sum(shortages.counts.values()), 2)
        resolver.stopService()


    def test_nothing_to_ask_with(self) -> None:
        """A question without a socket is a shortage, not a server that does not answer; the next server is not blamed too."""
        asked = []

        class Full(MemoryReactorClock):
            def listenUDP(self, *arguments: Any, **more: Any) -> Any:
                asked.append(arguments)
                raise CannotListenError("", 0, OSError(errno.EMFILE, "Too many open files"))

        servers = NameServers(reactor=Full(), servers=("192.0.2.53:53", "192.0.2.54:53"), resolv_conf="/nonexistent")
        self.failureResultOf(servers.lookup("app.example."), OutOfResources)
        self.assertEqual(len(asked), 2, "once for each family")


class MetricTests(SynchronousTestCase):
    def test_every_pair_is_there_from_the_start(self) -> None:
        """So that a rate over the first shortage is not lost."""
        shortages = Shortages(monotonic=lambda: 0.0)
        shortages.met(PORTS, PROBE, "test")
        (family,) = shortages.collect()
        found = {(sample.labels["of"], sample.labels["for"]): sample.value for sample in family.samples}
        self.assertEqual(len(found), 18)
        self.assertEqual({pair for pair, count in found.items() if count}, {(PORTS, PROBE)})

    def test_told_once_a_second(self) -> None:
        """A thousand clients that meet one shortage are one line a second, which says how many more there were."""
        shortages = Shortages(monotonic=lambda: self.now)
        said: list[str] = []
        self.patch(shortages, "log", Lines(said))
        for self.now in (0.0, 0.3, 0.9, 1.1):
            shortages.met(DESCRIPTORS, ACCEPT, "test")
        shortages.met(MEMORY, ACCEPT, "test")
        self.assertEqual(len(said), 3, said)
        self.assertIn("2 more", said[1])


class Lines:
    """A log that keeps its lines."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def warn(self, form: str, **values: object) -> None:
        self.lines.append(form.format(**values))
