"""A file of users as Apache's ``htpasswd`` writes it: ``name:hash``, one a line. Read again whenever it changes.

A file that says nothing (it is away, is emptied, is half rewritten, holds no hash that is taken) is a fault of the file,
not an order to let nobody in, and least of all one to let everybody in: its last users stay, and the director says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from cluster.model import HASH_PATTERN, NAME_PATTERN, User
from director.admin.userbook import UserBook

#: The file is looked at this often; who was removed is out after it.
LOOK_S = 1.0
#: Far more users than a director has; the file is read on the reactor's thread.
MAX_CHARACTERS = 256 * 1024

_NAME = re.compile(NAME_PATTERN)
_HASH = re.compile(HASH_PATTERN)


class Parsed(NamedTuple):
    users: Mapping[str, User]
    problems: tuple[str, ...]  #: lines that were left out, and why


def parse(text: str, role: Literal["readonly", "full"]) -> Parsed:
    """Hashes of other kinds than bcrypt and Argon2 (MD5, SHA-1, crypt) are too weak, and left out."""
    users: dict[str, User] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        if not _NAME.search(name):
            problems.append(f"line {number}: no user's name")
        elif not _HASH.match(hashed):
            problems.append(f"line {number}: {name}'s hash is neither bcrypt nor Argon2 (htpasswd -B makes bcrypt)")
        else:
            users[name] = User(password=hashed, role=role)
    return Parsed(users, tuple(problems))


class Htpasswd(Service):
    """Looks after one file while it runs, from its start on.

    :param book: where its users go, and the sentence that says why the file's are not those in force.
    """

    log = Logger()

    def __init__(
        self, path: str, role: Literal["readonly", "full"], book: UserBook, *, clock: IReactorTime
    ) -> None:
        self.setName("htpasswd")
        self._path = path
        self._role = role
        self._book = book
        self._seen: object = None
        self._looking: Any = LoopingCall(self.look)
        self._looking.clock = clock

    def startService(self) -> None:
        if self.running:
            return
        super().startService()
        self._looking.start(LOOK_S)

    def stopService(self) -> None:
        super().stopService()
        if self._looking.running:
            self._looking.stop()

    def look(self) -> None:
        """Read the file if it is another than the last time."""
        try:
            found = os.stat(self._path)
            seen: object = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen == self._seen:
                return
            with open(self._path, encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_CHARACTERS + 1)
        except OSError as error:
            if error.errno != self._seen:
                self._unusable(f"cannot be read ({error.strerror})")
            self._seen = error.errno
            return
        self._seen = seen
        if len(text) > MAX_CHARACTERS:
            self._unusable(f"is longer than {MAX_CHARACTERS} characters")
            return
        parsed = parse(text, self._role)
        for problem in parsed.problems:
            self.log.warn("{path}: {problem}", path=self._path, problem=problem)
        if not parsed.users:
            self._unusable("names no user whose password can be checked")
            return
        self.log.info("{path}: {count} users", path=self._path, count=len(parsed.users))
        self._book.replace("htpasswd", parsed.users)

    def _unusable(self, why: str) -> None:
        kept = self._book.count("htpasswd")
        meanwhile = f"its last {kept} users stay in force" if kept else "nobody can sign in by it"
        problem = f"{self._path} {why}: {meanwhile}"
        self.log.error("{problem}", problem=problem)
        self._book.unusable("htpasswd", problem)
