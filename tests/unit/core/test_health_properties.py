"""Any sequence of inputs to a health machine, against what must hold whatever happens."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.model import Health, HostState, Probe
from director.core.health import HISTORY, HostHealth
from director.core.transitions import TABLE, Transition

EDGES = {(before, after) for before, rows in TABLE.items() for _, after in rows}
PROBES = st.sampled_from([Probe(), Probe(kind="http"), Probe(kind="none"), Probe(address="127.0.0.1:9")])
POLICIES = st.builds(
    Health,
    probe=PROBES,
    rise=st.integers(1, 3),
    fall=st.integers(1, 3),
    jitter=st.sampled_from([0.0, 0.1, 1.0]),
)
PAUSES = st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 30.0])


class HealthMachine(RuleBasedStateMachine):
    @initialize(policy=POLICIES, grace_s=st.sampled_from([0.0, 5.0]), uniform=st.floats(0, 1))
    def begin(self, policy: Health, grace_s: float, uniform: float) -> None:
        self.policy = policy
        self.now = 100.0
        self.grace_until = self.now + grace_s
        self.isolated = False
        self.passes = 0  #: probes in a row, since it is down
        self.held_until = -math.inf
        self.failed_since_passed = False  # no check passed since one failed
        self.host = HostHealth(policy, now=self.now, grace_until=self.grace_until, random=lambda: uniform)
        self.state = self.host.state

    def follow(self, transition: Transition | None, input_name: str) -> None:
        """Every transition is the table's, begins where the last ended, and is allowed at this moment."""
        if transition is not None:
            assert (transition.before, transition.after) in EDGES
            assert transition.before is self.state
            assert transition.at == self.now
            assert transition.why
            self.state = transition.after
            if transition.after is HostState.DOWN:
                assert self.now >= self.grace_until, "nothing goes down during grace"
                if self.policy.probe.kind != "none" or self.isolated:
                    assert self.failed_since_passed, "silence alone took out a host"
            if transition.before is HostState.DOWN and self.policy.probe.kind != "none":
                held_until, self.held_until = self.held_until, -math.inf
                assert self.now >= held_until, "a flapping host came back too early"
                assert input_name in ("probe", "reconfigure") or self.passes >= self.policy.rise, "came back unchecked"
            if transition.after is HostState.DOWN:
                self.passes, self.held_until = 0, self.host.held_until
                assert self.held_until <= self.now + self.policy.flap_hold_s
        assert self.host.state is self.state

    @rule()
    def heartbeat(self) -> None:
        self.follow(self.host.heartbeat(self.now), "heartbeat")

    @rule()
    def agent_lost(self) -> None:
        self.follow(self.host.agent_lost(self.now, "reset"), "agent")

    @rule()
    def agent_left(self) -> None:
        self.follow(self.host.agent_left(self.now), "agent")

    @precondition(lambda self: self.host.next_probe_at is not None)
    @rule()
    def probe_started(self) -> None:
        self.host.probe_started(self.now)
        assert self.host.next_probe_at is None

    @rule(ok=st.booleans())
    def probe_result(self, ok: bool) -> None:
        if self.policy.probe.kind != "none":
            self.failed_since_passed = not ok
            self.passes = self.passes + 1 if ok else 0
        self.follow(self.host.probe_result(ok, "detail", 0.01, self.now), "probe")
        if self.policy.probe.kind != "none":
            due = self.host.next_probe_at
            assert due is not None
            assert self.now <= due <= self.now + 2 * self.policy.down_interval_s

    @rule(ok=st.booleans(), refused=st.booleans())
    def connect(self, ok: bool, refused: bool = False) -> None:
        if not ok:
            self.failed_since_passed = True
        self.follow(self.host.connect_result(ok, "why", self.now, refused=refused and not ok), "connect")

    @rule()
    def retry(self) -> None:
        self.held_until = -math.inf
        self.follow(self.host.retry(self.now), "retry")

    @rule()
    def release(self) -> None:
        self.held_until = -math.inf
        self.follow(self.host.release(self.now), "release")

    @rule(policy=POLICIES)
    def reconfigure(self, policy: Health) -> None:
        self.policy = policy
        self.held_until = min(self.held_until, self.now + policy.flap_hold_s)
        self.follow(self.host.reconfigure(policy, self.now), "reconfigure")

    @rule()
    def extend_grace(self) -> None:
        self.grace_until = max(self.grace_until, self.now + 5.0)
        self.host.extend_grace(self.now + 5.0)

    @rule(isolated=st.booleans())
    def isolation(self, isolated: bool) -> None:
        self.isolated = isolated
        self.follow(self.host.tick(self.now, isolated), "tick")

    @rule(pause=PAUSES)
    def pass_time(self, pause: float) -> None:
        """Time goes to the end of the pause, with a tick at every deadline on the way, as a director gives it."""
        end = self.now + pause
        for _ in range(20):
            deadline = self.host.deadline()
            assert deadline >= self.now  # at once: a jitter of 1 can leave nothing of a back-off
            if deadline > end:
                break
            before = (self.now + deadline) / 2
            if self.now < before < deadline:
                self.now = before
                assert self.host.tick(before, self.isolated) is None, "a change before its deadline"
            self.now = deadline
            self.follow(self.host.tick(deadline, self.isolated), "tick")
        else:
            raise AssertionError("deadlines do not advance")
        self.now = end

    @invariant()
    def bounded(self) -> None:
        assert len(self.host.history) <= HISTORY

    @invariant()
    def up_means_unsuspected(self) -> None:
        if self.host.state is HostState.UP:
            assert self.host.connect_failures == 0
            if not self.isolated:
                assert self.now < self.host.overdue_at or self.host.deadline() < math.inf

    def teardown(self) -> None:
        """Whatever went before, a host that passes every check and is heard again comes back."""
        if not hasattr(self, "host"):
            return
        self.isolated = False
        self.follow(self.host.tick(self.now, False), "tick")
        for _ in range(8):
            self.now += 1.0
            self.heartbeat()
            self.probe_result(True)
            self.connect(True)
        assert self.host.state is HostState.UP


TestHealthMachine = HealthMachine.TestCase
TestHealthMachine.settings = settings(max_examples=150, stateful_step_count=40)
