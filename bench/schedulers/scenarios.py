"""The scenarios, as data: those of issue and design, and reports that are delayed, lost, stale or lies.

Loads are relative to what the hosts can do together; works are seconds of one core at speed 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True)
class Hosts:
    """*count* hosts alike."""

    count: int
    cores: float = 4
    speed: float = 1.0


@dataclass(frozen=True)
class Reports:
    """How the agents report."""

    interval_s: float = 1.0
    delay_s: float = 0.0  #: mean of an exponential
    lost: float = 0.0  #: share of them
    until_s: float = 1e9  #: silence of all from then on
    application: bool = True  #: requests are reported; else only utilisation and connections
    restarts_per_s: float = 0.0  #: agents that restart, at random, each silent for up to 3 s
    liar: Literal["", "idle", "giant"] = ""  #: the first host's agent: "idle" says 0.01 busy, "giant" ten times its rate too


@dataclass(frozen=True)
class Scenario:
    name: str
    hosts: tuple[Hosts, ...]
    load: float
    work: Literal["exponential", "heavy"] = "exponential"
    mean_s: float = 0.010
    #: Connections of many requests live so long, log-uniform; () are connections of one request.
    lifetime_s: tuple[float, float] | tuple[()] = ()
    think_s: float = 0.2  #: mean between the requests of a long connection
    timeout_s: float = 2.0
    reports: Reports = field(default=Reports())
    turnarounds: bool = False  #: directors see them, and say so to their schedulers
    noisy: int = 0  #: so many hosts have a neighbour that uses up to all but half a core, on and off for 2 s each, mean
    sinkhole: int = 0  #: so many hosts fail at once from a third of the run on
    stuck: int = 0  #: so many hosts do no work for 3 s, each 10 s
    warm_s: float = 10.0
    run_s: float = 20.0


ALIKE = (Hosts(16),)
SCENARIOS = (
    Scenario("alike 3 %", (Hosts(4),), 0.03, mean_s=0.040, warm_s=60, run_s=120),
    Scenario("alike 30 %", (Hosts(4),), 0.30, mean_s=0.040, warm_s=20, run_s=60),
    Scenario("alike 70 %", ALIKE, 0.70),
    Scenario("alike 95 %", ALIKE, 0.95),
    Scenario("2 of 16 16x slower", (Hosts(14), Hosts(2, speed=1 / 16)), 0.65),
    Scenario("2 of 4 4x slower", (Hosts(2), Hosts(2, speed=1 / 4)), 0.65, mean_s=0.010, warm_s=20, run_s=40),
    Scenario("1 of 8 16x slower", (Hosts(7), Hosts(1, speed=1 / 16)), 0.50),
    Scenario("stuck host", ALIKE, 0.65, stuck=1, timeout_s=5.0),
    Scenario("noisy neighbours", ALIKE, 0.60, noisy=4),
    Scenario("sinkhole", ALIKE, 0.60, sinkhole=1),
    Scenario("heavy tail", ALIKE, 0.65, work="heavy"),
    Scenario("long-lived, 4 of 16 4x slower", (Hosts(12, cores=1), Hosts(4, cores=1, speed=1 / 4)), 0.65,
             lifetime_s=(0.2, 60.0), warm_s=90, run_s=60, mean_s=0.020),
    Scenario("long-lived, stock agents", (Hosts(12, cores=1), Hosts(4, cores=1, speed=1 / 4)), 0.65,
             lifetime_s=(0.2, 60.0), warm_s=90, run_s=60, mean_s=0.020, reports=Reports(application=False)),
)
_SLOW = next(each for each in SCENARIOS if each.name == "2 of 4 4x slower")
_ALIKE = replace(next(each for each in SCENARIOS if each.name == "alike 70 %"))
REPORTS = tuple(
    replace(base, name=f"{base.name}, {name}", reports=reports)
    for base in (_SLOW, _ALIKE)
    for name, reports in (
        ("delayed 2 s", Reports(delay_s=2.0)), ("half lost", Reports(lost=0.5)), ("silent", Reports(until_s=15.0)),
        ("an idle liar", Reports(liar="idle")), ("a giant liar", Reports(liar="giant")),
        ("restarting", Reports(restarts_per_s=0.5)),
    )
)
EVERY = {each.name: each for each in (*SCENARIOS, *REPORTS)}
