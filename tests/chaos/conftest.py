"""A failed test shows the ends of its cluster's logs; the guides tell how long they took."""

from collections.abc import Generator
from typing import Any

import pytest

from tests.chaos.guide_kit import TOOK


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Generator[None, Any, Any]:
    report = yield
    if call.when == "call" and report.failed:
        report.sections += list(getattr(item.instance, "tails", {}).items())
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in TOOK:
        terminalreporter.write_line(line)
