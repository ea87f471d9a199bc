"""The end of a run takes what its tests shared."""

from __future__ import annotations

import shutil

import pytest

from tests.packages.once import folder


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # the process that waits for its workers, or the only one
        shutil.rmtree(folder(), ignore_errors=True)
