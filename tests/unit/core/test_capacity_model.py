"""W beside a model of it that keeps every host's figures by name and follows the description clause by clause."""

from __future__ import annotations

import math
import statistics
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import LoadReport
from director.core.capacity import Capacity
from director.core.seen import Window

BUSY = st.sampled_from([0.0, 0.049, 0.05, 0.099, 0.1, 0.3, 0.89, 0.9, 1.0])
ERRORS = st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.19, 0.2, 0.5, 0.51, 1.0])
COUNTS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 7.0, 100.0])
REPORTS = st.builds(
    LoadReport, utilisation=st.none() | BUSY, rate=st.none() | COUNTS, errors=st.none() | ERRORS, completions=st.none() | COUNTS,
    capacity=st.none() | st.none() | st.sampled_from([10.0, 400.0]),
)
BLIND = st.builds(LoadReport, utilisation=st.none() | BUSY, errors=st.none() | ERRORS)
COUNTING = st.builds(LoadReport, utilisation=BUSY, rate=COUNTS, errors=ERRORS, completions=st.none() | COUNTS)
SEEN = st.builds(
    Window, st.sampled_from(["turnarounds", "turnarounds", "connections"]), st.sampled_from([0, 2, 3, 50]),
    st.sampled_from([1.0, 10.0, 60.0]), st.none() | BUSY, ERRORS, st.none() | st.sampled_from([0.1, 0.12, 0.13, 0.3]),
)
EVENTS = st.lists(
    st.tuples(st.integers(0, 2), REPORTS | BLIND | COUNTING, st.none() | SEEN,
              st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0, 5.0, 60.0, 75.0, 180.5]), st.integers(1, 6)),
    min_size=1, max_size=25,
)


