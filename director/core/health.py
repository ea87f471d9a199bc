"""Health of one host: what is observed in, transitions out. No clock, no sockets, no randomness of its own.

States (`cluster.model.HostState`): an *up* host is in rotation; a *suspect* one is too, and is probed faster; a
*down* one is not. A new host is up but unverified, and probed at once.

Rules:

1. Silence is no reason to take a host out while a probe or real traffic still reaches it; silence and a failed check
   together are: at once where the agent's connection broke and a client's connect is refused, which no broken network does.
   A host without probes is taken out by silence alone, unless a client's connect succeeded since the silence began.
2. Silence means that an agent which was heard is not heard any more. It counts from the last heartbeat; a broken
   connection makes a host suspect at once. After a goodbye it is expected. While the director is isolated it means
   nothing, and it counts anew from the isolation's end.
3. Checks are probes and clients' connects. A host that takes a connect and resets it at once has failed it; for a minute
   only a client that got further answers that. Otherwise a passed probe answers every failed check before it; a client's
   connect answers failed connects, and failed probes too where the probe is nothing but such a connect. `fall` failures
   in a row, of probes or of connects, take a host out, heartbeats or not.
4. A down host comes back by `rise` passed probes in a row (after an operator's retry the next one is enough); without
   probes by `rise` heartbeats in a row. Where there is neither probe nor agent, clients are the only check there
   is: after the back-off the host is *on trial*, suspect until `rise` connects in a row succeeded, down again by the
   first failure.
5. During grace, one heartbeat timeout after a start or a new leader, nothing is taken out; what counts is judged at its end.
6. A host that silence alone took out, and that a client reached (another director knew better), is in again by rule 1.
7. A host that goes down again and again comes back later and later: from the second time on it is kept out for twice what
   is left of the last penalty, which halves with every `FLAP_HALF_LIFE_S` in rotation, up to `flap_hold_s`. What its checks
   say meanwhile counts, and is judged at the end. An operator's retry ends it, and so does `release`, for the last host
   of a group. Where clients are the only check, rule 4's back-off does for it.

`director.core.transitions.TABLE` holds the transitions by precedence. Every input is legal in every state.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from cluster.model import Health, HostState
from director.core.flapping import Flapping
from director.core.transitions import TABLE, Cause, Check, Evidence, Transition

#: Transitions remembered for the operator: a host that flaps every few seconds still shows its last minutes.
HISTORY = 32
#: For so long a passed probe does not answer for a host that resets clients at once: it has not asked what they ask.
RESETS_COUNT_S = 60.0


class HostHealth:
    """One host's state machine. Inputs return the `Transition` they caused, or None.

    After each input the caller looks at `next_probe_at` (when to start a probe, telling `probe_started`) and at
    `deadline` (when to call `tick`). A name that does not resolve is a failed probe whose detail says so.

    :param random: uniform in [0, 1), for the jitter of the intervals.
    :param grace_until: nothing is taken out before.
    :param verified: the host's state was known before, so that its first probe can wait an interval.
    """

    __slots__ = (
        "_back_off", "_beats", "_by_silence", "_connect_detail", "_connect_failures", "_connected_at", "_expected",
        "_grace_until", "_isolated", "_last_heard", "_lost", "_next_probe", "_now", "_policy", "_probe_failures",
        "_probe_passes", "_probing", "_random", "_refused_at", "_reset_until", "_silent_from", "_trial", "_trial_at",
        "flapping", "fresh_until", "held_until", "history", "last_check", "since", "state", "verified", "why",
    )

    def __init__(self, policy: Health, *, now: float, grace_until: float, random: Callable[[], float],
                 verified: bool = False) -> None:
        self.state = HostState.UP
        self.since = now  #: of `state`
        self.why = "known before" if verified else "new, not checked yet"  #: of `state`
        self.fresh_until = -math.inf  #: until then, what was heard or reached speaks for the host
        self.verified = verified  #: a heartbeat, a probe or a client's connect has confirmed the host
        self.history: deque[Transition] = deque(maxlen=HISTORY)  #: oldest first
        self.last_check: Check | None = None
        self._policy = policy
        self._random = random
        self._now = now
        self._grace_until = grace_until
        self._isolated = self._probing = False
        self._expected = False  #: an agent was heard and has not said goodbye
        self._lost = ""  #: why the agent's connection broke; empty while it has not
        self._last_heard: float | None = None
        self._silent_from = now  #: silence counts from here
        self._beats = 0  #: heartbeats in a row
        self._by_silence = False  #: nothing else took it out
        self.held_until = -math.inf  #: a flapping host does not come back before
        self.flapping = Flapping(now)
        self._probe_failures = self._connect_failures = 0  #: in a row
        self._probe_passes = 0  #: in a row, since the host is down
        self._back_off = policy.interval_s  #: of a down host
        self._next_probe = now + self._jittered(policy.interval_s) if verified else now
        self._connect_detail = ""  #: of the last failure
        self._refused_at = -math.inf  #: when that was, if it was a refusal: nobody listens
        self._reset_until = -math.inf  #: until then, only a client that was served answers for failed connects
        self._connected_at = -math.inf  #: when a client's connect last succeeded
        self._trial = 0  #: connects that must still succeed
        self._trial_at = math.inf  #: when a down host that nothing else can check is tried

    # --- what to do next ----------------------------------------------------------------------------------

    @property
    def next_probe_at(self) -> float | None:
        """When to start the next probe; None while one is under way, or when none are configured."""
        return None if self._probing or not self._has_probe else self._next_probe

    def deadline(self) -> float:
        """The earliest time at which `tick` may change something; infinite if none."""
        if self.state is HostState.DOWN:
            return self.held_until if self._now < self.held_until else self._trial_at
        times = []
        if self._expected and not self._isolated:
            times += [self._silent_from + self._policy.suspect_after_s, self._silent_from + self._policy.timeout_s]
        if self._now < self._grace_until and any(after is HostState.DOWN and self._why(cause)
                                                 for cause, after in TABLE[self.state]):
            times.append(self._grace_until)
        return min((time for time in times if time > self._now), default=math.inf)

    # --- what is known ------------------------------------------------------------------------------------

    @property
    def connect_failures(self) -> int:
        """Clients' connects that failed in a row."""
        return self._connect_failures

    @property
    def in_doubt(self) -> bool:
        """Whether a client's successful connect would be news. Asked for each connection, so it is one look."""
        return self.state is not HostState.UP or not self.verified or self._policy.probe.kind == "none"

    def resets(self, now: float) -> bool:
        """Whether it lately reset clients at once, and has served none since: a connect alone says nothing then."""
        return now < self._reset_until

    @property
    def overdue_at(self) -> float:
        """When the agent will be silent, isolated or not, if it is not heard before; infinite if none is expected."""
        if not self._expected or self._last_heard is None:
            return math.inf
        return self._last_heard + self._policy.suspect_after_s

    def evidence(self, now: float) -> Evidence:
        """What is known here about the host, for `director.core.merge`.

        A heartbeat or a connect speaks for a host for `timeout_s`, a passed probe until two more could have.
        """
        if self.state is HostState.DOWN:
            return Evidence.SILENT if self._by_silence and not self._failing else Evidence.FAILED
        return Evidence.REACHED if now < self.fresh_until or self._trial else Evidence.NONE

    def heartbeat_age(self, now: float) -> float | None:
        """Seconds since the agent was heard; None when none is expected."""
        return now - self._last_heard if self._expected and self._last_heard is not None else None

    # --- inputs -------------------------------------------------------------------------------------------

    def heartbeat(self, now: float) -> Transition | None:
        """The agent reported."""
        in_a_row = now < self._silent_from + self._policy.suspect_after_s and not self._lost
        self._advance(now)
        self._beats = self._beats + 1 if in_a_row else 1
        self._last_heard = self._silent_from = now
        self._expected = self.verified = True
        self.fresh_until = max(self.fresh_until, now + self._policy.timeout_s)
        self._lost = ""
        self._trial = 0
        self._trial_at = math.inf
        return None if self.state is HostState.UP else self._settle("its agent is heard")

    def agent_lost(self, now: float, why: str) -> Transition | None:
        """The agent's connection broke without a goodbye."""
        self._advance(now)
        if not self._expected:
            return None
        self._lost = why or "connection broke"
        self._beats = 0
        if self.state is not HostState.DOWN:
            self._next_probe = now
        return self._settle()

    def agent_left(self, now: float) -> Transition | None:
        """The agent said goodbye; its silence is expected.

        Call it again, instead of `agent_lost`, when a connection ends that carried more reports after the goodbye.
        """
        self._advance(now)
        self._expected, self._lost, self._beats = False, "", 0
        if self.state is HostState.DOWN:
            self._plan_trial()
        return self._settle("its agent said goodbye")

    def probe_started(self, now: float) -> None:
        """A probe is under way."""
        self._advance(now)
        self._probing = True

    def probe_result(self, ok: bool, detail: str, duration_s: float, now: float) -> Transition | None:
        """A probe passed or failed. One that was under way when probes were switched off says nothing."""
        self._advance(now)
        self._probing = False
        if not self._has_probe:
            return None
        self.last_check = Check(now, ok, detail, duration_s)
        if ok:
            self.verified = True
            fresh_s = 2 * self._interval_s() * (1 + self._policy.jitter) + self._policy.probe.timeout_s
            self.fresh_until = max(self.fresh_until, now + fresh_s)
            self._probe_failures = self._trial = 0
            if not self.resets(now):
                self._connect_failures = 0
            self._probe_passes += 1
            self._back_off = self._policy.interval_s
        else:
            self._probe_failures += 1
            self._probe_passes = 0
            if self.state is HostState.DOWN:
                self._double_back_off()
        transition = self._settle("a probe passed")
        self._next_probe = now + self._jittered(self._interval_s())
        return transition

    def moved(self, now: float) -> None:
        """The host is at another address than it was: a probe is due, and those that follow come at their first interval."""
        self._advance(now)
        self._next_probe = now
        self._back_off = self._policy.interval_s

    def probe_void(self, now: float) -> None:
        """A probe could not be made, for a reason of this director's own: nothing was learnt. It is due again soon."""
        self._advance(now)
        self._probing = False
        self._next_probe = now + self._jittered(self._policy.suspect_interval_s)

    def connect_result(self, ok: bool, detail: str, now: float, *, refused: bool = False) -> Transition | None:
        """A client's connect succeeded or failed. *refused*: by the host, where nobody listens."""
        self._advance(now)
        if ok:
            self.verified = True
            self._connected_at = now
            self.fresh_until = max(self.fresh_until, now + self._policy.timeout_s)
            if self.state is HostState.UP:
                return None
            self._connect_failures = 0
            self._trial = max(self._trial - 1, 0)
            probe = self._policy.probe
            if probe.kind == "tcp" and probe.address is None and probe.port is None:
                self._probe_failures = 0
        else:
            self._connect_failures += 1
            self._connect_detail, self._refused_at = detail, now if refused else -math.inf
        return self._settle("a client's connect succeeded")

    def reset_at_once(self, now: float) -> Transition | None:
        """The host took a client's connect and reset it before it could have served it."""
        self._reset_until = now + RESETS_COUNT_S
        return self.connect_result(False, "it resets clients at once", now)

    def served(self, now: float) -> Transition | None:
        """A client was served: the host did not reset it at once."""
        self._reset_until = -math.inf
        return self.connect_result(True, "connected", now)

    def retry(self, now: float) -> Transition | None:
        """An operator asks: probe now, and let one passed probe be enough.

        Without probes, a down host is on trial at once.
        """
        self._advance(now)
        self._next_probe = now
        self.flapping = Flapping(now)
        self.held_until = -math.inf
        if self.state is not HostState.DOWN:
            return None
        self._back_off = self._policy.interval_s
        if self._has_probe:
            self._probe_passes = max(self._probe_passes, self._policy.rise - 1)
            return None
        self._silent_from = self._trial_at = now
        return self._settle()

    def release(self, now: float) -> Transition | None:
        """Its group has no other host: a flapping one may come back as soon as its checks say so."""
        self._advance(now)
        self.held_until = -math.inf
        return self._settle()

    def reconfigure(self, policy: Health, now: float) -> Transition | None:
        """Go on under another policy. A changed probe is due at once, and the old one's failures are forgotten."""
        self._advance(now)
        changed = policy.probe != self._policy.probe
        self._policy = policy
        self.held_until = min(self.held_until, now + policy.flap_hold_s)
        self._back_off = min(self._back_off, max(policy.down_interval_s, policy.interval_s))
        if changed:
            self._probing = False
            self._probe_failures = self._probe_passes = 0
            self._next_probe = now
            if self.state is HostState.DOWN:
                self._plan_trial()
        else:
            self._next_probe = min(self._next_probe, now + self._jittered(self._interval_s()))
        return self._settle("its health policy changed")

    def extend_grace(self, until: float) -> None:
        """Nothing is taken out before *until*."""
        self._grace_until = max(self._grace_until, until)

    def tick(self, now: float, isolated: bool) -> Transition | None:
        """Time has passed, or the director's isolation began or ended."""
        self._advance(now)
        if self._isolated and not isolated:
            self._silent_from = now
        self._isolated = isolated
        return self._settle("its silence is one of many at once")

    def recalled(self, history: Iterable[Transition], now: float) -> None:
        """Another process knew all this (`director.core.carrying`). Its agent has its usual time to be heard here."""
        self.history = deque((*history, *self.history), maxlen=HISTORY)
        self._now, self._silent_from = now, max(now, self._silent_from)

    # --- deciding -----------------------------------------------------------------------------------------

    def _settle(self, news: str = "") -> Transition | None:
        """Follow the table. *news*: what may have cleared a suspicion."""
        if self.state is HostState.UP and not (self._failing or self._expected):
            return None  # no check failed and there is no agent to be silent: what a thousand probes a second find
        for cause, after in TABLE[self.state]:
            if after is HostState.DOWN and self._now < self._grace_until:
                continue
            if self._now < self.held_until and self.state is HostState.DOWN and cause is not Cause.REACHED:
                continue
            if why := self._why(cause, news):
                self._by_silence = cause is Cause.SILENT_UNREACHED
                return self._enter(after, why)
        return None

    def _enter(self, after: HostState, why: str) -> Transition:
        now = self._now
        if after is HostState.DOWN and not self._trial:
            hold_s = self.flapping.went_down(now, self._policy)
            if hold_s and (self._has_probe or self._expected):
                self.held_until = now + hold_s
                why = f"{why}; it flaps, and is kept out for {hold_s:.0f} s at least"
        elif self.state is HostState.DOWN:
            self.flapping.came_back(now)
        transition = Transition(now, self.state, after, why)
        if after is HostState.DOWN:
            if self._trial:
                self._double_back_off()
            else:
                self._back_off = self._policy.interval_s
            self._trial = self._probe_passes = self._beats = 0
            self._plan_trial()
        elif self.state is HostState.DOWN:
            self._connect_failures = 0
            self._trial = self._policy.rise if self._trial_at <= now else 0
            self._trial_at = math.inf
        self.state, self.since, self.why = after, now, why
        self.history.append(transition)
        self._next_probe = min(self._next_probe, now + self._jittered(self._interval_s()))
        return transition

    def _why(self, cause: Cause, news: str = "") -> str:
        """What makes *cause* true, for the operator; empty while it is not."""
        policy = self._policy
        match cause:
            case Cause.PROBES_FAILED if self._probe_failures >= policy.fall:
                return f"{self._probe_failures} probes in a row failed: {self._failure()}"
            case Cause.CONNECTS_FAILED if self._connect_failures >= policy.fall:
                return f"{self._connect_failures} connects in a row failed: {self._connect_detail}"
            case Cause.GONE if (self._lost and self._silent(0.0) and self._connect_failures
                                and self._now < self._refused_at + policy.timeout_s):
                return f"{self._silence()}, and a client's connect failed: {self._connect_detail}"
            case Cause.SILENT_AND_FAILING if self._silent(policy.timeout_s) and self._last_check_failed():
                return f"{self._silence()}, and the last check failed: {self._failure()}"
            case Cause.SILENT_UNREACHED if (not self._has_probe and self._silent(policy.timeout_s)
                                            and self._connected_at < self._silent_from):
                return self._silence()
            case Cause.TRIAL_FAILED if self._trial and self._connect_failures:
                return f"a connect failed on trial: {self._connect_detail}"
            case Cause.CHECK_FAILED if self._failing:
                return f"a check failed: {self._failure()}"
            case Cause.SILENT if self._suspiciously_silent:
                return self._silence()
            case Cause.CLEARED if not (self._trial or self._failing or self._suspiciously_silent):
                return news or "nothing speaks against it"
            case Cause.BACK_BUT_SILENT if self._probed_back and self._suspiciously_silent:
                return f"passed its probes, but {self._silence()}"
            case Cause.PROBED_BACK if self._probed_back:
                return "passed its probes"
            case Cause.HEARD_BACK if (not self._has_probe and self._beats >= policy.rise
                                      and not self._suspiciously_silent):
                return f"{self._beats} heartbeats in a row"
            case Cause.ON_TRIAL if self._now >= self._trial_at:
                return "on trial: only clients can check it"
            case Cause.REACHED if self._by_silence and not self._has_probe and self._connected_at >= self.since:
                return f"a client reached it, but {self._silence()}"
        return ""

    @property
    def _has_probe(self) -> bool:
        return self._policy.probe.kind != "none"

    @property
    def _failing(self) -> bool:
        return self._probe_failures > 0 or self._connect_failures > 0

    @property
    def _probed_back(self) -> bool:
        return self._has_probe and self._probe_passes >= self._policy.rise

    def _last_check_failed(self) -> bool:
        if self._connect_failures:
            return True
        return self._probe_failures > 0 and self.last_check is not None and self._connected_at <= self.last_check.at

    def _failure(self) -> str:
        """The last failed check in words; a probe's, where both kinds fail."""
        if self._probe_failures and self.last_check is not None:
            return self.last_check.detail
        return self._connect_detail

    def _silent(self, for_s: float) -> bool:
        return self._expected and not self._isolated and self._now >= self._silent_from + for_s

    @property
    def _suspiciously_silent(self) -> bool:
        return self._silent(0.0 if self._lost else self._policy.suspect_after_s)

    def _silence(self) -> str:
        seconds = f"its agent is silent for {self._now - self._silent_from:.1f} s"
        return f"{seconds} ({self._lost})" if self._lost else seconds

    def _plan_trial(self) -> None:
        alone = not self._has_probe and not self._expected
        self._trial_at = self._now + self._jittered(self._back_off) if alone else math.inf

    def _double_back_off(self) -> None:
        self._back_off = min(2 * self._back_off, self._policy.down_interval_s)

    def _interval_s(self) -> float:
        if self.state is HostState.DOWN:
            return self._back_off
        return self._policy.interval_s if self.state is HostState.UP else self._policy.suspect_interval_s

    def _jittered(self, interval_s: float) -> float:
        return interval_s * (1.0 + self._policy.jitter * (2.0 * self._random() - 1.0))

    def _advance(self, now: float) -> None:
        assert now >= self._now, f"time went back from {self._now} to {now}"
        self._now = now
