"""The cache of addresses."""

from __future__ import annotations

from itertools import product

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from director.checks import resolver as module
from director.checks.nameservers import Answer, LookupFailed, NameServers
from director.checks.resolver import Known, Resolver, Unresolvable


class Base(SynchronousTestCase):
    """A resolver on a fake clock, whose lookups the test answers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[str, Deferred[Answer]]] = []
        self.hosts = self.mktemp()
        self.resolver = Resolver(reactor=self.clock, lookup=self._lookup, hosts_file=self.hosts,
                                 monotonic=self.clock.seconds)
        self.resolver.startService()
        self.addCleanup(lambda: self.resolver.running and self.resolver.stopService())

    def _lookup(self, name: str) -> Deferred[Answer]:
        result: Deferred[Answer] = Deferred()
        self.asked.append((name, result))
        return result

    def answer(self, *v4: str, v6: tuple[str, ...] | None = (), ttl_s: float | None = 60.0, why: str = "") -> None:
        """Answer the oldest open question."""
        self.asked.pop(0)[1].callback(Answer(v4, v6, ttl_s, why))

    def fail_lookup(self, why: str = "no answer") -> None:
        self.asked.pop(0)[1].errback(LookupFailed(why))

    def watched(self, name: str) -> list[Known]:
        seen: list[Known] = []
        self.resolver.watch(name, seen.append)
        return seen


class AskingTests(Base):
    def test_literals_are_their_own_answer(self) -> None:
        """A literal address passes through every way of asking, and nothing is looked up."""
        for literal in ("192.0.2.1", "2001:db8::1"):
            self.assertEqual(self.resolver.addresses(literal), (literal,))
            self.assertEqual(self.successResultOf(self.resolver.resolve(literal)), (literal,))
            self.assertEqual(self.watched(literal), [(literal,)])
            self.assertEqual(self.resolver.reason(literal), "")
        self.assertEqual(self.asked, [])

    def test_addresses_never_waits(self) -> None:
        """An unknown name is empty at first, with a reason, and asked for once."""
        self.assertEqual(self.resolver.addresses("app"), ())
        self.assertEqual(self.resolver.reason("APP"), "not resolved yet")
        self.assertEqual([name for name, _ in self.asked], ["app"])
        self.answer("192.0.2.2", "192.0.2.1", v6=("2001:db8::1",))
        self.assertEqual(self.resolver.addresses("app"), ("192.0.2.1", "192.0.2.2", "2001:db8::1"))
        self.assertEqual(self.resolver.reason("app"), "")

    def test_resolve_waits_for_one_lookup(self) -> None:
        """Many who ask at once share a question, and one who gives up disturbs nobody."""
        first, second = self.resolver.resolve("app"), self.resolver.resolve("app")
        first.cancel()
        self.failureResultOf(first)
        self.assertEqual(len(self.asked), 1)
        self.answer("192.0.2.1")
        self.assertEqual(self.successResultOf(second), ("192.0.2.1",))
        self.assertEqual(self.successResultOf(self.resolver.resolve("app")), ("192.0.2.1",))

    def test_unresolvable_has_a_reason(self) -> None:
        """A name without addresses fails with the reason, which is remembered."""
        waiting = self.resolver.resolve("app")
        self.answer(why="no such name")
        self.assertEqual(str(self.failureResultOf(waiting, Unresolvable).value), "no such name")
        self.failureResultOf(self.resolver.resolve("app"), Unresolvable)
        self.assertEqual(self.resolver.reason("app"), "no such name")
        self.assertEqual(self.asked, [])

    def test_bounded_lookups(self) -> None:
        """Only so many names are asked for at once; the others wait their turn."""
        for number in range(module.MAX_LOOKUPS + 2):
            self.resolver.addresses(f"app{number}")
        self.assertEqual(len(self.asked), module.MAX_LOOKUPS)
        self.answer("192.0.2.1")
        self.fail_lookup()
        self.assertEqual([name for name, _ in self.asked[-2:]],
                         [f"app{module.MAX_LOOKUPS}", f"app{module.MAX_LOOKUPS + 1}"])

    def test_broken_lookup_is_logged(self) -> None:
        """A bug below the cache is a failed name and a logged failure, nothing worse."""
        seen = self.watched("app")
        self.asked.pop()[1].errback(ZeroDivisionError())
        self.assertEqual(seen, ["internal error"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_bad_server(self) -> None:
        """A DNS server that is not an address is refused at once."""
        self.assertRaises(ValueError, NameServers, reactor=self.clock, servers=["dns.example:53"])


class HostsFileTests(Base):
    def test_localhost_needs_no_file(self) -> None:
        """``localhost`` is this machine, at once."""
        self.assertEqual(self.resolver.addresses("localhost"), ("127.0.0.1", "::1"))
        self.assertEqual(self.resolver.addresses("app.localhost"), ("127.0.0.1", "::1"))
        self.assertEqual(self.asked, [])

    def test_localhost_has_both_families(self) -> None:
        """A file that lists one loopback address for ``localhost`` does not take the other away; another address does."""
        for listed, known in (("127.0.0.1 localhost", ("127.0.0.1", "::1")), ("::1 localhost", ("127.0.0.1", "::1")),
                              ("192.0.2.1 localhost", ("192.0.2.1",))):
            with open(self.hosts, "w") as file:
                file.write(listed + "\n")
            self.clock.advance(module.HOSTS_FILE_TTL_S)
            self.assertEqual(self.resolver.addresses("localhost"), known)

    def test_goes_before_dns(self) -> None:
        """A listed name is not looked up; a changed file is noticed, and without the entry DNS is asked."""
        with open(self.hosts, "w") as file:
            file.write("192.0.2.7 App app.example # 192.0.2.8 other\n2001:db8::7 app\nnonsense app\n")
        seen = self.watched("app")
        self.assertEqual(seen, [("192.0.2.7", "2001:db8::7")])
        self.assertEqual(self.asked, [])
        with open(self.hosts, "w") as file:
            file.write("# nothing\n")
        self.clock.advance(module.HOSTS_FILE_TTL_S)
        self.answer("192.0.2.9")
        self.assertEqual(seen[1:], [("192.0.2.9",)])


class TimeTests(Base):
    def test_refreshed_before_expiry(self) -> None:
        """A watched name is asked again shortly before its TTL ends, and only a change is told."""
        seen = self.watched("app")
        self.answer("192.0.2.1", "192.0.2.2", ttl_s=10)
        self.clock.advance(10 * module.REFRESH_AT - 0.1)
        self.assertEqual(self.asked, [])
        self.clock.advance(0.1)
        self.answer("192.0.2.2", "192.0.2.1", ttl_s=10)  # rotated
        self.clock.advance(10 * module.REFRESH_AT)
        self.answer("192.0.2.3", ttl_s=10)
        self.assertEqual(seen, [("192.0.2.1", "192.0.2.2"), ("192.0.2.3",)])

    def test_ttl_bounds(self) -> None:
        """TTLs of zero and of weeks are brought within the bounds; so are those of negative answers."""
        self.resolver._hold_s = 0.0
        self.watched("app")
        for ttl_s, addresses, bound in ((0, ("192.0.2.1",), module.MIN_TTL_S), (1e6, ("192.0.2.1",), module.MAX_TTL_S),
                                        (1e6, (), module.MAX_NEGATIVE_TTL_S), (0, (), module.MIN_TTL_S),
                                        (None, (), module.MAX_NEGATIVE_TTL_S)):
            self.answer(*addresses, ttl_s=ttl_s)
            self.clock.advance(bound * module.REFRESH_AT - 0.01)
            self.assertEqual(self.asked, [], (ttl_s, addresses))
            self.clock.advance(0.02)
            self.assertEqual(len(self.asked), 1, (ttl_s, addresses))

    def test_doubt(self) -> None:
        """Who doubts an answer has it asked anew, whatever its TTL, at most every `DOUBT_S`, and is told when that is done."""
        seen = self.watched("app")
        self.answer("192.0.2.1", ttl_s=1e6)
        self.successResultOf(self.resolver.doubt("app"))
        self.clock.advance(module.DOUBT_S)
        first, second = self.resolver.doubt("APP"), self.resolver.doubt("app")
        self.assertEqual(len(self.asked), 1)
        second.addErrback(lambda failure: None)
        second.cancel()
        self.assertNoResult(first)
        self.answer("192.0.2.2", ttl_s=1e6)
        self.successResultOf(first)
        self.successResultOf(self.resolver.doubt("app"))
        self.successResultOf(self.resolver.doubt("192.0.2.9"))
        self.assertEqual((seen, self.asked), ([("192.0.2.1",), ("192.0.2.2",)], []))
        self.clock.advance(module.DOUBT_S)
        failing = self.resolver.doubt("app")
        self.fail_lookup()
        self.successResultOf(failing)
        self.assertEqual(self.resolver.addresses("app"), ("192.0.2.2",))

    def test_unused_is_not_refreshed(self) -> None:
        """A name that nobody asks for any more is left alone; asking later gives the old answer and asks again."""
        self.resolver.addresses("app")
        self.answer("192.0.2.1")
        self.clock.advance(120)
        self.assertEqual(self.asked, [])
        self.assertEqual(self.resolver.addresses("app"), ("192.0.2.1",))
        waiting = self.resolver.resolve("app")
        self.assertNoResult(waiting)
        self.answer("192.0.2.2")
        self.assertEqual(self.successResultOf(waiting), ("192.0.2.2",))

    def test_unused_are_bounded(self) -> None:
        """Of names that are not used any more so many are kept, the last ones; those in use do not count."""
        self.patch(module, "MAX_UNUSED", 2)
        self.watched("kept")
        self.answer("192.0.2.9", ttl_s=3000.0)
        for number in range(4):
            watch = self.resolver.watch(f"app{number}", lambda known: None)
            self.answer("192.0.2.1", ttl_s=10.0)
            watch.stop()
            self.clock.advance(10.0)
            if self.asked:  # it was in use until its answer came
                self.answer("192.0.2.1", ttl_s=10.0)
                self.clock.advance(10.0)
        self.assertEqual(list(self.resolver._names), ["kept", "app2", "app3"])
        self.assertEqual(len(self.clock.getDelayedCalls()), 3)

    def test_unused_is_forgotten(self) -> None:
        """In the end nothing is left of a name, nor of a watch that was stopped."""
        seen: list[Known] = []
        watch = self.resolver.watch("app", seen.append)
        self.answer("192.0.2.1")
        watch.stop()
        watch.stop()
        self.clock.advance(60)
        self.clock.advance(module.STALE_S)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.resolver._names, {})
        self.assertEqual(seen, [("192.0.2.1",)])


class FailureTests(Base):
    def test_serves_stale(self) -> None:
        """While no server answers the last addresses stay, are asked for again, and end with their bounded age."""
        seen = self.watched("app")
        self.answer("192.0.2.1", ttl_s=10)
        start = self.clock.seconds()
        self.clock.advance(10)
        while self.clock.seconds() - start < 100:
            self.fail_lookup()
            self.assertEqual(self.resolver.addresses("app"), ("192.0.2.1",))
            self.assertEqual(self.successResultOf(self.resolver.resolve("app")), ("192.0.2.1",))
            self.clock.advance(module.RETRY_S)
        self.fail_lookup()
        self.clock.advance(module.STALE_S)
        self.fail_lookup("nobody answers")
        self.assertEqual(seen, [("192.0.2.1",), "nobody answers"])

    def test_failure_is_cached(self) -> None:
        """A name that never resolved fails from the cache until it is tried again, and recovers."""
        seen = self.watched("app")
        self.fail_lookup("refused")
        self.failureResultOf(self.resolver.resolve("app"), Unresolvable)
        self.assertEqual(self.asked, [])
        self.clock.advance(module.RETRY_S)
        self.answer("192.0.2.1")
        self.assertEqual(seen, ["refused", ("192.0.2.1",)])

    def test_what_was_known_is_held(self) -> None:
        """Whatever a name's servers do for a while, no such name, no addresses or no answer, its last addresses stay."""
        bad = (lambda: self.answer(why="no such name", ttl_s=1), lambda: self.answer(ttl_s=None),
               lambda: self.fail_lookup("answered SERVFAIL"), lambda: self.fail_lookup("did not answer"))
        for number, (first, then) in enumerate(product(bad, bad)):
            seen = self.watched(f"app{number}")
            self.answer("192.0.2.1", ttl_s=1)
            self.clock.advance(module.REFRESH_AT)
            first()
            for _ in range(5):
                self.clock.advance(module.RETRY_S)
                then()
            self.clock.advance(module.RETRY_S)
            self.answer("192.0.2.1", ttl_s=1e6)
            self.assertEqual(seen, [("192.0.2.1",)], number)

    def test_no_such_name_is_believed_in_the_end(self) -> None:
        """A name that was deleted loses its addresses after the hold, to the second; a new one is taken at once."""
        seen = self.watched("app")
        self.answer("192.0.2.1", ttl_s=10)
        for _ in range(2):  # each hold counts anew
            self.clock.advance(9)
            start = self.clock.seconds()
            self.answer(why="no such name")
            while self.clock.seconds() < start + module.HOLD_S - 0.5:
                self.clock.advance(0.5)
                self.assertEqual(self.resolver.addresses("app"), ("192.0.2.1",))
                if self.asked:
                    self.answer(why="no such name")
            self.clock.advance(0.5)
            self.answer(why="no such name")
            self.clock.advance(27)
            self.answer("192.0.2.1", ttl_s=10)
        self.assertEqual(seen, [("192.0.2.1",), "no such name"] * 2 + [("192.0.2.1",)])

    def test_hold_off(self) -> None:
        """Without a hold the first answer is believed."""
        self.resolver._hold_s = 0.0
        seen = self.watched("app")
        self.answer("192.0.2.1", ttl_s=10)
        self.clock.advance(9)
        self.answer(why="no such name")
        self.assertEqual(seen, [("192.0.2.1",), "no such name"])

    def test_families_fail_apart(self) -> None:
        """A failed AAAA question keeps the IPv6 addresses known before and is repeated soon."""
        seen = self.watched("app")
        self.answer("192.0.2.1", v6=("2001:db8::1",), ttl_s=100)
        self.clock.advance(100)
        self.answer("192.0.2.2", v6=None, ttl_s=100)
        self.assertEqual(seen[-1], ("192.0.2.2", "2001:db8::1"))
        self.clock.advance(module.RETRY_S)
        self.answer("192.0.2.2", v6=(), ttl_s=100)
        self.assertEqual(seen[-1], ("192.0.2.2",))

    def test_broken_watch_is_logged(self) -> None:
        """A watch that raises is logged and keeps the news from nobody else."""
        self.resolver.watch("app", lambda known: 1 / 0)  # type: ignore[arg-type, return-value]
        seen = self.watched("app")
        self.answer("192.0.2.1")
        self.assertEqual(seen, [("192.0.2.1",)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class LifeTests(Base):
    def test_stop_ends_everything(self) -> None:
        """After a stop no timer and no question is left; who waited is told; what is known can be read."""
        self.watched("known")
        self.answer("192.0.2.1")
        waiting = self.resolver.resolve("unknown")
        stopped = self.resolver.stopService()
        self.failureResultOf(waiting, Unresolvable)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.resolver.addresses("known"), ("192.0.2.1",))
        self.failureResultOf(self.resolver.resolve("unknown"), Unresolvable)
        self.clock.advance(1000)
        self.assertEqual(len(self.asked), 1)

    def test_start_asks_for_what_was_wanted_before(self) -> None:
        """Names watched before the start are asked for at the start, and again after a restart."""
        self.resolver.stopService()
        seen = self.watched("app")
        self.assertEqual(self.asked, [])
        self.resolver.startService()
        self.answer("192.0.2.1")
        self.resolver.stopService()
        self.resolver.startService()
        self.answer("192.0.2.2")
        self.assertEqual(seen, [("192.0.2.1",), ("192.0.2.2",)])
