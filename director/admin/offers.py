"""What a director offers to its admin: all that the control interface knows of what is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec
from twisted.internet.defer import Deferred

from cluster.address import Address
from cluster.model import AdminState, AuditEntry, Configuration, HostRef, Service
from director.core.snapshot import (
    ClusterPicture,
    ConnectionsPicture,
    DirectorPicture,
    Explanation,
    PastPicture,
    TotalsPicture,
    TransitionPicture,
    VipPicture,
)


class UserPicture(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call."""

    name: str
    role: Literal["readonly", "full"]
    source: Literal["configuration", "htpasswd", "store"]


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A service as the store has it."""

    revision: int  #: of the store, when the service was last written
    spec: Service


class Reloaded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a node's file that was read again, by the places in it."""

    reloaded: tuple[str, ...]  #: differed, and is in force now
    restart: tuple[str, ...]  #: differs, and waits for a restart
    upgraded: tuple[str, ...] = ()  #: differed, and is in force in a new process, which serves now
    pid: int | None = None  #: of that process


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    connections: int  #: open now; the director waits for them
    at_most_s: float  #: then it cuts them


class Upgraded(msgspec.Struct, frozen=True, kw_only=True):
    """A new process serves."""

    pid: int  #: of the new process
    version: str
    connections: int  #: that the old one still serves
    at_most_s: float  #: then it cuts them


class Process(Protocol):
    """What a director can do about the process that it has for itself."""

    def upgrade(self, who: str) -> Deferred[Upgraded]:
        """Have a new process take this one's place. Fails with `Conflict` when none did; this one serves on then."""

    def reopen_logs(self) -> str:
        """The log's target. Raises `Conflict` when it cannot be opened; the old one was kept then."""

    def reload(self) -> Deferred[Reloaded]:
        """Fails with `Conflict` when the file has errors; nothing was taken then."""

    def shutdown(self, who: str) -> Stopping:
        """Begin to stop, a moment from now, so that the answer is still sent."""


#: From a service as it is to what it shall be; None stands for "no such service". Refuses by raising `Refused`.
#: May be called several times, as others change the service too.
Edit: TypeAlias = Callable[[Service | None], Service | None]


class Operations(Protocol):
    """What a director offers to its admin.

    Refusals are `director.engine.errors.Refused`. A Deferred fires when this director acts accordingly, so that the
    next snapshot shows it; it may fail with `cluster.errors.StoreUnavailable`. The control interface has looked that
    the host exists; it may have left since.
    """

    def picture(self, service: str | None = None, group: str | None = None, host: str | None = None) -> DirectorPicture:
        """Of everything; or with no other service, group and host than those named, if there are such: ten thousand hosts
        are not looked at for one."""

    def refs(self) -> Iterable[HostRef]:
        """Every host there is."""

    def totals(self) -> TotalsPicture:
        """Sums over everything, at a hundredth of a snapshot's price."""

    def bad(self, unused: bool) -> Iterable[HostRef]:
        """Hosts that are suspect or down; with *unused*, those that take no new connections instead."""

    def happened(self, limit: int, *, downs: bool) -> Sequence[tuple[HostRef, TransitionPicture]]:
        """The newest changes of state of all hosts, the newest first; with *downs*, those to down."""

    def explain(self, service: str, client: str, server_name: str | None = None) -> Explanation:
        """:raises NotFound: no such service. *client* is a valid IP address."""

    def order(
        self, ref: HostRef, state: AdminState, *, who: str, why: str, deadline_s: float | None = None,
        local: bool = False,
    ) -> Deferred[None]:
        """Replace the operator's standing order; the agent's is not touched.

        :param deadline_s: of a drain: open connections are cut after it; None: the service's own.
        :param local: at this director alone and without the store, in place of what the operators ordered everywhere,
            until they order anew or the store is read anew.
        """

    def set_weight(self, ref: HostRef, weight: float, *, who: str) -> Deferred[None]: ...

    def approve(self, ref: HostRef, *, who: str) -> Deferred[None]:
        """Let a host in that registered and waits; nothing to do for one that is in. Fails with NotFound."""

    def retry(self, ref: HostRef) -> Deferred[None]:
        """Probe a host now; it comes back if it passes. Fires when the probe is done, whatever it found."""

    def forget(self, ref: HostRef) -> Deferred[int | None]:
        """Drop the registration of a host that joined through its agent; None if there is none, else the revision."""

    # --- the directors together

    def cluster(self) -> ClusterPicture: ...

    def history(self, ref: HostRef | None, limit: int) -> Deferred[tuple[PastPicture, ...]]:
        """Of one host, or of everything; newest first."""

    # --- virtual addresses; all but the first fail with `NotFound`, and with `Conflict` where they cannot be moved singly

    def vips(self) -> tuple[VipPicture, ...]: ...

    def move_vip(self, address: str, director: str, *, who: str) -> Deferred[VipPicture]:
        """Fires when it is there, or some seconds later."""

    def pin_vip(self, address: str, director: str, *, who: str) -> Deferred[VipPicture]: ...

    def unpin_vip(self, address: str, *, who: str) -> Deferred[VipPicture]: ...

    def rebalance_vips(self, *, who: str) -> Deferred[tuple[VipPicture, ...]]:
        """As `move_vip`."""

    # --- what runs

    def connections(self, service: str, limit: int) -> ConnectionsPicture:
        """:raises NotFound: no such service."""

    def kill_connection(self, service: str, client: Address) -> int:
        """How many were cut. Raises `NotFound`: no such service."""

    def audit(self, limit: int) -> tuple[AuditEntry, ...]:
        """The newest first, as far as this director has heard."""

    def process(self) -> Process:
        """:raises Conflict: this director is a part of somebody else's process."""

    # --- users

    def users(self) -> tuple[UserPicture, ...]: ...

    def put_user(self, name: str, password: str | None, role: Literal["readonly", "full"]) -> Deferred[None]:
        """Fires when it is in force here. Fails with `Conflict`: not the store's user, or nobody could undo it."""

    def del_user(self, name: str) -> Deferred[None]:
        """As `put_user`; and with `NotFound`."""

    # --- configuration

    def boot(self) -> Configuration:
        """The node's configuration as it was read at the start."""

    def stored(self) -> Deferred[Mapping[str, Stored]]:
        """Every service, as the store has it now."""

    def change(self, service: str, change: Edit, *, revision: int | None = None) -> Deferred[int]:
        """Compare and swap one service; fires with the revision when this director acts accordingly.

        :param revision: the one the change was made for; 0: there must be no such service; None: whatever it is.

        Fails with `Stale`; with `Wrong` for what a configuration file may not say either; and with `Conflict`
        when this director cannot have an address that the change adds, or the service keeps changing.
        """
