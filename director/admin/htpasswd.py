"""A file of users as Apache's ``htpasswd`` writes it: ``name:hash``, one a line. Read again whenever it changes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from cluster.model import HASH_PATTERN, NAME_PATTERN, User

#: The file is looked at this often; who was removed is out after it.
LOOK_S = 1.0
#: Far more users than a director has; the file is read on the reactor's thread.
MAX_BYTES = 256 * 1024

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
    """Looks after one file while it runs. A file that cannot be read leaves its users as they were.

    :param changed: told of the users, first when the service starts.
    """

    log = Logger()

    def __init__(
        self, path: str, role: Literal["readonly", "full"], changed: Callable[[Mapping[str, User]], None], *,
        clock: IReactorTime,
    ) -> None:
        self.setName("htpasswd")
        self._path = path
        self._role = role
        self._changed = changed
        self._seen: object = None
        self._looking: Any = LoopingCall(self.look)
        self._looking.clock = clock

    def startService(self) -> None:
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
                text = file.read(MAX_BYTES)
        except OSError as error:
            seen = error.errno
            if seen != self._seen:
                self.log.error("{path} cannot be read, its users stay as they were: {why}", path=self._path,
                               why=error.strerror)
            self._seen = seen
            return
        self._seen = seen
        parsed = parse(text, self._role)
        for problem in parsed.problems:
            self.log.warn("{path}: {problem}", path=self._path, problem=problem)
        self.log.info("{path}: {count} users", path=self._path, count=len(parsed.users))
        self._changed(parsed.users)
