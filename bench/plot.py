"""The newest results as plots for the documentation: ``python -m bench.plot`` writes ``docs/images/bench-*.svg``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

from bench.machine import HERE

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "txdirector"  # the same file for the same figures
from matplotlib import pyplot as plt  # noqa: E402

IMAGES = HERE.parent / "docs" / "images"
PANELS = {
    "small_cpu": "CPU per small message",
    "connect_cpu": "CPU per connection",
    "bulk_cpu": "CPU per GB",
    "small_per_s": "small messages per second",
    "connect_per_s": "connections per second",
    "bulk_mb_per_s": "bulk throughput",
    "beside_bulk_p99": "p99 of small beside bulk",
    "idle_kb": "memory per idle connection",
}


def newest(kind: str) -> dict[str, Any] | None:
    found = sorted((HERE / "results").glob(f"{kind}-*.json"))
    return json.loads(found[-1].read_text()) if found else None


def relay(result: dict[str, Any], path: Path) -> None:
    """One panel for each measure: ratios to HAProxy's median, with the range of the rounds."""
    peers = list(result["ratios"])
    figure, axes = plt.subplots(2, 4, figsize=(15, 6.5), layout="constrained")
    for axis, (measure, title) in zip(axes.flat, PANELS.items(), strict=True):
        base = result["medians"][peers[0]][measure]
        for place, peer in enumerate(peers):
            rounds = [each[measure] / base for each in result["rounds"][peer] if measure in each]
            ratio = result["ratios"][peer][measure]
            axis.barh(place, ratio, color="#3b6ea5" if peer.startswith("director") else "#b9c2cc")
            axis.plot([min(rounds), max(rounds)], [place, place], color="#222222", linewidth=1.2)
            axis.annotate(f"{ratio:.2f}", (max(ratio, *rounds, 0), place), xytext=(4, 0), textcoords="offset points",
                          va="center", fontsize=8)
        axis.axvline(1.0, color="#888888", linewidth=0.8, linestyle="--")
        axis.set_yticks(range(len(peers)), peers if axis in axes[:, 0] else [""] * len(peers))
        axis.invert_yaxis()
        axis.margins(x=0.2)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Ratios to HAProxy's median, one core for the proxy; lines are the range of the rounds", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    print(f"written to {path.relative_to(HERE.parent)}")


def main() -> None:
    result = newest("relay")
    if result is None:
        raise SystemExit("no results yet: python -m bench.relay")
    relay(result, IMAGES / "bench-relay.svg")


if __name__ == "__main__":
    main()
