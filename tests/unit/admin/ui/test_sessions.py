"""The table of sessions: ids, expiry and bounds."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from director.admin.ui.sessions import IDLE_S, MAX_AGE_S, MAX_OF_USER, MAX_SESSIONS, Sessions


class SessionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sessions = Sessions()

    def test_ids_and_tokens_are_random(self) -> None:
        """No two sessions share an id or a token, and neither tells the other."""
        opened = [self.sessions.open("ada", "", 0.0) for _ in range(5)]
        secrets = [each.id for each in opened] + [each.csrf for each in opened]
        self.assertEqual(len(set(secrets)), 10)
        self.assertGreaterEqual(min(map(len, secrets)), 43)  # 256 bits in base64

    def test_idle(self) -> None:
        """A session that is used lives on; one that nobody used for `IDLE_S` is over, for good."""
        session = self.sessions.open("ada", "", 0.0)
        self.assertIs(self.sessions.use(session.id, IDLE_S - 1), session)
        self.assertIs(self.sessions.use(session.id, 2 * IDLE_S - 2), session)
        self.assertIsNone(self.sessions.use(session.id, 3 * IDLE_S - 2))
        self.assertIsNone(self.sessions.use(session.id, 0.0))

    def test_age(self) -> None:
        """Use does not carry a session past `MAX_AGE_S`."""
        session = self.sessions.open("ada", "", 0.0)
        now = 0.0
        while self.sessions.use(session.id, now):
            now += IDLE_S / 2
        self.assertEqual(now, MAX_AGE_S)

    def test_unknown(self) -> None:
        """An id that was never given out opens nothing."""
        self.sessions.open("ada", "", 0.0)
        for guess in ("", "x", "a" * 43):
            self.assertIsNone(self.sessions.use(guess, 0.0))

    def test_bound_of_a_user(self) -> None:
        """One user's further sessions push out that user's least used one, and nobody else's."""
        other = self.sessions.open("bob", "", 0.0)
        mine = [self.sessions.open("ada", "", 0.0) for _ in range(MAX_OF_USER)]
        self.sessions.use(mine[0].id, 1.0)
        self.sessions.open("ada", "", 2.0)
        self.assertIsNone(self.sessions.use(mine[1].id, 2.0))
        self.assertIsNotNone(self.sessions.use(mine[0].id, 2.0))
        self.assertIsNotNone(self.sessions.use(other.id, 2.0))
        self.assertEqual(len(self.sessions), MAX_OF_USER + 1)

    def test_bound_of_all(self) -> None:
        """The table never grows beyond `MAX_SESSIONS`; the least used goes."""
        first = self.sessions.open("user", "", 0.0)
        for number in range(MAX_SESSIONS):
            self.sessions.open(f"user{number}", "", 1.0)
        self.assertEqual(len(self.sessions), MAX_SESSIONS)
        self.assertIsNone(self.sessions.use(first.id, 1.0))
