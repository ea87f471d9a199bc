"""Hosts that treat clients worse than their group does: which of them are *ejected*, out of rotation for a while. Pure.

`director.core.health` judges each host by itself; here hosts of one group are compared, so that what befalls all of them is
nobody's fault. A *failure* is a connect that failed, or a client that the host took and got rid of at once
(`ENDED_BY_HOST`, within the policy's ``early_reset_s``). Rules:

1. Failures in a row eject a host: ``consecutive`` at least, and so many that they are no chance where the others' share of
   failures is p. n are in a row as long as of the t clients picked meanwhile at most as many did not fail; a row ends with
   the failure that finds more. Chance is at most C(t, n) p^n, which bounds a binomial tail, and has to be below `CHANCE`.
2. At the end of each window a host is ejected whose share of failures exceeds the others' by ``failure_share``, and by
   `SIGMAS` standard deviations of a share p among so few clients.
3. So is one whose connects took longer than ``latency_s`` and ``latency_factor`` times the median of the others, on average.
4. Of a group at most ``max_ejected`` of its hosts are ejected at a time, but one may always be; and never the last one
   that is in rotation.
5. It is out for ``ejection_s``, twice that the second time and so on, ``max_ejection_s`` at most. Each ``ejection_s`` in
   rotation takes one of those times back. Whatever happens, it returns.
6. Who has returned goes again at the first failure, unless it served two clients before.

Nothing is known of the others, and nobody is ejected, until at least ``consecutive`` of their clients have been picked and
had the time to fail. What this director lacks itself is no failure and never gets here. Envoy's outlier detection has
rules 2, 4 and 5, and its rule 1 compares with nobody (envoyproxy.io, "Outlier detection").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from cluster.model import Outliers, Reason
from director.core.host import Host

#: Rule 1: once in so many chances, failures in a row may be one. A busy host has some millions of chances a day.
CHANCE = 1e-8
#: Rule 2: beyond this, chance is left once in some millions of windows.
SIGMAS = 5.0
#: Rule 6 goes for groups where failures are rare; where they are not, the first one after a return says little.
RARE = 0.1
#: Where few clients come, a window lasts longer, up to so many times ``window_s``: by default five minutes.
LONGEST = 30

#: How to go through many hosts, see `director.core.weighing.Walk`.
Walk = Callable[[Iterable[Any]], Iterable[Any]]

#: The ends that a client which the host took and got rid of at once may have. No other is the host's doing.
ENDED_BY_HOST = (Reason.HOST_RESET, Reason.HOST_CLOSED)


class Conduct:
    """How one host treats clients. Counts are of the present window unless they say otherwise."""

    __slots__ = ("_counted_until", "connect_s", "connects", "ejections", "failures", "host", "last_failures", "last_picks",
                 "picks_from", "returned", "row", "row_picks", "until", "why")

    def __init__(self, host: Host, now: float) -> None:
        self.host = host
        self.connects = 0  #: of clients that succeeded
        self.connect_s = 0.0  #: how long these took together
        self.failures = 0
        self.picks_from = host.picks  #: at the window's begin
        self.last_failures = self.last_picks = 0  #: of the window before
        self.row = 0  #: failures in a row
        self.row_picks = host.picks  #: at the first of them
        self.returned = False  #: from an ejection, and has hardly served anybody since
        self.ejections = 0  #: that count, see rule 5
        self.until = -math.inf  #: when it comes back
        self.why = ""  #: it was ejected
        self._counted_until = now

    @property
    def ejected(self) -> bool:
        return self.until > -math.inf

    @property
    def active(self) -> bool:
        """Whether there is anything to count, or to forget, at the end of a window."""
        return self.host.picks != self.picks_from or bool(
            self.last_picks or self.failures or self.last_failures or self.connects)

    def times(self, now: float, policy: Outliers) -> int:
        """`ejections`, less one for each ``ejection_s`` in rotation."""
        if not self.ejected:
            whole = math.floor((now - self._counted_until) / policy.ejection_s)
            if whole >= self.ejections:
                self.ejections, self._counted_until = 0, now
            elif whole > 0:
                self.ejections -= whole
                self._counted_until += whole * policy.ejection_s
        return self.ejections

    def counted(self, now: float, policy: Outliers) -> int:
        """`times`, without a change."""
        whole = 0 if self.ejected else math.floor((now - self._counted_until) / policy.ejection_s)
        return max(0, self.ejections - max(0, whole))

    def out(self, why: str, now: float, policy: Outliers) -> float:
        """Eject it, for the returned seconds."""
        self.ejections = self.times(now, policy) + 1
        for_s = min(policy.ejection_s * self.ejections, max(policy.ejection_s, policy.max_ejection_s))
        self.until, self.why = now + for_s, why
        self.row = 0
        return for_s

    def back(self, now: float) -> None:
        """It is in rotation again."""
        self.until, self.why = -math.inf, ""
        self._counted_until = now
        self.returned, self.row, self.row_picks = True, 0, self.host.picks


class Comparison:
    """One group's hosts, compared. Times are monotonic seconds. What counts is the pool's ``turn`` and ``picks``."""

    def __init__(self, now: float) -> None:
        self.ejected: set[Conduct] = set()
        self._conducts: dict[Host, Conduct] = {}
        self._began = self._looked_at = now  # the window
        self._turn = 0  # of the group, at its begin
        self._failures = 0
        self._last_picks = self._last_failures = 0  # of the window before

    def add(self, host: Host, now: float) -> Conduct:
        conduct = self._conducts[host] = Conduct(host, now)
        return conduct

    def discard(self, host: Host) -> None:
        self.ejected.discard(self._conducts.pop(host))

    # --- rule 1

    def failed(self, conduct: Conduct, open_elsewhere: int, now: float, policy: Outliers, early_s: float) -> str:
        """A failure of a host. Why it is an outlier by that; empty when it is none.

        :param open_elsewhere: connections that the group's other hosts have now.
        :param early_s: for so long a client may still be one that is got rid of at once.
        """
        host = conduct.host
        conduct.failures += 1
        self._failures += 1
        conduct.row += 1
        if conduct.row == 1 and not conduct.returned:
            conduct.row_picks = host.picks - 1
        if host.picks - conduct.row_picks - conduct.row > conduct.row:  # it has served in between
            conduct.row, conduct.row_picks, conduct.returned = 1, host.picks - 1, False
        share = self._share_elsewhere(conduct, open_elsewhere, now, policy, early_s)
        if share is None or not policy.consecutive:
            return ""
        picked = max(conduct.row, host.picks - conduct.row_picks)
        if (conduct.row < policy.consecutive or not _no_chance(picked, conduct.row, share)) \
                and not (conduct.returned and share <= RARE):
            return ""
        return f"{conduct.row} of its last {picked} clients failed, of others {share:.0%} at most"

    def _share_elsewhere(
        self, conduct: Conduct, open_elsewhere: int, now: float, policy: Outliers, early_s: float,
    ) -> float | None:
        """The others' share of failures, at most; None while too little is known. By Laplace: below 1, above 0."""
        host = conduct.host
        picked = (host.turn - self._turn) - (host.picks - conduct.picks_from)
        ended = max(0, picked - open_elsewhere)  # those that are open have time to fail still, but for the old ones
        old = max(0, open_elsewhere - max(0, picked)) if now - self._began >= early_s else 0
        known = self._last_picks - conduct.last_picks + ended + old
        failed = max(0, self._last_failures - conduct.last_failures + self._failures - conduct.failures)
        if known < policy.consecutive:
            return None
        return (min(failed, known) + 1) / (known + 2)

    # --- rules 2 and 3

    def close_window(self, now: float, policy: Outliers, walk: Walk = iter) -> list[tuple[Conduct, str]]:
        """If the window is over: the outliers in it, the worst first, each with why. Looks at every host.

        It is over after ``window_s`` and ``samples`` clients for each host, or after `LONGEST` such times.
        """
        if now - self._looked_at < policy.window_s:
            return []
        self._looked_at = now
        hosts = [each for each in walk(self._conducts.values()) if each.active]
        picked = sum(each.host.picks - each.picks_from for each in hosts)
        if picked < policy.samples * len(self._conducts) and now - self._began < LONGEST * policy.window_s:
            return []
        found = [*self._failing(hosts, picked, policy), *self._slow(hosts, policy)]
        self._last_picks, self._last_failures = picked, self._failures
        self._began, self._failures = now, 0
        for each in hosts:
            self._turn = max(self._turn, each.host.turn)
            each.last_picks, each.last_failures = each.host.picks - each.picks_from, each.failures
            each.picks_from, each.failures, each.connects, each.connect_s = each.host.picks, 0, 0, 0.0
        found.sort(key=lambda each: -each[0])
        return [(conduct, why) for _, conduct, why in found]

    def _failing(self, hosts: Iterable[Conduct], picked: int, policy: Outliers) -> Iterable[tuple[float, Conduct, str]]:
        for each in hosts:
            mine = each.host.picks - each.picks_from
            if each.failures < max(1, policy.consecutive) or mine < policy.samples or picked - mine < policy.samples:
                continue
            share = min(1.0, each.failures / mine)
            elsewhere = min(1.0, (self._failures - each.failures + 1) / (picked - mine + 2))
            sigma = math.sqrt(elsewhere * (1.0 - elsewhere) / mine)
            if share - elsewhere >= max(policy.failure_share, SIGMAS * sigma):
                yield share, each, f"{share:.0%} of its {mine} clients failed, of others {elsewhere:.0%}"

    def _slow(self, hosts: Iterable[Conduct], policy: Outliers) -> Iterable[tuple[float, Conduct, str]]:
        if not policy.latency_factor:
            return
        means = sorted((each.connect_s / each.connects, index, each) for index, each in enumerate(hosts)
                       if each.connects >= policy.samples)
        for position, (mean_s, _, each) in enumerate(means):
            if mean_s <= policy.latency_s or len(means) < 2:
                continue
            others = [other[0] for other in (*means[:position], *means[position + 1:])]
            middle_s = (others[(len(others) - 1) // 2] + others[len(others) // 2]) / 2
            if mean_s > policy.latency_factor * middle_s:
                yield 0.0, each, f"its connects took {mean_s * 1000:.0f} ms, those of others {middle_s * 1000:.0f} ms"

    # --- rules 4 and 5

    def eject(self, conduct: Conduct, why: str, *, in_rotation: int, now: float, policy: Outliers) -> float | None:
        """Eject an outlier that is in rotation, for the returned seconds; None where rule 4 forbids it.

        :param in_rotation: hosts, this one included.
        """
        if conduct.ejected or in_rotation < 2 or len(self.ejected) >= self._most(policy):
            return None
        for_s = conduct.out(why, now, policy)
        self.ejected.add(conduct)
        return for_s

    def due(self, now: float, policy: Outliers) -> list[Conduct]:
        """Those that are to `release` now: whose time is over, who are too many in a group that shrank, or all when ejection
        is switched off."""
        if not self.ejected:
            return []
        order = sorted(self.ejected, key=lambda each: each.until)
        if not policy.enabled:
            return order
        beyond = max(0, len(order) - self._most(policy))
        return [each for index, each in enumerate(order) if each.until <= now or index < beyond]

    def release(self, conduct: Conduct, now: float) -> None:
        """It is back."""
        self.ejected.discard(conduct)
        conduct.back(now)

    def _most(self, policy: Outliers) -> int:
        return max(1, math.floor(policy.max_ejected * len(self._conducts) + 1e-9))


def _no_chance(picked: int, failed: int, share: float) -> bool:
    """Whether *failed* of *picked* are too many for an expected *share*. In logarithms, for a row may be long."""
    choices = math.lgamma(picked + 1) - math.lgamma(failed + 1) - math.lgamma(picked - failed + 1)
    return choices + failed * math.log(share) < math.log(CHANCE)
