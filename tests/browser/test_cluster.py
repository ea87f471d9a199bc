"""Two directors on a real etcd, looked at in Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE_MS
from tests.browser.stage import Directors
from tests.browser.test_looks import WIDTHS, look_at, themes, widths
from tests.etcd_server import EtcdCluster, require_etcd

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def directors() -> Iterator[Directors]:
    require_etcd()
    etcd = EtcdCluster()
    try:
        etcd.start()
        with Directors(etcd.endpoints) as directors:
            yield directors
    finally:
        etcd.stop()


def visit(chromium: Browser, url: str, *, dark: bool = False, width: int = 1280) -> Page:
    page = chromium.new_page(base_url=url, viewport={"width": width, "height": 844},
                             color_scheme="dark" if dark else "light", reduced_motion="reduce")
    page.set_default_timeout(PATIENCE_MS)
    return page


def test_an_order_is_everybodys(chromium: Browser, directors: Directors) -> None:
    """What is ordered at one director's page shows live at the other's, and in the audit there, by whom and where."""
    north, south = (visit(chromium, url) for url in directors.urls.values())
    south.goto("/")
    expect(south.locator("#live")).to_have_text("Live")
    north.goto("/services/web/groups/main/hosts/a")
    north.get_by_label("Reason").fill("new kernel")
    north.get_by_role("button", name="Drain").click()
    expect(south.get_by_role("row").filter(has_text="draining")).to_contain_text("new kernel")
    south.goto("/audit")
    expect(south.get_by_role("row").filter(has_text="order")).to_contain_text("at north")
    south.goto("/services/web/groups/main/hosts/a/history")
    expect(south.get_by_role("main")).to_contain_text("drain by local")
    for page in (north, south):
        page.close()


@themes
@widths
def test_members(chromium: Browser, directors: Directors, width: str, dark: bool) -> None:
    """Every member, and which one leads."""
    page = visit(chromium, directors.urls["north"], width=WIDTHS[width], dark=dark)
    page.goto("/cluster")
    members = page.get_by_role("table", name="The directors that live").get_by_role("row")
    for name in directors.urls:
        expect(members.filter(has_text=name)).to_be_visible()
    expect(members.filter(has_text="leads")).to_have_count(1)
    links = page.get_by_role("table", name="Links to other directors").get_by_role("row")
    expect(links.filter(has_text="south")).to_contain_text("connected")
    expect(links.filter(has_text="not connected")).to_have_count(0)
    look_at(page, "members", width, dark)
    page.close()
