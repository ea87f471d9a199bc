"""One stage and one Chromium for all browser tests; a fresh profile for each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.browser.stage import PASSWORDS, Stage

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]
#: What an action or an expectation may take; far beyond what a loaded machine needs.
PATIENCE_MS = 20_000

#: Opens a page: of a user who signed in, or nobody; with JavaScript or not.
Visit = Callable[..., Page]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: apt-get install chromium fonts-inter")
        pytest.skip("no Chromium: apt-get install chromium fonts-inter")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture
def visit(chromium: Browser, stage: Stage) -> Iterator[Visit]:
    """What browsers complain of on the console (a blocked inline script, an exception) fails the test."""
    contexts = []
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            complaints.append(message.text)  # a 4xx that a test wants is also called a failed load

    def visit(user: str | None = "ada", *, scripting: bool = True, dark: bool = False, width: int = 1280) -> Page:
        context = chromium.new_context(
            base_url=stage.url, java_script_enabled=scripting, color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": 844}, reduced_motion="reduce",
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if user is not None:
            page.goto("/sign-in")
            page.get_by_label("Name").fill(user)
            page.get_by_label("Password").fill(PASSWORDS[user])
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("heading", name="Overview").wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
