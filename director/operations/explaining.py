"""Which host a client would get now, and why: every number behind every host's weight, score and share, and the rule.

A dry run: nothing of what is looked at changes. Sentences say where a number comes from; `factors` of each candidate has
the numbers themselves.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from director.core import probed_weight
from director.core.capacity import STALE_S, Basis
from director.core.entries import GroupEntry, HostEntry, ServiceEntry
from director.core.pictures import scheduler_of, why_not
from director.core.pool import Considered, Preview
from director.core.schedulers import follows_reports
from director.core.snapshot import CandidatePicture, Explanation
from director.core.weights import slow_start
from director.operations.sides import side_of

#: See `director.core.weighing`.
Walk = Callable[[Iterable[Any]], Iterable[Any]]

#: How the score comes about, by a factor that only its scheduler has; the first that fits.
_SCORES = (
    ("x", "score {load:.4g} = (1 + {n:.4g} in flight) / weight {weight:.4g} × slowness {x:.4g} × stall {stall:.4g}"
          " × cap {cap:.4g}"),
    ("latency_s", "score {load:.4g} = latency {latency_s:.4g} s × ({in_flight:g} open + 1) / weight {weight:.4g}"),
    ("load", "score {load:.4g} = ({in_flight:g} open + 1) / weight {weight:.4g}"),
    ("table_share", "has {percent:.4g} % of the table"),
)


def explanation(service: ServiceEntry, client: str, now: float, walk: Walk = iter) -> Explanation:
    """*client*: an IP address. *walk*: goes through many hosts."""
    packed = ipaddress.ip_address(client).packed
    side = side_of(service, packed, now)
    before = (_access_step(service, packed, client), *_limit_steps(service), *side.steps)
    previews = [(group, group.pool.explain(packed, now)) for group in side.groups]
    candidates = tuple(each for group, preview in previews for each in _candidates(group, preview, now, walk))
    if len(previews) != 1:
        return Explanation(
            service=service.name, client=client, group=None, scheduler="", host=None,
            random=any(group.pool.eligible for group in side.groups), sticky=False, candidates=candidates, steps=before,
        )
    [(group, preview)] = previews
    return Explanation(
        service=service.name, client=client, group=group.name, scheduler=scheduler_of(group),
        host=preview.chosen.name if preview.chosen is not None else None, random=preview.random,
        sticky=service.spec.sticky is not None, candidates=candidates,
        steps=(*before, *_group_steps(service, group), _choice(group, preview)),
        rule=preview.rule if group.pool.eligible else "",
    )


class _Known(NamedTuple):
    """What the factors of one host rest on; None: nothing."""

    capacity: Basis | None
    probed: probed_weight.Basis | None


def _candidates(group: GroupEntry, preview: Preview, now: float, walk: Walk) -> Iterator[CandidatePicture]:
    capacities, probed = group.capacity.bases(now), group.probed.bases(now)
    takers = [each.host.in_flight for each in preview.hosts if each.eligible]
    each_has = sum(takers) / max(len(takers), 1)
    for each in walk(preview.hosts):
        entry = group.hosts[each.host.name]
        known = _Known(capacities.get(entry.ref), probed.get(entry.ref))
        factors = {**each.factors, **_weight_factors(group, entry, known, now)}
        yield CandidatePicture(
            group=group.name, host=entry.ref.host, eligible=each.eligible, why_not=why_not(group, entry, now),
            factors=factors, weight=entry.host.weight, share=each.share,
            words=(*_weight_words(group, entry, known, factors, now), *_score_words(factors), *_share_words(each, each_has)),
        )


def _weight_factors(group: GroupEntry, entry: HostEntry, known: _Known, now: float) -> dict[str, float]:
    """What multiplies to the weight, and the reports and the rate behind it, as far as they are known."""
    basis = known.capacity
    found: dict[str, float | None] = {
        "configured_weight": entry.spec.weight,
        "capacity": entry.host.capacity,
        "slow_start": slow_start(now - entry.up_since, group.spec.health.slow_start_s),
        "agent_weight": entry.agent_weight,
        "probed_weight": 1.0 if known.probed is None else known.probed.factor,
    }
    if basis is not None and basis.capacity:
        found |= {"capacity_per_s": basis.capacity, "median_per_s": basis.median, "errors": basis.errors}
    if entry.report is not None:
        found |= {"utilisation": entry.report.utilisation, "report_age_s": now - entry.report_at}
    window = group.seen.window(entry.ref)
    if entry.report is not None and entry.report.rate is not None:
        found["rate"] = entry.report.rate
    elif window is not None:
        found |= {"rate": window.rate, "rate_scale": group.seen.scale(entry.ref), "turnaround_s": window.turnaround_s}
    return {name: value for name, value in found.items() if value is not None}


def _weight_words(
    group: GroupEntry, entry: HostEntry, known: _Known, found: Mapping[str, float], now: float
) -> Iterator[str]:
    yield (f"weight {entry.host.weight:.4g}: configured {found['configured_weight']:.4g} × capacity {found['capacity']:.4g} "
           f"× slow start {found['slow_start']:.4g} × its agent {found['agent_weight']:.4g} "
           f"× probes {found['probed_weight']:.4g}")
    if not follows_reports(group.spec.parameters):
        yield "capacity 1: reports do not count in this group (reports = false)"
    else:
        yield _capacity_words(found["capacity"], known.capacity)
    if "rate" in found:
        yield _rate_words(group, entry, found)
    if entry.report is not None:
        utilisation = "no utilisation" if entry.report.utilisation is None else f"utilisation {entry.report.utilisation:.0%}"
        yield f"last report: {utilisation}, {found['report_age_s']:.1f} s old"
    probed = known.probed
    if probed is not None:
        beside = f"the median is {probed.median:.4g}" if probed.median else "nobody says more than 0, so it does not count"
        yield f"probes: it says {probed.said:.4g}, {beside}; {probed.age_s:.1f} s old"
    ejections = entry.conduct.counted(now, group.spec.health.outliers)
    if ejections:
        yield f"ejected as an outlier; ejections that count still: {ejections}"


def _capacity_words(capacity: float, basis: Basis | None) -> str:
    if basis is None:
        return f"capacity {capacity:.4g}: no report has come"
    penalty = f"; {basis.errors:.1%} of what it does fails, which lowers it" if basis.errors > 0.0005 else ""
    if not basis.capacity:
        return f"capacity {capacity:.4g}: reports tell no rate yet, or no utilisation{penalty}"
    beside = f"the median is {basis.median:.4g}/s" if basis.median else "no host's is known lately"
    told = (f"capacity {capacity:.4g}: {basis.capacity:.4g}/s if it were busy throughout, {beside}; "
            f"learnt up to {basis.sample_age_s:.1f} s ago")
    if not basis.believed:
        told += "; so much is not believed, and taken for the median"
    if basis.sample_age_s > STALE_S:
        told += ", too long ago, so it drifts to 1"
    return told + penalty


def _rate_words(group: GroupEntry, entry: HostEntry, found: Mapping[str, float]) -> str:
    if "rate_scale" not in found:
        return f"rate {found['rate']:.4g}/s by the agent's own word"
    window = group.seen.window(entry.ref)
    what = window.source if window is not None else group.seen.source
    told = f"rate {found['rate']:.4g}/s of {what}"
    if found["rate_scale"] > 1.0:
        told += f": those of this director × {found['rate_scale']:.4g}, for clients that others serve"
    if "turnaround_s" in found:
        told += f"; a turnaround takes {found['turnaround_s']:.3g} s"
    return told + (f"; not turnarounds, for {group.seen.why}" if group.seen.why else "")


def _score_words(factors: Mapping[str, float]) -> Iterator[str]:
    for name, form in _SCORES:
        if name in factors and (name != "latency_s" or "load" in factors) and (name != "x" or "load" in factors):
            yield form.format(**factors, percent=100 * factors.get("table_share", 0.0))
            return


def _share_words(considered: Considered, each_has: float) -> Iterator[str]:
    """*each_has*: open connections per host that takes them."""
    if considered.eligible:
        yield (f"share {100 * considered.share:.3g} % of the group's new connections at the present load, "
               f"{each_has:.3g} open connections a host")


def _group_steps(service: ServiceEntry, group: GroupEntry) -> Iterator[str]:
    if group.pool.failing_open:
        yield "every host is bad and the group fails open: all hosts that no order forbids are tried"
    if group.pool.backups_in_use:
        yield "no other host is available: backups are in use"
    if service.spec.sticky is not None:
        yield "the service is sticky: the client's former host is preferred"
    yield from (f"{name}: {entry.verdict.why}" for name, entry in group.hosts.items() if entry.verdict.why)
    if group.seen.words:
        yield group.seen.words


def _choice(group: GroupEntry, preview: Preview) -> str:
    if not group.pool.eligible:
        return "nobody can take the client now"
    chosen = f": {preview.chosen.name}" if preview.chosen is not None else ""
    return f"{scheduler_of(group)} {preview.rule}{chosen}"


def _access_step(service: ServiceEntry, packed: bytes, client: str) -> str:
    if service.access.allows(packed):
        return f"the access list lets {client} in"
    return f"the access list denies {client}: the connection is closed at once"


def _limit_steps(service: ServiceEntry) -> Iterator[str]:
    limits, admission = service.spec.limits, service.admission
    if not limits.max_connections:
        return
    step = f"{admission.connections} of at most {admission.maximum:g} connections are open"
    if admission.maximum < limits.max_connections:
        step += f" (this director's part of {limits.max_connections})"
    if admission.connections >= admission.maximum:
        step += f"; the client waits behind {admission.queued} others" if limits.queue else "; the client is refused"
    yield step
