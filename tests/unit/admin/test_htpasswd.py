"""A file of users: what is taken of it, and when."""

from __future__ import annotations

import os
from pathlib import Path

import bcrypt
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import User
from director.admin.auth import verify
from director.admin.htpasswd import LOOK_S, MAX_CHARACTERS, Htpasswd, parse
from director.admin.userbook import UserBook
from tests.unit.admin.small_director import HASHER

BCRYPT = bcrypt.hashpw(b"engine", bcrypt.gensalt(4)).decode()
ARGON2 = HASHER.hash("looking")


class ParseTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """bcrypt and Argon2 are taken, comments and empty lines passed over."""
        parsed = parse(f"# people\n\nada:{BCRYPT}\n bob:{ARGON2}  \n", "full")
        self.assertEqual(parsed.users, {"ada": User(password=BCRYPT, role="full"),
                                        "bob": User(password=ARGON2, role="full")})
        self.assertEqual(parsed.problems, ())

    def test_weak_hashes(self) -> None:
        """MD5, SHA-1, crypt and plaintext are left out, each named by its line and without its hash."""
        lines = ["a:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00", "b:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "c:rqXexS6ZhobKA",
                 "d:plain", "e", ":x", "e e:x"]
        parsed = parse("\n".join(lines), "readonly")
        self.assertEqual(parsed.users, {})
        self.assertEqual([problem.partition(":")[0] for problem in parsed.problems],
                         [f"line {number}" for number in range(1, 8)])
        self.assertNotIn("plain", " ".join(parsed.problems))

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """No file breaks it."""
        for user in parse(text, "readonly").users.values():
            self.assertTrue(user.password.startswith("$"))

    def test_verify(self) -> None:
        """A bcrypt hash fits its password only; one too long for bcrypt, or with a NUL, fits none."""
        self.assertTrue(verify(BCRYPT, b"engine"))
        self.assertTrue(verify(BCRYPT.replace("$2b$", "$2y$"), b"engine"))
        for wrong in (b"", b"Engine", b"engine\0", b"x" * 100):
            self.assertFalse(verify(BCRYPT, wrong))
        self.assertFalse(verify("$2b$garbage", b"engine"))


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.clock = Clock()
        self.book = UserBook(required=True)

    def begin(self, *lines: str) -> None:
        self.path.write_text("\n".join(lines))
        self.watch()

    def watch(self) -> None:
        service = Htpasswd(str(self.path), "readonly", self.book, clock=self.clock)
        service.startService()
        self.addCleanup(service.stopService)

    def look(self) -> set[str]:
        """The users after the file was looked at."""
        self.clock.advance(LOOK_S)
        return set(self.book.users)

    def test_follows_the_file(self) -> None:
        """Users are read at the start, and again when the file has changed, and only then."""
        self.begin(f"ada:{BCRYPT}")
        before = self.book.users
        self.clock.pump([LOOK_S] * 3)
        self.assertIs(self.book.users, before)
        new = self.path.with_suffix(".new")
        new.write_text(f"bob:{ARGON2}")
        os.replace(new, self.path)
        self.assertEqual(self.look(), {"bob"})

    def test_a_file_that_says_nothing(self) -> None:
        """Whatever becomes of the file, its last users stay and the director says why; a good file ends that."""
        self.begin(f"ada:{BCRYPT}")
        for text in (
            "", "\n", "# nobody\n", "ada:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n", "ad", f"ada:{BCRYPT[:2]}",
            f"eve:{BCRYPT}\n" + "#" * MAX_CHARACTERS, None,
        ):
            if text is None:
                self.path.unlink()
            else:
                self.path.write_text(text)
            self.assertEqual(self.look(), {"ada"}, text)
            (problem,) = self.book.problems
            self.assertIn("its last 1 users stay in force", problem)
        self.path.write_text(f"bob:{ARGON2}")
        self.assertEqual((self.look(), self.book.problems), ({"bob"}, ()))

    def test_nothing_at_the_start(self) -> None:
        """A file that is away, or holds nobody, at the start lets nobody in, and is read once it is there."""
        self.watch()
        self.assertEqual((self.look(), self.book.required), (set(), True))
        self.assertIn("cannot be read", self.book.problems[0])
        self.path.write_text("")
        self.look()
        self.assertIn("nobody can sign in by it", self.book.problems[0])
        self.path.write_text(f"bob:{ARGON2}")
        self.assertEqual((self.look(), self.book.problems), ({"bob"}, ()))
