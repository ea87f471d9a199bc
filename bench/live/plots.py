"""The newest live result of each case as a plot: ``python -m bench.live.plots`` writes ``docs/images/bench-live.svg``."""

from __future__ import annotations

import json
from typing import Any

import matplotlib

from bench.machine import HERE
from bench.plot import IMAGES

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "txdirector"  # the same file for the same figures
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: a tenth of the size
from matplotlib import pyplot as plt  # noqa: E402

#: What others are measured against, and the two that differ from it where it matters.
BASE, COLOURS = "haproxy leastconn", {"haproxy agent-check": "#b9c2cc", "director default": "#3b6ea5"}
NAMES = {"haproxy agent-check": "HAProxy leastconn with agent-check", "director default": "director, as it comes"}
CASES = {"alike": "alike", "light": "light", "half-slow": "half slow", "one-very-slow": "one very slow", "noisy": "noisy",
         "long-lived": "long-lived"}


def plot(scenarios: dict[str, dict[str, Any]]) -> None:
    """p99 over that of HAProxy's leastconn in each case; the sinkhole's errors beside it."""
    figure, (ratios, errors) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", width_ratios=[3, 1])
    cases = [case for case in CASES if case in scenarios]
    for place, (name, colour) in enumerate(COLOURS.items()):
        for number, case in enumerate(cases):
            base, row = scenarios[case][BASE]["p99"]["median"], scenarios[case].get(name)
            if row is not None:
                ratio, at = row["p99"]["median"] / base, number + (place - 0.5) * 0.36
                ratios.barh(at, ratio, 0.32, color=colour, label=NAMES[name] if number == 0 else None)
                ratios.annotate(f"{ratio:.2f}", (ratio, at), xytext=(3, 0), textcoords="offset points", va="center",
                                fontsize=8)
    ratios.axvline(1.0, color="#888888", linewidth=0.8, linestyle="--")
    ratios.set_yticks(range(len(cases)), [CASES[case] for case in cases])
    ratios.invert_yaxis()
    ratios.set_xlim(0, 1.2)
    ratios.set_title("p99, HAProxy's leastconn is 1", fontsize=10)
    ratios.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)
    shown = {BASE: "least-\nconn", "haproxy agent-check": "agent-\ncheck", "director default": "director"}
    failed = [scenarios["sinkhole"][name]["errors_percent"]["median"] for name in shown]
    bars = errors.bar(list(shown.values()), failed, color=["#dde2e7", *COLOURS.values()])
    errors.bar_label(bars, fmt="%.1f", fontsize=8)
    errors.set_title("sinkhole: % failed", fontsize=10)
    errors.tick_params(axis="x", labelsize=8)
    for axis in (ratios, errors):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / "bench-live.svg", metadata={"Date": None})


def main() -> None:
    scenarios: dict[str, Any] = {}
    for path in sorted((HERE / "results").glob("live-*.json")):
        scenarios |= json.loads(path.read_text())["scenarios"]
    if not scenarios:
        raise SystemExit("no results yet: python -m bench.live --save")
    plot(scenarios)


if __name__ == "__main__":
    main()
