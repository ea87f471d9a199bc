"""What several directors see of one host, merged: pure, and the same on every director.

Words: a director's *evidence* is what it has seen of the host itself (`director.core.transitions.Evidence`); its *record* is
what it has written for the others (`cluster.model.Observed`), and no record of a live director means "up".

Rules:

1. My own evidence rules my own traffic: a heartbeat, a passed probe or a connect while it is fresh, and my verdict
   "down" by failed checks for as long as it stands. Silence is no evidence.
2. Without evidence of mine, the other directors' rules. The host is down when at least one of them is heard (rule 3) and
   all who are heard see it down; one that sees it otherwise keeps it in. So a director that is cut off from a host evicts
   it nowhere else, and a host whose agent reaches only some of the directors stays in on all.
3. Two kinds of directors are not heard. One is *blind*: its record says that it has no evidence of the host either. The
   other is *cut off*: it sees more than the panic fraction of all hosts down, which says more about where it is than
   about them. Of a cut-off director only "down" is ignored.
4. When nobody is heard, a host stays as it is here: down if silence took it out, because silence is then all that is
   known; otherwise up, unverified, and probed.

A merged verdict is never written for others: only evidence is, so that no director hears its own echo.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from cluster.model import HostRef, HostState, Observed
from director.core.transitions import Evidence

#: One host down is no sign of a director's own trouble, whatever its share (as in `director.core.isolation`).
LEAST_HOSTS = 2


class Verdict(NamedTuple):
    """Whether a host is out of rotation, and on whose word."""

    down: bool
    mine: bool = True  #: this director's own machine decides, for nobody with a say knows better
    why: str = ""  #: empty while the verdict is what this director's machine says


def merge(
    evidence: Evidence, others: Mapping[str, Observed | None], cut_off: Collection[str] = frozenset()
) -> Verdict:
    """The verdict of the director that has *evidence*.

    :param others: every other live director's record, None where it has written none.
    :param cut_off: names of those whose "down" is not believed.
    """
    if evidence in (Evidence.REACHED, Evidence.FAILED):
        return Verdict(evidence is Evidence.FAILED)
    say = {
        director: record for director, record in others.items()
        if record is None or not (record.blind or (_down(record) and director in cut_off))
    }
    if not say:
        return Verdict(evidence is Evidence.SILENT)
    against = {director: record for director, record in say.items() if record is not None and _down(record)}
    if len(against) < len(say):
        if evidence is Evidence.NONE:
            return Verdict(down=False, mine=False)
        return Verdict(down=False, mine=False, why=f"silent here, but {_listed(say.keys() - against)} sees it up")
    reason = against[min(against)].why
    return Verdict(down=True, mine=False, why=f"down as {_listed(against)} sees it: {reason}")


def is_cut_off(down: int, hosts: int, panic_fraction: float) -> bool:
    """Whether a director that sees *down* of all *hosts* down is in trouble itself, for all that others can tell."""
    return down >= LEAST_HOSTS and down > panic_fraction * hosts


class Disagreement(NamedTuple):
    """A host that some directors see down and others don't."""

    ref: HostRef
    views: dict[str, str]  #: a state, or ``unseen``, by director in order; one that is not named sees it up


def disagreements(
    records: Mapping[HostRef, Mapping[str, Observed]], directors: Iterable[str]
) -> tuple[Disagreement, ...]:
    """Where the live *directors* see a host differently, by host. Blind ones have no view.

    :param records: all there are, by host and director; this director's own too.
    """
    live = sorted(set(directors))
    found = []
    for ref, by in sorted(records.items()):
        views = {name: by[name] for name in live if name in by}
        down = sum(map(_down, views.values()))
        blind = sum(record.blind for record in views.values())
        if 0 < down < len(live) - blind:
            words = {name: "unseen" if record.blind else record.state.value for name, record in views.items()}
            found.append(Disagreement(ref, words))
    return tuple(found)


def _down(record: Observed) -> bool:
    return record.state is HostState.DOWN


def _listed(names: Iterable[str]) -> str:
    """Director names for a sentence."""
    ordered = sorted(names)
    return ", ".join(ordered) if len(ordered) < 4 else f"{ordered[0]}, {ordered[1]} and {len(ordered) - 2} more"
