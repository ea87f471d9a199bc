"""Tables of what each scheduler makes of each scenario, in simulation: ``python -m bench.schedulers``.

Every run is seeded, so the tables are the same on every machine. Times are in milliseconds, each the mean over seeds with
the half width of its 95 % confidence interval; then p99 over that of leastconns with the same seed; the last column is the
smallest and the largest host's share of connections.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

from bench.schedulers.plots import plot
from bench.schedulers.scenarios import EVERY, REPORTS, SCENARIOS
from bench.schedulers.simulation import Simulation

RESULTS = Path(__file__).parent.parent / "results"
BASE = "leastconns"  #: what others are compared with
SCHEDULERS = ("leastconns", "weightedleastconns", "p2c", "ewma", "loadaware")
#: Student's t, two-sided 95 %, by degrees of freedom; many: the normal distribution's.
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}

Case = tuple[str, int, str, int]  # scenario, directors, scheduler, seed


def measure(case: Case) -> tuple[Case, dict[str, float]]:
    name, directors, scheduler, seed = case
    outcome = Simulation(EVERY[name], scheduler, directors=directors, seed=seed).run()
    total, picked = max(outcome.total, 1), max(sum(outcome.picks.values()), 1)
    shares = [outcome.picks[f"h{index}"] / picked for index in range(sum(each.count for each in EVERY[name].hosts))]
    return case, {
        "p50_ms": 1e3 * outcome.quantile_s(0.5), "p99_ms": 1e3 * outcome.quantile_s(0.99),
        "p999_ms": 1e3 * outcome.quantile_s(0.999), "errors": (outcome.failed + outcome.timeouts) / total,
        "within_1_s": outcome.within_1_s / total, "least_share": min(shares), "most_share": max(shares),
    }


def spread(values: list[float]) -> tuple[float, float]:
    """Mean, and the half width of its 95 % confidence interval; NaN for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, STUDENT.get(len(values) - 1, 1.96) * statistics.stdev(values) / math.sqrt(len(values))


def summed(found: dict[Case, dict[str, float]]) -> list[dict[str, Any]]:
    """A row for each scenario, number of directors and scheduler, in the order of the scenarios."""
    cases = sorted({case[:3] for case in found}, key=lambda case: (list(EVERY).index(case[0]), case[1]))
    rows = []
    for scenario, directors, scheduler in cases:
        runs = [found[case] for case in sorted(found) if case[:3] == (scenario, directors, scheduler)]
        row: dict[str, Any] = {"scenario": scenario, "directors": directors, "scheduler": scheduler, "seeds": len(runs)}
        for key in runs[0]:
            row[key], row[f"{key}_ci"] = spread([run[key] for run in runs])
        # The same clients came to both, so the ratio of each seed says more than the ratio of the means.
        ratios = [found[case]["p99_ms"] / found[base]["p99_ms"] for case in sorted(found)
                  if case[:3] == (scenario, directors, scheduler) and (base := (*case[:2], BASE, case[3])) in found]
        row["p99_ratio"], row["p99_ratio_ci"] = spread(ratios) if ratios else (math.nan, math.nan)
        rows.append(row)
    order = {name: place for place, name in enumerate(SCHEDULERS)}
    return sorted(rows, key=lambda row: (list(EVERY).index(row["scenario"]), row["directors"],
                                         order.get(row["scheduler"], len(order))))


def table(rows: list[dict[str, Any]]) -> str:
    lines = []
    seen = None
    for row in rows:
        if (row["scenario"], row["directors"]) != seen:
            seen = row["scenario"], row["directors"]
            several = "director" if row["directors"] == 1 else "directors"
            lines += ["", f"{row['scenario']}, {row['directors']} {several}, {row['seeds']} seeds",
                      f"  {'':<20}{'p50':>16}{'p99':>18}{'p99.9':>20}{'p99 ratio':>16}"
                      f"{'errors %':>18}{'shares %':>16}"]
        cells = [f"{row[key]:.1f} ± {row[f'{key}_ci']:.1f}" for key in ("p50_ms", "p99_ms", "p999_ms")]
        ratio = f"{row['p99_ratio']:.2f} ± {row['p99_ratio_ci']:.2f}"
        errors = f"{100 * row['errors']:.2f} ± {100 * row['errors_ci']:.2f}"
        shares = f"{100 * row['least_share']:.1f} to {100 * row['most_share']:.1f}"
        lines.append(f"  {row['scheduler']:<20}{cells[0]:>16}{cells[1]:>18}{cells[2]:>20}{ratio:>16}"
                     f"{errors:>18}{shares:>16}")
    return "\n".join(lines).strip("\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.schedulers")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--directors", default="1,2,4", help="numbers of directors, with commas")
    parser.add_argument("--schedulers", default=",".join(SCHEDULERS), help="with commas")
    parser.add_argument("--only", default="", help="scenarios whose names begin so, with semicolons")
    parser.add_argument("--reports", action="store_true", help="the scenarios of reports delayed, lost, silent, lying, too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true", help="write bench/results and the plots")
    options = parser.parse_args()
    chosen = [*SCENARIOS, *(REPORTS if options.reports or options.only else ())]
    if options.only:
        starts = tuple(options.only.split(";"))
        chosen = [each for each in chosen if each.name.startswith(starts)]
    cases: list[Case] = [
        (each.name, directors, scheduler, seed)
        for each in chosen for directors in map(int, options.directors.split(","))
        for scheduler in options.schedulers.split(",") for seed in range(1, options.seeds + 1)
    ]
    found: dict[Case, dict[str, float]] = {}
    per_table = options.seeds * len(options.schedulers.split(","))
    with multiprocessing.Pool(options.jobs) as pool:
        for case, result in pool.imap(measure, cases):
            found[case] = result
            if len(found) % per_table == 0:
                print(table([row for row in summed(found) if (row["scenario"], row["directors"]) == case[:2]]) + "\n",
                      flush=True)
    if options.keep:
        path = RESULTS / f"schedulers-{time.strftime('%Y%m%d')}.json"
        path.write_text(json.dumps({"rows": summed(found)}, indent=1) + "\n")
        plot(summed(found))


if __name__ == "__main__":
    main()
