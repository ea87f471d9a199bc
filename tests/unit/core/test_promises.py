"""Promises not to campaign: the holder's right ends before anybody's promise does."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.core.promises import PROMISE_S, RENEW_S, RETRY_S, Promises


class PromisesTests(SynchronousTestCase):
    def test_everybody_is_needed(self) -> None:
        """The right lasts as long as the oldest promise; one that is missing makes it nothing."""
        promises = Promises()
        numbers = dict(promises.ask(["a", "b"], 0.0))
        promises.granted("a", numbers["a"])
        self.assertEqual(promises.right_s(["a", "b"], 1.0), 0.0)
        later = dict(promises.ask(["b"], RETRY_S))
        promises.granted("b", later["b"])
        self.assertEqual(promises.right_s(["a", "b"], 1.0), PROMISE_S - 1.0)
        self.assertEqual(promises.right_s(["a", "b"], PROMISE_S + 1.0), 0.0)
        self.assertEqual(promises.right_s(["a", "b", "c"], 1.0), 0.0)

    def test_nobody_else(self) -> None:
        """A single director needs nobody's promise."""
        self.assertEqual(Promises().right_s([], 5.0), PROMISE_S)

    def test_when_to_ask(self) -> None:
        """Who promised is asked after a third of the time, who did not soon; nobody more often."""
        self.assertEqual(RENEW_S, PROMISE_S / 3)
        promises = Promises()
        (_, number), = promises.ask(["a"], 0.0)
        self.assertEqual(promises.ask(["a"], RETRY_S - 0.01), [])
        (_, number), = promises.ask(["a"], RETRY_S)
        promises.granted("a", number)
        self.assertEqual(promises.ask(["a"], RETRY_S + RENEW_S - 0.01), [])
        self.assertEqual(len(promises.ask(["a"], RETRY_S + RENEW_S)), 1)

    def test_late_answers(self) -> None:
        """An answer to an older question, or to none, does not count; forgotten promises do not either."""
        promises = Promises()
        (_, first), = promises.ask(["a"], 0.0)
        (_, second), = promises.ask(["a"], RETRY_S)
        for member, number in (("a", first), ("b", second), ("a", 0)):
            promises.granted(member, number)
        self.assertEqual(promises.right_s(["a"], 1.0), 0.0)
        for number in (-1, 0, 1):
            promises.granted("c", number)
            self.assertEqual(promises.right_s(["c"], 1.0), 0.0)
        promises.granted("a", second)
        promises.forget()
        self.assertEqual(promises.right_s(["a"], 1.0), 0.0)

    @given(st.integers(0, 2**32), st.integers(1, 3))
    def test_never_beyond_a_promise(self, seed: int, count: int) -> None:
        """Whatever is lost or late on the way, and whenever members grant: while the holder has a right, every member is
        bound."""
        random, promises = Random(seed), Promises()
        members = [f"m{n}" for n in range(count)]
        bound = dict.fromkeys(members, -math.inf)
        travelling: list[tuple[float, str, str, int]] = []
        now = 0.0
        for _ in range(200):
            now += random.uniform(0, 0.3)
            for member, number in promises.ask(members, now):
                if random.random() < 0.9:
                    travelling.append((now + random.choice((0.01, 0.4, 3.0)), "ask", member, number))
            for message in [each for each in travelling if each[0] <= now]:
                travelling.remove(message)
                _, kind, member, number = message
                if kind == "answer":
                    promises.granted(member, number)
                elif random.random() < 0.9:
                    bound[member] = max(bound[member], now + PROMISE_S)
                    travelling.append((now + random.choice((0.01, 0.4, 3.0)), "answer", member, number))
            right_s = promises.right_s(members, now)
            if right_s > 0:
                self.assertLessEqual(now + right_s, min(bound.values()))
