"""One run: clients, directors with their real inventories and schedulers, simulated hosts; virtual time, seeded.

Directors know nothing of each other. Clients come as a Poisson process, whatever the hosts do (an open loop), each to a
director drawn at random. The same seed gives the same clients and works to every scheduler.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from msgspec.structs import replace

from bench.schedulers.backend import FAILURE_S, Backend, Request
from bench.schedulers.scenarios import Scenario
from cluster.model import Group, Health, Host, HostRef, Probe, Reason, Service
from director.core.inventory import Inventory
from director.core.pool import Pool, Ticket

#: Bounded Pareto of works: exponent, and the largest over the smallest.
TAIL, SPAN = 1.3, 1000.0


@dataclass
class Outcome:
    latencies_s: list[float] = field(default_factory=list)
    answered: int = 0
    failed: int = 0
    timeouts: int = 0
    within_1_s: int = 0
    picks: Counter[str] = field(default_factory=Counter)
    seconds: list[Counter[str]] = field(default_factory=list)  #: the picks of each five seconds

    @property
    def total(self) -> int:
        return self.answered + self.failed + self.timeouts

    def quantile_s(self, share: float) -> float:
        values = self.latencies_s
        return values[min(int(share * len(values)), len(values) - 1)] if values else math.nan


class _Connection:
    """A client's connection of many requests."""

    __slots__ = ("backend", "director", "ends", "ticket")

    def __init__(self, director: int, backend: Backend, ticket: Ticket, ends: float) -> None:
        self.director = director
        self.backend = backend
        self.ticket = ticket
        self.ends = ends


