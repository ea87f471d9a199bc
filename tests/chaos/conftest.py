"""A failed test shows the ends of its cluster's logs."""

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Generator[None, Any, Any]:
    report = yield
    if call.when == "call" and report.failed:
        report.sections += list(getattr(item.instance, "tails", {}).items())
    return report
