"""Any sequence of anything that can happen to a director, in virtual time, against what must hold whatever happens."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import (
    AdminState,
    Caps,
    CapShare,
    Group,
    Health,
    Host,
    HostRef,
    HostState,
    Limits,
    LoadReport,
    Observed,
    Order,
    Probe,
    Reason,
    Registered,
    Registration,
    Service,
    Sticky,
)
from director.core.entries import HostEntry
from director.core.host import Host as PoolHost
from director.core.merge import is_cut_off, merge
from director.core.transitions import Transition
from director.core.weighing import RECOMPUTE_S
from director.reports.roster import LEFT
from tests.unit.core.core_pools import has_place
from tests.unit.engine.virtual_director import VirtualDirector

#: Longer than a probe and its answer, or than a dozen clients take, one each `CLIENT_EVERY_S`.
BACK_WITHIN_S = 3.0
CLIENT_EVERY_S = 0.25

TIMEOUT_S = Health().timeout_s
NAMES = "abc"
REFS = st.builds(HostRef, st.just("web"), st.sampled_from(["blue", "green"]), st.sampled_from(NAMES))


def address(ref: HostRef) -> str:
    return f"10.0.{len(ref.group)}.{NAMES.index(ref.host) + 1}:80"


HEALTH = st.builds(
    Health, probe=st.sampled_from([Probe(kind="none"), Probe(kind="none"), Probe(), Probe(kind="http")]),
    jitter=st.sampled_from([0.0, 0.1]), rise=st.integers(1, 3), fall=st.integers(1, 3),
    slow_start_s=st.sampled_from([0.0, 10.0]), fail_open=st.sampled_from(["refuse", "refuse", "all"]),
)
MAXIMA = st.sampled_from([0, 1, 1, 2, 3])


@st.composite
def groups(draw: Any, name: str) -> Group:
    hosts = {
        host: Host(address=address(HostRef("web", name, host)), weight=draw(st.sampled_from([0.0, 1.0, 1.0, 3.0])),
                   max_connections=draw(MAXIMA), backup=draw(st.sampled_from([False, False, True])))
        for host in draw(st.sets(st.sampled_from(NAMES), min_size=1))
    }
    return Group(hosts=hosts, health=draw(HEALTH), registration=Registration(mode="auto"),
                 scheduler=draw(st.sampled_from(["random", "leastconns", "weightedleastconns", "weighted"])))


SERVICES = st.builds(
    Service, groups=st.fixed_dictionaries({"blue": groups("blue")}, optional={"green": groups("green")}),
    limits=st.builds(Limits, max_connections=st.sampled_from([0, 0, 0, 3]), queue=st.sampled_from([0, 2, 9, 9]),
                     queue_timeout_s=st.sampled_from([5.0, 60.0])),
    sticky=st.sampled_from([None, None, Sticky(mode="hash"), Sticky(mode="table")]),
    split=st.sampled_from([{}, {}, {"blue": 1.0, "green": 1.0}, {"blue": 9.0, "green": 1.0}, {"blue": 0.0, "green": 1.0}]),
)
REPORTS = st.builds(
    LoadReport, utilisation=st.sampled_from([None, 0.1, 0.9]), rate=st.sampled_from([None, 10.0, 200.0]),
    errors=st.sampled_from([None, 0.0, 0.5]), completions=st.sampled_from([None, 5.0, 100.0]),
    max_connections=st.sampled_from([None, 0, 1, 3]), weight=st.sampled_from([None, None, 0.0, 1.0]),
    state=st.sampled_from(["ready", "ready", "ready", "drain", "down"]),
)
PAUSES = st.sampled_from([0.0, 0.06, 0.5, 1.0, 3.0, 5.0, 20.0])
DIRECTORS = ["d2", "d3", "d4"]


class DirectorMachine(RuleBasedStateMachine):
    """Director d1, which is one of several, and its service web."""

    @initialize(spec=SERVICES, crowded=st.sampled_from([True, True, False]))
    def begin(self, spec: Service, crowded: bool) -> None:
        self.crowded = crowded  # as soon as nobody waits more clients come
        self.failures: list[Any] = []
        globalLogPublisher.addObserver(self.logged)
        self.director = VirtualDirector()
        self.node, self.world, self.relay = self.director.node, self.director.world, self.director.relay
        self.grace_until = self.director.now + TIMEOUT_S
        self.seen: set[tuple[PoolHost, Transition]] = set()
        self.records: dict[tuple[str, HostRef], Observed] = {}
        self.numbers = 0
        self.node.apply_service("web", spec)

    def logged(self, event: Any) -> None:
        if "log_failure" in event:
            self.failures.append(event["log_failure"])

    # --- what the operator and the store do

    @rule(spec=SERVICES, enable=st.sampled_from([None, "blue", "green"]))
    def configure(self, spec: Service, enable: str | None) -> None:
        changes = {"enable": enable} if enable in spec.groups else {}
        self.node.apply_service("web", Service(**{**{name: getattr(spec, name) for name in spec.__struct_fields__}, **changes}))

    @rule(limits=st.builds(Limits, max_connections=st.sampled_from([0, 2, 5]), queue=st.just(8)))
    def relimit(self, limits: Limits) -> None:
        self.respec(limits=limits)

    @rule(health=HEALTH)
    def rejudge(self, health: Health) -> None:
        service = self.node.inventory.services.get("web")
        if service is not None:
            self.respec(groups={name: Group(hosts=group.hosts, health=health, scheduler=group.scheduler,
                                            registration=group.registration)
                                for name, group in service.spec.groups.items()})

    def respec(self, **changes: Any) -> None:
        service = self.node.inventory.services.get("web")
        if service is not None:
            spec = service.spec
            self.node.apply_service(
                "web", Service(**{**{name: getattr(spec, name) for name in spec.__struct_fields__}, **changes}))

    @rule()
    def unconfigure(self) -> None:
        self.node.apply_service("web", None)

    @rule(ref=REFS, maximum=MAXIMA, approved=st.booleans(), there=st.booleans())
    def register(self, ref: HostRef, maximum: int, approved: bool, there: bool) -> None:
        host = Host(address=address(ref), max_connections=maximum)
        self.node.set_registered(
            ref, Registered(host=host, agent="x", boot_id="1", at=0.0, approved=approved) if there else None)

    @rule(ref=REFS, by=st.sampled_from(["operator", "operator", "local"]),
          state=st.sampled_from([None, None, AdminState.DRAIN, AdminState.DOWN]))
    def order(self, ref: HostRef, by: str, state: AdminState | None) -> None:
        order = Order(state=state, who="ann", at=0.0, deadline_s=1.0) if state is not None else None
        self.node.set_order(ref, by, order)

    @rule()
    def resync(self) -> None:
        self.node.drop_local_orders()

    @rule(share=st.none() | st.integers(0, 4))
    def share(self, share: int | None) -> None:
        self.numbers += 1
        caps = None if share is None else Caps(number=self.numbers, maximum=4, shares={"d1": CapShare(grant=share, ceiling=4)})
        self.node.set_caps("web", caps)

    @precondition(lambda self: self.node.inventory.hosts)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """Who is admissible and answers again is back soon after, by traffic or by its check, or others keep it out."""
        hosts = [entry for entry in self.node.inventory.hosts.values() if entry.admin is AdminState.UP]
        hosts = [entry for entry in hosts if entry.health.state is HostState.DOWN] or hosts
        if hosts:
            self.return_after_retry(data.draw(st.sampled_from(hosts)))

    @precondition(lambda self: self.node.inventory.hosts)
    @rule(data=st.data(), at_once=st.booleans())
    def retry_after_outage(self, data: st.DataObject, at_once: bool) -> None:
        entry = data.draw(st.sampled_from(list(self.node.inventory.hosts.values())))
        self.die(entry, at_once=at_once)
        if entry.admin is AdminState.UP:
            self.return_after_retry(entry)

    def return_after_retry(self, entry: HostEntry) -> None:
        self.world.heal(entry.spec.address)
        self.node.probing.retry(entry.ref)
        end = self.director.now + BACK_WITHIN_S
        client = 1000
        while not self.is_back(entry) and self.director.now < end:
            client += 1
            connection = self.director.arrive("web", client)
            self.flow()
            if connection.handle:
                self.relay.close(connection.handle, Reason.CLIENT_CLOSED)
            self.director.run(CLIENT_EVERY_S)
        assert self.is_back(entry), f"{entry.ref} stays out: {entry.health.state}, {entry.verdict}"

    def is_back(self, entry: HostEntry) -> bool:
        overruled = entry.health.state is not HostState.DOWN and not entry.verdict.mine
        return entry.host.available or overruled

    # --- what other directors do

    @rule(who=st.sampled_from(DIRECTORS), refs=st.sets(REFS, min_size=1, max_size=3), blind=st.booleans(),
          state=st.sampled_from([None, HostState.DOWN, HostState.DOWN, HostState.SUSPECT]))
    def observe(self, who: str, refs: set[HostRef], blind: bool, state: HostState | None) -> None:
        told: dict[tuple[str, HostRef], Observed | None] = {}
        for ref in sorted(refs):
            told[who, ref] = Observed(state=state, since=0.0, why="refused", boot_id="1", blind=blind) if state else None
            if (record := told[who, ref]) is not None:
                self.records[who, ref] = record
            else:
                self.records.pop((who, ref), None)
        self.node.set_observed(told)

    @rule(names=st.sets(st.sampled_from(DIRECTORS)))
    def live(self, names: set[str]) -> None:
        self.node.set_directors(sorted(names))

    @rule()
    def lead(self) -> None:
        self.grace_until = self.director.now + TIMEOUT_S
        self.node.leader_changed()

    # --- what agents do

    @rule(refs=st.sets(REFS, min_size=1, max_size=4), boot_id=st.sampled_from(["1", "2"]), report=REPORTS)
    def hello(self, refs: set[HostRef], boot_id: str, report: LoadReport) -> None:
        for ref in sorted(refs):
            if self.director.attendance.known(ref):
                self.director.attendance.agent_connected(ref, "x", boot_id, "10.0.0.9")
                self.director.attendance.reported(ref, report)

    @precondition(lambda self: self.node.inventory.hosts)
    @rule(data=st.data(), reports=st.lists(REPORTS, min_size=1, max_size=3), relayed=st.booleans())
    def report(self, data: st.DataObject, reports: list[LoadReport], relayed: bool) -> None:
        """One host's agent, each report judged by itself."""
        ref = data.draw(st.sampled_from(list(self.node.inventory.hosts)))
        for report in reports:
            self.say(ref, report, relayed=relayed)

    @precondition(lambda self: self.node.inventory.hosts)
    @rule(tight=st.sampled_from([LoadReport(max_connections=1), LoadReport(weight=0.0)]))
    def ease(self, tight: LoadReport) -> None:
        """Each agent in turn asks for less, clients come until somebody waits, and it asks for all again."""
        group = self.node.inventory.services["web"].enabled
        hosts = [] if group is None else [entry.ref for entry in group.hosts.values() if entry.host.available]
        for ref in hosts:
            for relayed in (False, True):
                self.say(ref, tight, relayed=relayed)
                self.director.run(RECOMPUTE_S)
                self.crowd()
                self.say(ref, LoadReport(), relayed=relayed)
                self.director.run(RECOMPUTE_S)
                self.check()

    def say(self, ref: HostRef, report: LoadReport, *, relayed: bool) -> None:
        if relayed:
            self.director.attendance.relayed(ref, report, 0.5)
        else:
            self.director.attendance.reported(ref, report)
        self.check()

    @rule(ref=REFS, why=st.sampled_from(["reset", LEFT]))
    def lose_agent(self, ref: HostRef, why: str) -> None:
        self.director.attendance.agent_lost(ref, why)

    @rule(ref=REFS)
    def leaving(self, ref: HostRef) -> None:
        self.director.attendance.agent_leaving(ref, 1.0)

    # --- what the network and the clients do

    @rule(refs=st.sets(REFS, min_size=1, max_size=4), how=st.sampled_from(["down", "at once", "unhealthy", "up"]))
    def change_world(self, refs: set[HostRef], how: str) -> None:
        for ref in refs:
            where = address(ref)
            self.world.heal(where)
            if how in ("down", "at once"):
                self.world.unreachable.add(where)
            if how == "at once":
                self.world.at_once.add(where)
            if how == "unhealthy":
                self.world.unhealthy.add(where)

    @precondition(lambda self: self.node.inventory.hosts)
    @rule(data=st.data(), at_once=st.booleans())
    def outage(self, data: st.DataObject, at_once: bool) -> None:
        self.die(data.draw(st.sampled_from(list(self.node.inventory.hosts.values()))), at_once=at_once)

    def die(self, entry: HostEntry, *, at_once: bool) -> None:
        """A host dies under traffic, and clients go on coming."""
        self.world.unreachable.add(entry.spec.address)
        if at_once:
            self.world.at_once.add(entry.spec.address)
        self.director.run(TIMEOUT_S)
        for client in range(8):
            self.director.arrive("web", client)
            self.flow()

    @precondition(lambda self: "web" in self.node.frontends)
    @rule(number=st.integers(1, 5), client=st.integers(0, 9))
    def arrive(self, number: int, client: int) -> None:
        for each in range(number):
            self.director.arrive("web", client + each)

    @rule()
    def flow(self) -> None:
        """The network comes to rest."""
        self.director.run()
        while self.relay.turn():
            self.director.run()

    @rule()
    def flow_a_little(self) -> None:
        self.relay.turn()

    @rule(number=st.integers(1, 3), data=st.data())
    def leave(self, number: int, data: st.DataObject) -> None:
        for _ in range(min(number, len(self.relay.open))):
            self.relay.close(data.draw(st.sampled_from(sorted(self.relay.open))), Reason.CLIENT_CLOSED)

    @precondition(lambda self: self.director.clients and "web" in self.node.frontends)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        chosen = list(self.director.clients)[data.draw(st.integers(0, len(self.director.clients) - 1))]
        chosen.frontend.kill(lambda connection: connection is chosen, Reason.KILLED)

    @rule(pause=PAUSES)
    def wait(self, pause: float) -> None:
        self.director.run(pause)

    # --- what must hold

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "director"):
            return
        self.check()
        if self.crowded:
            self.crowd()
            self.nothing_is_evicted_in_grace()  # before the next rule may begin another one

    def crowd(self) -> None:
        """Clients come until somebody waits, if that can be had with few."""
        service = self.node.inventory.services.get("web")
        pool = service.admission.pool if service is not None else None
        for client in range(6):
            if service is None or pool is None or service.admission.queued or not service.spec.limits.queue:
                return
            endless = any(entry.host.eligible and not entry.host.max_connections
                          for group in service.groups.values() for entry in group.hosts.values())
            if not pool.available or (endless and service.admission.maximum > 6):
                return
            self.director.arrive("web", client)

    def check(self) -> None:
        self.director.hosts.update(entry.host for entry in self.node.inventory.hosts.values())
        self.nobody_waits_beside_a_place()
        self.director.run()
        self.nobody_waits_beside_a_place()
        self.counts_agree()
        self.nothing_is_stale()
        self.nothing_is_evicted_in_grace()
        assert not self.failures, self.failures[0].getTraceback()

    def nobody_waits_beside_a_place(self) -> None:
        for service in self.node.inventory.services.values():
            admission = service.admission
            if admission.pool is not None and admission.queued and admission.connections < admission.maximum:
                first: Any = admission.waiters()[0]
                assert not has_place(admission.pool, first.ip, self.director.now), f"{admission.queued} wait beside a place"

    def counts_agree(self) -> None:
        on: dict[Any, int] = {}
        for connection in self.director.clients:
            if connection.host is not None:
                assert connection.ticket is not None
                assert connection.ticket.pool is not None, "holds a ticket that was released"
                on[connection.host] = on.get(connection.host, 0) + 1
        for host in self.director.hosts:
            assert host.in_flight == on.pop(host, 0), f"{host} counts others than its open tickets"
        assert not on
        assert self.node.open_connections == len(self.director.clients)
        assert set(self.director.ended.values()) <= {1}

    def nothing_is_stale(self) -> None:
        inventory, now = self.node.inventory, self.director.now
        down = {who: sum(each == who and record.state is HostState.DOWN for (each, _), record in self.records.items())
                for who in DIRECTORS}
        assert inventory.others.cut_off == {
            who for who, count in down.items() if is_cut_off(count, len(inventory.hosts), 0.5)}
        for ref, entry in inventory.hosts.items():
            fresh = merge(entry.health.evidence(now), inventory.others.about(ref), inventory.others.cut_off)
            assert (entry.verdict.down, entry.verdict.why) == (fresh.down, fresh.why), f"{ref}: {entry.verdict}, {fresh}"
            host, admissible = entry.host, entry.admin is AdminState.UP
            assert (host.available, host.admissible) == (admissible and not fresh.down, admissible)
            maxima = [entry.spec.max_connections, (entry.report and entry.report.max_connections) or 0]
            assert host.max_connections == min(filter(None, maxima), default=0)

    def nothing_is_evicted_in_grace(self) -> None:
        for entry in self.node.inventory.hosts.values():
            fresh = {(entry.host, transition) for transition in entry.health.history} - self.seen
            self.seen |= fresh
            for _, transition in fresh:
                assert transition.after is not HostState.DOWN or transition.at >= self.grace_until, transition

    def teardown(self) -> None:
        """All come to their end: once, and nothing counts on."""
        if not hasattr(self, "director"):
            return
        try:
            self.world.unreachable.clear()
            self.flow()
            while self.relay.open:
                self.relay.close(next(iter(self.relay.open)), Reason.CLIENT_CLOSED)
                self.flow()
            self.director.run(60.0)
            self.flow()
            for handle in list(self.relay.open):
                self.relay.close(handle, Reason.CLIENT_CLOSED)
            self.check()
            self.node.apply_service("web", None)
            self.director.run(1.0)
            assert not self.director.clients
            assert all(host.in_flight == 0 for host in self.director.hosts)
            assert self.node.open_connections == 0
            assert not self.failures, self.failures[0].getTraceback()
        finally:
            globalLogPublisher.removeObserver(self.logged)
            self.director.close()


