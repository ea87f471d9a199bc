"""What a director offers to its admin: all that the control interface knows of what is behind it."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from cluster.model import AdminState, HostRef
from director.core.snapshot import DirectorPicture, Explanation


class Operations(Protocol):
    """What a director offers to its admin.

    Refusals are `director.admin.errors.Refused`. A Deferred fires when this director acts accordingly, so that the
    next snapshot shows it; it may fail with `cluster.errors.StoreUnavailable`. The control interface has looked that
    the host exists; it may have left since.
    """

    def snapshot(self) -> DirectorPicture: ...

    def explain(self, service: str, client: str) -> Explanation:
        """:raises NotFound: no such service. *client* is a valid IP address."""

    def order(
        self, ref: HostRef, state: AdminState, *, who: str, why: str, deadline_s: float | None = None
    ) -> Deferred[None]:
        """Replace the operator's standing order; the agent's is not touched.

        :param deadline_s: of a drain: open connections are cut after it; None: the service's own.
        """

    def set_weight(self, ref: HostRef, weight: float, *, who: str) -> Deferred[None]: ...

    def approve(self, ref: HostRef, *, who: str) -> Deferred[None]:
        """Let a host in that registered and waits; nothing to do for one that is in. Fails with NotFound."""

    def retry(self, ref: HostRef) -> Deferred[None]:
        """Probe a host now; it comes back if it passes. Fires when the probe is done, whatever it found."""
