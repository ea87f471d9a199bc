"""Changes of the users that the store keeps for all directors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from argon2 import PasswordHasher

from cluster.keys import Keys
from cluster.model import User
from cluster.store import Compare, Delete, Operation, Put, Store
from director.admin.auth import InThread
from director.admin.errors import Conflict, Invalid, NotFound
from director.admin.offers import UserPicture
from director.admin.userbook import UserBook
from director.sync import Sync


class UserChanges:
    """Writes users into the store, but never so that nobody could undo it.

    :param in_thread: hashes passwords, which takes tens of milliseconds by design.
    """

    def __init__(self, book: UserBook, store: Store, sync: Sync, keys: Keys, *, in_thread: InThread) -> None:
        self._book = book
        self._store = store
        self._sync = sync
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
        record = await self._store.get(key)
        if not hashed:
            if record is None:
                raise Invalid("a new user needs one", "password")
            hashed = msgspec.json.decode(record.value, type=User).password
        user = User(password=hashed, role=role)
        self._check(self._book.if_stored(name, user))
        await self._commit(key, Put(key, msgspec.json.encode(user)), record.mod_revision if record is not None else 0)

    async def delete(self, name: str) -> None:
        self._mine(name)
        key = self._keys.user(name)
        record = await self._store.get(key)
        if record is None:
            raise NotFound(f"no user is called {name!r}")
        self._check(self._book.if_stored(name, None))
        await self._commit(key, Delete(key), record.mod_revision)

    async def _commit(self, key: str, operation: Operation, revision: int) -> None:
        committed = await self._store.commit([operation], when=[Compare(key, revision)])
        if not committed.succeeded:
            raise Conflict("somebody else changed the user meanwhile; look again")
        await self._sync.reached(key, committed.revision)

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