TestDirector = DirectorMachine.TestCase
TestDirector.settings = settings(max_examples=40, stateful_step_count=40, deadline=None,
                                 suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


class FixedTests(SynchronousTestCase):
    """Sequences that the machine must see through, whatever is drawn."""

    def begin(self, health: Health) -> DirectorMachine:
        machine = DirectorMachine()
        hosts = {name: Host(address=address(HostRef("web", "blue", name))) for name in "ab"}
        machine.begin(spec=Service(groups={"blue": Group(hosts=hosts, health=health)}, limits=Limits(queue=9)), crowded=True)
        self.addCleanup(machine.teardown)
        return machine

    def test_report_that_makes_room(self) -> None:
        """Somebody waits for the places that two agents take away and give back."""
        machine = self.begin(Health())
        for name in "ab":
            machine.say(HostRef("web", "blue", name), LoadReport(max_connections=1), relayed=False)
        machine.crowd()
        self.assertTrue(machine.node.inventory.services["web"].admission.queued)
        machine.say(HostRef("web", "blue", "a"), LoadReport(), relayed=False)
        self.assertFalse(machine.node.inventory.services["web"].admission.queued)

    def test_retry_after_an_outage(self) -> None:
        """Of a host that only clients can check."""
        machine = self.begin(Health(probe=Probe(kind="none")))
        entry = machine.node.inventory.hosts[HostRef("web", "blue", "a")]
        machine.die(entry, at_once=False)
        self.assertIs(entry.health.state, HostState.DOWN)
        machine.return_after_retry(entry)
        self.assertTrue(entry.host.available)
