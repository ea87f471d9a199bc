"""Changes of the users that the store keeps for all directors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from argon2 import PasswordHasher

from cluster.keys import Keys
from cluster.model import User
from cluster.store import Delete, Put, Record
from cluster.view import Unreadable, decode
from director.admin.auth import InThread
from director.admin.offers import UserPicture
from director.admin.userbook import UserBook
from director.engine.errors import Conflict, Invalid, NotFound
from director.engine.swapping import Swap, Swapping


class UserChanges:
    """Writes users into the store, but never so that nobody could undo it.

    :param in_thread: hashes passwords, which takes tens of milliseconds by design.
    """

    def __init__(self, book: UserBook, swapping: Swapping, keys: Keys, *, in_thread: InThread) -> None:
        self._book = book
        self._swapping = swapping
        self._keys = keys
        self._in_thread = in_thread

    @property
    def problems(self) -> tuple[str, ...]:
        return self._book.problems

    def listed(self) -> tuple[UserPicture, ...]:
        return tuple(
            UserPicture(name=name, role=user.role, source=self._book.source(name) or "store")
            for name, user in sorted(self._book.users.items())
        )

    async def put(self, name: str, password: str | None, role: Literal["readonly", "full"]) -> None:
        self._mine(name)
        hashed = ""
        if password is not None:
            hashed = await self._in_thread(lambda: PasswordHasher().hash(password))
        key = self._keys.user(name)

        async def decide(record: Record | None) -> Swap:
            kept = hashed
            if not kept:
                if record is None:
                    raise Invalid("a new user needs one", "password")
                try:
                    kept = decode(record.value, User).password
                except Unreadable as error:
                    raise Invalid(f"the stored one cannot be read ({error}); give a new one", "password") from error
            user = User(password=kept, role=role)
            self._check(self._book.if_stored(name, user))
            return Swap(Put(key, msgspec.json.encode(user)))

        await self._swapping.change(key, decide)

    async def delete(self, name: str) -> None:
        self._mine(name)
        key = self._keys.user(name)

        async def decide(record: Record | None) -> Swap:
            if record is None:
                raise NotFound(f"no user is called {name!r}")
            self._check(self._book.if_stored(name, None))
            return Swap(Delete(key))

        await self._swapping.change(key, decide)

    def _mine(self, name: str) -> None:
        source = self._book.source(name)
        if source not in (None, "store"):
            where = "this node's configuration" if source == "configuration" else "this node's htpasswd file"
            raise Conflict(f"{name!r} is a user of {where}; change it there")

    def _check(self, users: Mapping[str, User]) -> None:
        """:raises Conflict: nobody could change anything any more."""
        if not users:
            raise Conflict("the last user stays: nobody could sign in then")
        if not any(user.role == "full" for user in users.values()):
            raise Conflict("nobody would have the role 'full' then, and could change it back")
