"""Operations on users: those in the store; the others are edited where they are."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from cluster.model import Name
from director.admin.offers import Operations, UserPicture
from director.admin.operation import Caller, Nothing, Parameters, Role, operation

#: Shorter ones are guessed; longer ones are no passwords.
MIN_PASSWORD, MAX_PASSWORD = 8, 1000


class PutUser(Parameters, frozen=True, kw_only=True):
    SECRETS: ClassVar[frozenset[str]] = frozenset({"password"})

    user: Name
    password: Annotated[str, Meta(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)] | None = None
    role: Literal["readonly", "full"]


class DelUser(Parameters, frozen=True, kw_only=True):
    user: Name


@operation(Role.READONLY, Nothing)
def users(director: Operations, caller: Caller, _: Nothing) -> tuple[UserPicture, ...]:
    """Who may call, with which role, and where that is configured."""
    return director.users()


@operation(Role.FULL, PutUser)
async def put_user(director: Operations, caller: Caller, p: PutUser) -> tuple[UserPicture, ...]:
    """Add a user for all directors, or change their role, and their password when one is given."""
    await director.put_user(p.user, p.password, p.role)
    return director.users()


@operation(Role.FULL, DelUser)
async def del_user(director: Operations, caller: Caller, p: DelUser) -> tuple[UserPicture, ...]:
    """Delete a user from the store; they are out at once, at all directors."""
    await director.del_user(p.user)
    return director.users()
