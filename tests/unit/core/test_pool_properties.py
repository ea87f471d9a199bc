"""Any sequence of changes and connections, against a model that looks at everything each time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.errors import Misuse
from cluster.model import Reason
from director.core.host import Host
from director.core.pool import Pool, Ticket
from tests.unit.core.core_pools import EVERY_KIND, address, ref, scheduler_of

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
WEIGHTS = st.sampled_from([0.0, 0.25, 1.0, 1.0, 3.0])
MAXIMA = st.sampled_from([0, 0, 1, 2])


class PoolMachine(RuleBasedStateMachine):
    """The pool's hosts carry what was told; the model derives from it who may be picked."""

    kind = "random"

    @initialize(fail_open=st.booleans())
    def begin(self, fail_open: bool) -> None:
        self.current = self.kind
        self.fail_open = fail_open
        self.pool = Pool(scheduler_of(self.kind), fail_open=fail_open)
        self.tickets: list[Ticket] = []
        self.retired: list[Host] = []
        self.now = 0.0

    def eligible(self) -> set[Host]:
        weighing = [host for host in self.pool.hosts.values() if host.weight > 0]
        up = [host for host in weighing if host.available]
        rotation = [host for host in up if not host.backup] or up
        if not rotation and self.fail_open:
            rotation = [host for host in weighing if host.admissible]
        return {host for host in rotation if not (host.max_connections and host.in_flight >= host.max_connections)}

    @rule(name=NAMES, weight=WEIGHTS, maximum=MAXIMA, backup=st.booleans(), complete=st.booleans())
    def put(self, name: str, weight: float, maximum: int, backup: bool, complete: bool) -> None:
        self.pool.put(ref(name), weight=weight, max_connections=maximum, backup=backup)
        if complete:
            self.pool.configured()

    @rule(name=NAMES)
    def discard(self, name: str) -> None:
        self.retired.extend([self.pool.hosts[name]] if name in self.pool.hosts else [])
        self.pool.discard(name)
        self.pool.configured()

    @precondition(lambda self: self.pool.hosts)
    @rule(data=st.data(), available=st.booleans(), admissible=st.booleans(), weight=WEIGHTS, maximum=MAXIMA)
    def change(self, data: st.DataObject, available: bool, admissible: bool, weight: float, maximum: int) -> None:
        host = data.draw(st.sampled_from([*self.pool.hosts.values(), *self.retired]))
        match data.draw(st.sampled_from(["state", "weight", "maximum"])):
            case "state":
                self.pool.set_available(host, available and admissible, admissible)
            case "weight":
                self.pool.set_weight(host, weight)
            case "maximum":
                self.pool.set_maximum(host, maximum)

    @rule(fail_open=st.booleans())
    def policy(self, fail_open: bool) -> None:
        self.fail_open = fail_open
        self.pool.set_fail_open(fail_open)

    @rule(kind=st.sampled_from(EVERY_KIND))
    def replace(self, kind: str) -> None:
        self.current = kind
        self.pool.replace_scheduler(scheduler_of(kind))

    @rule(client=st.none() | st.integers(0, 5).map(address), excluded=st.sets(NAMES, max_size=3))
    def pick(self, client: bytes | None, excluded: set[str]) -> None:
        self.now += 1
        exclude = [self.pool.hosts[name] for name in sorted(excluded) if name in self.pool.hosts] + self.retired[:1]
        candidates = self.eligible() - set(exclude)
        preview = self.pool.explain(client, self.now).chosen
        before = {host: (host.in_flight, host.turn) for host in candidates}
        ticket = self.pool.pick(client, self.now, exclude)
        assert (ticket is None) == (not candidates)
        if ticket is None:
            return
        assert ticket.host in candidates
        assert preview not in candidates or ticket.host is preview
        assert exclude or preview in (None, ticket.host)
        if self.current == "leastconns":
            assert ticket.host is min(candidates, key=lambda host: before[host])
        if self.current == "weightedleastconns":
            best = min(candidates, key=lambda host: ((before[host][0] + 1) / host.weight, before[host][1]))
            assert ticket.host is best or not (before[best][0] or before[ticket.host][0])
        self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        self.pool.release(ticket, Reason.HOST_CLOSED, self.now)
        try:
            self.pool.release(ticket, Reason.HOST_CLOSED, self.now)
        except Misuse:
            return
        raise AssertionError("released twice")

    @invariant()
    def agrees(self) -> None:
        eligible = self.eligible()
        hosts = [*self.pool.hosts.values(), *self.retired]
        assert {host for host in hosts if host.eligible} == eligible
        assert {host for host in hosts if not self.pool.why_not(host)} == eligible
        assert self.pool.eligible == len(eligible)
        assert self.pool.available >= self.pool.eligible
        assert self.pool.in_flight == len(self.tickets) == sum(host.in_flight for host in hosts)

    def teardown(self) -> None:
        for ticket in getattr(self, "tickets", ()):
            self.pool.release(ticket, Reason.SHUTDOWN, self.now)
            assert ticket.host.in_flight >= 0
        if hasattr(self, "pool"):
            assert self.pool.in_flight == 0
            assert all(host.in_flight == 0 for host in [*self.pool.hosts.values(), *self.retired])


def _test_case(kind: str) -> type:
    machine = type(f"PoolOf{kind.title().replace('-', '')}", (PoolMachine,), {"kind": kind})
    case = machine.TestCase
    case.settings = settings(max_examples=12, stateful_step_count=30)
    case.__doc__ = f"Nobody but an eligible host is ever picked by {kind}, and counts return to zero."
    return case


for _kind in EVERY_KIND:
    globals()[f"Test{_kind.title().replace('-', '')}"] = _test_case(_kind)