class Model:
    def __init__(self) -> None:
        self.hosts: dict[int, dict[str, Any]] = {}
        self.taken: dict[str, float] = {}  # medians, as they were taken last
        self.taken_at = -math.inf

    def reported(self, key: int, report: LoadReport, now: float, seen: Window | None) -> None:
        host = self.hosts.setdefault(key, {
            "at": now, "busy": None, "errors": 0.0, "gathered": [], "samples": [], "source": "reported", "capacity": 0.0,
            "sampled_at": -math.inf, "usual": None})
        elapsed, host["at"] = now - host["at"], now
        counts = report.rate is not None or report.completions is not None
        seen = None if counts else seen
        # how much it got done, and how much of it failed
        if counts:
            done = report.completions if report.completions is not None else (report.rate or 0.0) * elapsed
            failed = report.errors or 0.0
        else:
            done = float(seen.completions) if seen is not None else 0.0
            failed = (report.errors if report.errors is not None else seen.errors if seen is not None else 0.0)
        if done:
            host["errors"] = (3.0 * host["errors"] + done * failed) / (done + 3.0)
            if failed > 0.5 and done >= 3.0:
                host["errors"] = max(host["errors"], failed)
        else:
            host["errors"] *= math.exp(-elapsed / 10.0)
        # how busy it is
        if report.utilisation is not None:
            busy = report.utilisation if host["busy"] is None else host["busy"]
            host["busy"] = busy + (report.utilisation - busy) * (1 - math.exp(-elapsed / 5.0))  # exact at the bounds below
        if report.capacity is None and (host["busy"] or 0.0) < (0.05 if counts else 0.1):
            medians = self.medians(now) if now - self.taken_at >= 0.05 else self.taken
            middle = medians.get(host["source"], 0.0)
            if report.utilisation is not None and 0.0 < host["capacity"] < middle:
                host["capacity"] += (middle - host["capacity"]) * (1 - math.exp(-elapsed / 10.0))
            return
        if failed >= 0.2:
            host["gathered"] = []
            return
        if report.capacity is not None:
            if done >= 3.0:
                self.learn(host, report.capacity, "reported", now)
        elif report.rate is not None and report.utilisation is not None:
            host["gathered"].append((done, done * (1.0 - failed), done / report.rate if report.rate else elapsed, report.utilisation))
            every, well, lasted = (sum(each[place] for each in host["gathered"]) for place in range(3))
            if every >= 3.0 and lasted > 0.0:
                busy = sum(seconds * utilisation for _, _, seconds, utilisation in host["gathered"])
                self.learn(host, well / max(busy, 0.05 * lasted), "reported", now)
                host["gathered"] = []
        elif seen is not None and seen.utilisation is not None and done >= 3.0:
            sample = seen.rate * (1.0 - failed) / max(seen.utilisation, 0.05)
            slower = False
            if seen.turnaround_s is not None:
                usual = seen.turnaround_s if host["usual"] is None else host["usual"]
                slower = seen.turnaround_s > 1.25 * usual
                kept = math.exp(-min(now - host["sampled_at"], 30.0) / 30.0)
                host["usual"] = kept * usual + (1 - kept) * seen.turnaround_s
            falls = slower and sample < host["capacity"] and seen.utilisation >= 0.9
            self.learn(host, sample, seen.source, now, 5.0 if falls else 30.0)

    def learn(self, host: dict[str, Any], sample: float, source: str, now: float, smoothing_s: float = 30.0) -> None:
        if source != host["source"]:
            host.update(source=source, samples=[], sampled_at=-math.inf)
        host["samples"].append(sample)
        share = max(1 / len(host["samples"]), 1 - math.exp(-(now - host["sampled_at"]) / smoothing_s))
        before = host["capacity"] if share < 1 else 0.0
        host["capacity"] = before + share * (sample - before)
        host["sampled_at"] = now

    def medians(self, now: float) -> dict[str, float]:
        fresh = [each for each in self.hosts.values() if now - each["sampled_at"] <= 180.0]
        return {source: statistics.median(each["capacity"] for each in fresh if each["source"] == source)
                for source in {each["source"] for each in fresh}}

    def factor(self, key: int, now: float) -> float:
        host = self.hosts[key]
        middle = self.medians(now).get(host["source"], 0.0)
        ratio = host["capacity"] / middle if 0.0 < host["capacity"] <= 4.0 * middle else 1.0
        parts = []
        for value, at in ((ratio, host["sampled_at"]), ((1.0 - host["errors"]) ** 4, host["at"])):
            age = now - at
            parts.append(value if age <= 60.0 else 1.0 if age >= 120.0 else value + (1.0 - value) * (age - 60.0) / 60.0)
        return min(max(parts[0] * parts[1], 1 / 32), 2.0)


class ModelTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(EVENTS, st.sampled_from([0.0, 30.0, 90.0, 130.0]))
    def test_like_its_model(self, events: list[tuple[int, LoadReport, Window | None, float, int]], later: float) -> None:
        """Whatever is reported and seen, each figure behind each host's W is as the description says, and so is W."""
        capacity: Capacity[int] = Capacity()
        model = Model()
        now = 1000.0
        for key, report, seen, pause, times in events:
            for _ in range(times):
                now += pause
                capacity.reported(key, report, now, seen)
                model.reported(key, report, now, seen)
                self.same(capacity, model, now)
        self.same(capacity, model, now + later)

    def same(self, capacity: Capacity[int], model: Model, now: float) -> None:
        bases, factors, medians = capacity.bases(now), capacity.factors(now), model.medians(now)
        model.taken, model.taken_at = medians, now
        self.assertEqual(set(bases), set(model.hosts))
        for key, host in model.hosts.items():
            self.close(bases[key].capacity, host["capacity"])
            self.close(bases[key].median, medians.get(host["source"], 0.0))
            self.close(bases[key].errors, host["errors"])
            self.assertEqual(bases[key].sample_age_s, now - host["sampled_at"])
            self.close(factors[key], model.factor(key, now))
            self.assertEqual(capacity.factor(key, now), factors[key])

    def close(self, one: float, other: float) -> None:
        self.assertTrue(math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9), f"{one} {other}")
