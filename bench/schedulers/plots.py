"""The simulation's result as a plot for the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"
COLOURS = {"p2c": "#b9c2cc", "weightedleastconns": "#8fb3d9", "ewma": "#d9a05b", "loadaware": "#3b6ea5"}


def plot(rows: list[dict[str, Any]]) -> None:
    """p99 beside that of leastconns in each scenario, a panel for each number of directors; with confidence intervals."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "txdirector"  # the same file for the same figures
    from matplotlib import pyplot as plt

    counts = sorted({row["directors"] for row in rows})
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    found = {(row["scenario"], row["directors"], row["scheduler"]): row for row in rows}
    figure, panels = plt.subplots(1, len(counts), figsize=(6.5 * len(counts), 0.75 * len(scenarios) + 1.5),
                                  layout="constrained", squeeze=False, sharey=True)
    for axis, directors in zip(panels[0], counts, strict=True):
        for place, (scheduler, colour) in enumerate(COLOURS.items()):
            for number, scenario in enumerate(scenarios):
                row = found.get((scenario, directors, scheduler))
                if row is None:
                    continue
                axis.barh(number + (place - 1.5) * 0.2, row["p99_ratio"], 0.18, color=colour,
                          xerr=row["p99_ratio_ci"], error_kw={"linewidth": 0.7},
                          label=scheduler if number == 0 else None)
        axis.axvline(1.0, color="#888888", linewidth=0.8, linestyle="--")
        axis.set_yticks(range(len(scenarios)), scenarios)
        axis.set_xlim(0, 1.4)
        axis.set_title(f"{directors} director{'s' if directors > 1 else ''}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    panels[0][0].invert_yaxis()
    panels[0][0].legend(fontsize=8, loc="lower right")
    figure.suptitle("p99 beside leastconns, in simulation", fontsize=11)
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / "bench-schedulers.svg", metadata={"Date": None})
