"""An `AgentSink` that writes down what it is told."""

from __future__ import annotations

from cluster.model import HostRef, LoadReport


class RecordingSink:
    """Knows the hosts it is given; `events` has everything in order, reports without their times."""

    def __init__(self, *known: str) -> None:
        self.hosts = {HostRef.parse(text) for text in known}
        self.events: list[tuple[object, ...]] = []
        self.rejects: list[str] = []
        self.registration = ""  #: what `registered` answers
        self.joins = True  #: whether a registered host is known at once

    def known(self, ref: HostRef) -> bool:
        return ref in self.hosts

    def registered(self, ref: HostRef, agent: str, boot_id: str, address: str, weight: float, *, peer: str,
                   identity: str, most: int) -> str:
        self.events.append(("registered", str(ref), agent, address, weight, peer))
        if not self.registration and self.joins:
            self.hosts.add(ref)
        return self.registration

    def agent_connected(self, ref: HostRef, agent: str, boot_id: str, address: str) -> None:
        self.events.append(("connected", str(ref), agent, boot_id))

    def reported(self, ref: HostRef, report: LoadReport) -> None:
        self.events.append(("reported", str(ref), report))

    def agent_leaving(self, ref: HostRef, deadline_s: float) -> None:
        self.events.append(("leaving", str(ref), deadline_s))

    def agent_lost(self, ref: HostRef, why: str) -> None:
        self.events.append(("lost", str(ref), why))

    def rejected(self, reason: str) -> None:
        self.rejects.append(str(reason))

    def take(self) -> list[tuple[object, ...]]:
        """The events since the last call."""
        events, self.events = self.events, []
        return events
