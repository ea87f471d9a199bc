"""Every page in light and dark, wide and narrow: nothing that axe-core calls serious, nothing cut off.

With ``TXDIRECTOR_SCREENSHOTS=folder`` each is also kept as an image: ``make screenshots``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.conftest import Visit
from tests.browser.stage import Stage

PAGES = {
    "overview": "/",
    "service": "/services/web",
    "group": "/services/web/groups/main",
    "host": "/services/web/groups/main/hosts/birch",
    "bad-hosts": "/bad-hosts",
    "connections": "/connections",
    "configuration": "/configuration",
    "audit": "/audit",
    "cluster": "/cluster",
    "history": "/history",
    "users": "/users",
    "explain": "/explain?client=192.0.2.7&service=web",
    "not-found": "/services/web/groups/main/hosts/gone",
}
#: After so long load lines are full, on images for people.
LINES_S = 240.0
WIDTHS = {"desktop": 1280, "phone": 390}
themes = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
widths = pytest.mark.parametrize("width", WIDTHS)


def faults(page: Page) -> list[Any]:
    """What axe-core calls serious or critical, in short."""
    found = Axe().run(page).response["violations"]
    return [(each["id"], each["help"], [node["html"] for node in each["nodes"]]) for each in found
            if each["impact"] in ("serious", "critical")]


def look_at(page: Page, name: str, width: str, dark: bool) -> None:
    assert faults(page) == [], name
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the window"
    folder = os.environ.get("TXDIRECTOR_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder, f"web-{name}-{width}-{'dark' if dark else 'light'}.png"), full_page=True)


@themes
@widths
def test_pages(visit: Visit, stage: Stage, width: str, dark: bool) -> None:
    """Every page of an operator."""
    stage.api("PUT", "services/web/groups/main/hosts/cedar/state", {"state": "drain", "why": "new kernel"})
    stage.api("PUT", "services/web/groups/main/hosts/birch/weight", {"weight": 1.5})  # differs from the node's file
    if os.environ.get("TXDIRECTOR_SCREENSHOTS"):
        stage.grow_old(LINES_S)
    try:
        page = visit(width=WIDTHS[width], dark=dark)
        for name, path in PAGES.items():
            page.goto(path)
            if page.locator("#live").count():  # not where nothing changes by itself
                page.get_by_text("Live", exact=True).wait_for()
            look_at(page, name, width, dark)
        page.goto(PAGES["host"])
        page.get_by_label("Configured weight").fill("heavy")
        page.get_by_role("button", name="Set weight").click()
        look_at(page, "refused", width, dark)
    finally:
        stage.api("PUT", "services/web/groups/main/hosts/cedar/state", {"state": "up"})
        stage.api("PUT", "services/web/groups/main/hosts/birch/weight", {"weight": 2})


@themes
@widths
def test_sign_in(visit: Visit, width: str, dark: bool) -> None:
    """The sign-in."""
    page = visit(None, width=WIDTHS[width], dark=dark)
    page.goto("/")
    look_at(page, "sign-in", width, dark)