class Simulation:
    """See the module. :meth:`run` once."""

    def __init__(self, scenario: Scenario, scheduler: str, *, parameters: dict[str, Any] | None = None, directors: int = 1,
                 seed: int = 1) -> None:
        self.scenario = scenario
        self._clients = random.Random(f"clients {seed}")
        self._works = random.Random(f"works {seed}")
        self._world = random.Random(f"world {seed}")
        self.backends: list[Backend] = []
        for kind in scenario.hosts:
            first = len(self.backends)
            self.backends += [Backend(f"h{first + index}", kind.cores, kind.speed) for index in range(kind.count)]
        self._by_name = {each.name: each for each in self.backends}
        group = Group(
            hosts={each.name: Host(address=f"10.0.0.{index + 1}:80") for index, each in enumerate(self.backends)},
            scheduler=scheduler, parameters=parameters or {}, health=replace(Health(), probe=Probe(kind="none")),
        )
        self.inventories = []
        for number in range(directors):
            inventory = Inventory(now=0.0, random=random.Random(f"director {number} {seed}").random)
            inventory.apply_service("web", Service(listen=("0.0.0.0:80",), groups={"main": group}), 0.0)
            inventory.drain()
            self.inventories.append(inventory)
        self.pools: list[Pool] = [each.services["web"].groups["main"].pool for each in self.inventories]
        self.outcome = Outcome()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._now = 0.0
        self._ends = scenario.warm_s + scenario.run_s
        self._silent_until = dict.fromkeys(self._by_name, 0.0)
        capacity = sum(each.capacity() for each in self.backends)
        self._arrival_rate = scenario.load * capacity / scenario.mean_s
        if scenario.lifetime_s:
            low, high = scenario.lifetime_s
            life = (high - low) / math.log(high / low)
            self._arrival_rate /= life / scenario.think_s

    def _at(self, time: float, what: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        heappush(self._events, (time, self._sequence, what, arguments))

    def run(self) -> Outcome:
        scenario = self.scenario
        for index, backend in enumerate(self.backends):
            self._at(self._world.uniform(0, scenario.reports.interval_s), self._report, backend, index)
        for backend in self.backends[: scenario.noisy]:
            self._at(self._world.expovariate(0.5), self._noise, backend)
        if scenario.sinkhole:
            self._at(scenario.warm_s + scenario.run_s / 3, self._sink)
        for backend in self.backends[: scenario.stuck]:
            self._at(scenario.warm_s + 2.0, self._stick, backend, backend.speed)
        if scenario.reports.restarts_per_s:
            self._at(self._world.expovariate(scenario.reports.restarts_per_s), self._restart)
        self._at(1.0, self._clean_up)
        self._at(self._clients.expovariate(self._arrival_rate), self._arrive)
        events = self._events
        while events and events[0][0] < self._ends:
            self._now, _sequence, what, arguments = heappop(events)
            what(*arguments)
        self.outcome.latencies_s.sort()
        return self.outcome

    # --- clients

    def _work(self) -> float:
        mean = self.scenario.mean_s
        if self.scenario.work == "exponential":
            return self._works.expovariate(1 / mean)
        # A bounded Pareto by its inverse, scaled to the mean.
        raw = (1 - self._works.random() * (1 - SPAN**-TAIL)) ** (-1 / TAIL)
        average = TAIL / (TAIL - 1) * (1 - SPAN ** (1 - TAIL)) / (1 - SPAN**-TAIL)
        return mean * raw / average

    def _arrive(self) -> None:
        now = self._now
        self._at(now + self._clients.expovariate(self._arrival_rate), self._arrive)
        director = self._clients.randrange(len(self.pools))
        ticket = self.pools[director].pick(None, now)
        if ticket is None:
            return
        self.inventories[director].connect_succeeded(ticket.host, now, now)  # an agent's silence alone is no death
        name = ticket.host.ref.host
        backend = self._by_name[name]
        backend.connections += 1
        if now >= self.scenario.warm_s:
            self.outcome.picks[name] += 1
            slot = int((now - self.scenario.warm_s) / 5)
            while len(self.outcome.seconds) <= slot:
                self.outcome.seconds.append(Counter())
            self.outcome.seconds[slot][name] += 1
        if self.scenario.lifetime_s:
            low, high = self.scenario.lifetime_s
            connection = _Connection(director, backend, ticket, now + low * (high / low) ** self._works.random())
            self._ask(connection)
            self._at(connection.ends, self._hang_up, connection)
        else:
            request = Request(now, director)
            request.ticket = ticket
            self._request(backend, request, None)

    def _ask(self, connection: _Connection) -> None:
        """A request on a long connection, whether or not the one before was answered."""
        if self._now >= connection.ends:
            return
        self._request(connection.backend, Request(self._now, connection.director), connection)
        self._at(self._now + self._clients.expovariate(1 / self.scenario.think_s), self._ask, connection)

    def _hang_up(self, connection: _Connection) -> None:
        connection.backend.connections -= 1
        connection.ticket.release(Reason.CLIENT_CLOSED, self._now)

    def _request(self, backend: Backend, request: Request, connection: _Connection | None) -> None:
        request.connection = connection
        work = self._work()
        if backend.failing and self._world.random() < backend.failing:
            request.failed = True
            self._at(self._now + FAILURE_S, self._answer, backend, request)
            return
        backend.start(request, work, self._now)
        self._at(self._now + self.scenario.timeout_s, self._time_out, backend, request)
        self._schedule(backend)

    def _schedule(self, backend: Backend) -> None:
        backend.version += 1
        time = backend.next_completion()
        if time < math.inf:
            self._at(time, self._complete, backend, backend.version)

    def _complete(self, backend: Backend, version: int) -> None:
        if version == backend.version:
            self._answer(backend, backend.complete(self._now))
            self._schedule(backend)

    def _time_out(self, backend: Backend, request: Request) -> None:
        if request.gone:
            return
        backend.give_up(request, self._now)
        self._schedule(backend)
        self._ended(backend, request, Reason.CLIENT_RESET)
        if request.began >= self.scenario.warm_s:
            self.outcome.timeouts += 1
            self.outcome.latencies_s.append(self.scenario.timeout_s)

    def _answer(self, backend: Backend, request: Request) -> None:
        latency_s = self._now - request.began
        backend.answered(latency_s, failed=request.failed)
        if self.scenario.turnarounds:
            pool = self.pools[request.director]
            pool.turned(pool.hosts[backend.name], 1, latency_s, self._now)
        self._ended(backend, request, Reason.HOST_CLOSED)
        if request.began >= self.scenario.warm_s:
            if request.failed:
                self.outcome.failed += 1
            else:
                self.outcome.answered += 1
                self.outcome.within_1_s += latency_s <= 1.0
                self.outcome.latencies_s.append(latency_s)

    def _ended(self, backend: Backend, request: Request, reason: Reason) -> None:
        if isinstance(request.ticket, Ticket):
            backend.connections -= 1
            request.ticket.release(reason, self._now)

    # --- what befalls hosts

    def _noise(self, backend: Backend) -> None:
        backend.advance(self._now)
        backend.stolen = 0.0 if backend.stolen else self._world.uniform(0.5, backend.cores - 0.5)
        self._schedule(backend)
        self._at(self._now + self._world.expovariate(0.5), self._noise, backend)

    def _sink(self) -> None:
        for backend in self.backends[: self.scenario.sinkhole]:
            backend.failing = 1.0

    def _stick(self, backend: Backend, speed: float) -> None:
        backend.advance(self._now)
        stuck = backend.speed == 0.0
        backend.speed = speed if stuck else 0.0
        self._schedule(backend)
        self._at(self._now + (7.0 if stuck else 3.0), self._stick, backend, speed)

    # --- agents

    def _report(self, backend: Backend, index: int) -> None:
        reports, now = self.scenario.reports, self._now
        self._at(now + reports.interval_s, self._report, backend, index)
        if now < self._silent_until[backend.name] or now > reports.until_s:
            return
        report = backend.report(now, application=reports.application)
        if index == 0 and reports.liar:
            report = replace(report, utilisation=0.01)
            if reports.liar == "giant" and report.rate is not None:
                report = replace(report, rate=10 * report.rate, completions=10 * (report.completions or 0.0))
        for number in range(len(self.inventories)):
            if self._world.random() >= reports.lost:
                delay_s = self._world.expovariate(1 / reports.delay_s) if reports.delay_s else 0.0
                self._at(now + delay_s, self._reported, number, backend.name, report)

    def _reported(self, number: int, name: str, report: Any) -> None:
        inventory = self.inventories[number]
        inventory.reported(HostRef("web", "main", name), report, self._now)
        inventory.drain()
        due = inventory.next_recompute()
        if due < math.inf:
            self._at(max(due, self._now), self._recompute, number)

    def _recompute(self, number: int) -> None:
        inventory = self.inventories[number]
        if inventory.next_recompute() <= self._now:
            inventory.recompute(self._now)
            inventory.drain()

    def _restart(self) -> None:
        backend = self._world.choice(self.backends)
        self._silent_until[backend.name] = self._now + self._world.uniform(0.0, 3.0)
        backend.report(self._now, application=True)  # what it had counted is gone
        self._at(self._now + self._world.expovariate(self.scenario.reports.restarts_per_s), self._restart)

    def _clean_up(self) -> None:
        for inventory in self.inventories:
            inventory.tick(self._now)
            inventory.clean_up(self._now)
            inventory.drain()
        self._at(self._now + 1.0, self._clean_up)
