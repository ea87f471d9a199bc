"""Who has signed in: a bounded table of random ids. Pure: *now* is monotonic seconds."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

#: A session that nobody uses for this long is over; a page that is open and live uses it.
IDLE_S = 3600.0
#: Used or not, a password is asked for again after a working day.
MAX_AGE_S = 12 * 3600.0
#: Sessions of one user; the least used goes first, so that one password cannot push out other operators.
MAX_OF_USER = 20
#: All sessions, some hundred bytes each.
MAX_SESSIONS = 1000
#: 256 bits: not to be guessed, and no table of them to be tried.
ID_BYTES = 32


@dataclass(slots=True)
class Session:
    """One browser that signed in as *name*.

    :ivar stamp: of the password then; see `director.admin.gate.Gate.stamp`.
    """

    name: str
    stamp: str
    opened: float
    used: float
    id: str = field(default_factory=lambda: secrets.token_urlsafe(ID_BYTES))
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(ID_BYTES))  #: in every form of this session


class Sessions:
    """The open ones, the least recently used first."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, name: str, stamp: str, now: float) -> Session:
        """A new session; the least used ones make room."""
        theirs = [each for each in self._sessions.values() if each.name == name]
        for each in theirs[: max(0, len(theirs) - MAX_OF_USER + 1)]:
            self.close(each.id)
        while len(self._sessions) >= MAX_SESSIONS:
            self._sessions.popitem(last=False)
        session = Session(name, stamp, now, now)
        self._sessions[session.id] = session
        return session

    def use(self, id: str, now: float) -> Session | None:  # noqa: A002
        """The session of this id, used now; None when there is none, or it has expired."""
        session = self._sessions.get(id)
        if session is None:
            return None
        if now >= min(session.used + IDLE_S, session.opened + MAX_AGE_S):
            self.close(id)
            return None
        session.used = now
        self._sessions.move_to_end(id)
        return session

    def close(self, id: str) -> None:  # noqa: A002
        self._sessions.pop(id, None)
