"""Writes every dashboard: ``python -m deploy.dashboards [DIRECTORY]``."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.dashboards.agents import agents
from deploy.dashboards.cluster import cluster
from deploy.dashboards.overview import overview
from deploy.dashboards.service import service

HERE = Path(__file__).parents[1] / "grafana/dashboards"


def files() -> dict[str, str]:
    """Texts by the names of their files."""
    return {f"{board.name}.json": board.text() for board in (overview(), service(), cluster(), agents())}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
