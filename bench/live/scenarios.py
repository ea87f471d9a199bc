"""What is measured live: hosts, clients, and how hard they are driven. Data only."""

from __future__ import annotations

from typing import NamedTuple

#: Mean work of a request on a host of speed 1, seconds of one core.
WORK_S = 0.040
CORES = 4


class Noise(NamedTuple):
    """Somebody else's work on a host: *jobs* that keep a core busy each, for *on_s* out of every *every_s*."""

    jobs: int
    on_s: float
    every_s: float


class Simulated(NamedTuple):
    """A host that shares its cores evenly among what it serves."""

    speed: float = 1.0
    cores: int = CORES
    noise: Noise | None = None
    fails: bool = False  #: answers an error at once


class Scenario(NamedTuple):
    """:ivar load: of all hosts' capacity together, those that fail left out.
    :ivar lives_s: connections live so long, evenly drawn, and carry one request after the other; None: one for each.
    :ivar per_s: requests of one such connection.
    :ivar quotas: shares of a core, of real servers in cgroups instead of simulated hosts; beside them runs the agent as
        anybody has it, who is told the port and no more.
    :ivar work_s: mean, of a request."""

    name: str
    hosts: tuple[Simulated, ...]
    load: float
    lives_s: tuple[float, float] | None = None
    per_s: float = 1.0
    quotas: tuple[float, ...] = ()
    work_s: float = WORK_S

    @property
    def rate(self) -> float:
        """Requests per second, of all clients together."""
        cores = sum(host.speed * host.cores for host in self.hosts if not host.fails) + sum(self.quotas)
        return self.load * cores / self.work_s


_PLAIN = Simulated()
_QUOTAS = (0.4, 0.4, 0.2, 0.1)
_NOISY = Simulated(noise=Noise(jobs=12, on_s=5.0, every_s=20.0))

SCENARIOS = {scenario.name: scenario for scenario in (
    Scenario("alike", (_PLAIN,) * 4, 0.70),
    Scenario("half-slow", (_PLAIN,) * 2 + (Simulated(speed=1 / 4),) * 2, 0.65),
    Scenario("one-very-slow", (_PLAIN,) * 7 + (Simulated(speed=1 / 16),), 0.50),
    Scenario("sinkhole", (_PLAIN,) * 3 + (Simulated(fails=True),), 0.60),
    Scenario("noisy", (_PLAIN,) * 2 + (_NOISY,) * 2, 0.50),
    Scenario("long-lived", (_PLAIN,) * 3 + (Simulated(speed=1 / 4),), 0.65, lives_s=(3.0, 20.0), per_s=2.0),
    Scenario("light", (_PLAIN,) * 4, 0.03),
    Scenario("quota-short", (), 0.60, quotas=_QUOTAS, work_s=0.005),
    Scenario("quota-long", (), 0.60, lives_s=(3.0, 20.0), per_s=2.0, quotas=_QUOTAS, work_s=0.005),
)}
