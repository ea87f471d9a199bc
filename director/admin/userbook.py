"""Who may call, from three sources: the node's file, an htpasswd file, and the store, which all directors share.

A name in several sources is the first one's of this order: what a node's own file says holds whatever others do.

"No users now" is not "none configured". Passwords are needed from the start where the configuration names users or an
htpasswd file, and from the first user on elsewhere: a source that runs dry later locks out, it does not let in.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from cluster.model import User

Source: TypeAlias = Literal["configuration", "htpasswd", "store"]

SOURCES: tuple[Source, ...] = ("configuration", "htpasswd", "store")


class UserBook:
    """The users of now.

    :param required: passwords are needed whoever is known.
    """

    def __init__(self, configured: Mapping[str, User] = MappingProxyType({}), *, required: bool = False) -> None:
        self.required = required
        self._problems: dict[Source, str] = {}
        self._by_source: dict[Source, Mapping[str, User]] = {source: {} for source in SOURCES}
        self.users: Mapping[str, User] = {}
        self.replace("configuration", configured)

    def replace(self, source: Source, users: Mapping[str, User]) -> None:
        """All of one source, which is as it should be."""
        self._problems.pop(source, None)
        self._by_source[source] = dict(users)
        self.users = self._merged()
        self.required = self.required or bool(self.users)

    def unusable(self, source: Source, problem: str) -> None:
        """*source* cannot be read for a reason, a sentence for the operator; the users it had stay."""
        self._problems[source] = problem

    @property
    def problems(self) -> tuple[str, ...]:
        """Sources that are not what they were meant to be, in a sentence each, for the operator."""
        return tuple(self._problems.values())

    def require(self) -> None:
        """Passwords are needed from now on: there is a user who cannot be read."""
        self.required = True

    def set_stored(self, name: str, user: User | None) -> None:
        """One of the store's; None: gone."""
        stored = {other: known for other, known in self._by_source["store"].items() if other != name}
        self.replace("store", stored if user is None else stored | {name: user})

    def source(self, name: str) -> Source | None:
        """Where the user of this name comes from."""
        return next((source for source in SOURCES if name in self._by_source[source]), None)

    def count(self, source: Source) -> int:
        """Users that *source* has."""
        return len(self._by_source[source])

    def if_stored(self, name: str, user: User | None) -> Mapping[str, User]:
        """What `users` would be after `set_stored`."""
        other = UserBook()
        other._by_source = dict(self._by_source)
        other.set_stored(name, user)
        return other.users

    def _merged(self) -> dict[str, User]:
        merged: dict[str, User] = {}
        for source in reversed(SOURCES):
            merged |= self._by_source[source]
        return merged
