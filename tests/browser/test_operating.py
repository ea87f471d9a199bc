"""An operator at work in Chromium, with JavaScript and without, against a director that serves real backends."""

from __future__ import annotations

import socket

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import PATIENCE_MS, Visit
from tests.browser.stage import DEADLINE_S, Stage, until

expect.set_options(timeout=PATIENCE_MS)
AMBER = "/services/web/groups/main/hosts/amber"
both = pytest.mark.parametrize("scripting", [True, False], ids=["scripts", "no-scripts"])


@pytest.fixture(autouse=True)
def as_found(stage: Stage) -> None:
    """Each test finds amber up, and mx1, which has no agent whose load would move its weight, of weight 1."""
    stage.api("PUT", "services/web/groups/main/hosts/amber/state", {"state": "up"})
    stage.api("PUT", "services/mail/groups/all/hosts/mx1/weight", {"weight": 1})


def row(page: Page, host: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=host))


@both
def test_sign_in(visit: Visit, scripting: bool) -> None:
    """A wrong password is told and asked for again; the right one leads to the page that was wanted; signing out ends it."""
    page = visit(None, scripting=scripting)
    page.goto("/bad-hosts")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("wrong name or password")
    page.get_by_label("Password").fill("engine")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Bad hosts")
    page.get_by_role("button", name="Sign out").click()
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


@both
def test_a_weight_changes_while_one_looks(visit: Visit, stage: Stage, scripting: bool) -> None:
    """Another operator's change shows on an open page: in place by the stream, or by reloading where there are no
    scripts."""
    page = visit(scripting=scripting)
    page.evaluate("window.untouched = true")
    cell = row(page, "mx1").get_by_role("cell").nth(1)
    expect(cell).to_have_text("1.00")
    stage.api("PUT", "services/mail/groups/all/hosts/mx1/weight", {"weight": 2.5})
    expect(cell).to_have_text("2.50")
    assert page.evaluate("Boolean(window.untouched)") == scripting


def test_many_windows(visit: Visit, stage: Stage) -> None:
    """Any number of windows of one browser load, and all of them keep current: three by the stream, the others by
    reloading their parts."""
    first = visit()
    windows = [first, *(first.context.new_page() for _ in range(7))]
    for page in windows[1:]:
        page.goto("/")
    for page in windows:
        expect(row(page, "mx1").get_by_role("cell").nth(1)).to_have_text("1.00")
    stage.api("PUT", "services/mail/groups/all/hosts/mx1/weight", {"weight": 3.5})
    for page in windows:
        expect(row(page, "mx1").get_by_role("cell").nth(1)).to_have_text("3.50")
    live = [page.locator("#live").inner_text() for page in windows]
    assert (live.count("Live"), live.count("Every 2.0 s")) == (3, 5), live


@both
def test_drain_and_raise(visit: Visit, stage: Stage, scripting: bool) -> None:
    """A host is drained with a reason, which the page and the overview then tell, and raised again; the director acts."""
    page = visit(scripting=scripting)
    page.get_by_role("link", name="amber").click()
    page.get_by_label("Reason").fill("new <kernel>")
    page.get_by_role("button", name="Drain").click()
    expect(page.get_by_role("status").filter(has_text="The order is in force.")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_contain_text("draining")
    expect(page.get_by_role("main")).to_contain_text("by operator ada")
    host = stage.host("amber")
    assert (host["admin"], host["in_rotation"], host["orders"][0]["why"]) == ("drain", False, "new <kernel>")
    page.get_by_role("link", name="Overview").click()
    expect(row(page, "amber")).to_contain_text("draining, ordered by operator ada: new <kernel>")
    page.goto(AMBER)
    page.get_by_role("button", name="Up").click()
    expect(page.get_by_role("status").filter(has_text="The order is in force.")).to_be_visible()
    until(lambda: stage.host("amber")["in_rotation"], "amber's agent has heard of it, too")
    if not scripting:
        page.reload()
    expect(page.get_by_role("heading", level=1)).not_to_contain_text("draining")


@both
def test_errors(visit: Visit, stage: Stage, scripting: bool) -> None:
    """What is refused is told in a sentence where it was asked for, and what was typed is still there."""
    page = visit(scripting=scripting)
    page.goto(AMBER)
    page.get_by_label("Configured weight").fill("-1")
    page.get_by_role("button", name="Set weight").click()
    expect(page.get_by_role("alert")).to_contain_text("Not done: weight:")
    expect(page.get_by_label("Configured weight")).to_have_value("-1")
    assert stage.host("amber")["configured_weight"] == 1
    page.goto("/services/web/groups/main/hosts/gone")
    expect(page.get_by_role("alert")).to_contain_text("no host is called 'gone'")


@both
def test_hosts_come_and_go(visit: Visit, stage: Stage, scripting: bool) -> None:
    """A host is added, serves, and is removed again, all by forms; the one that is refused leaves nothing behind."""
    page = visit(scripting=scripting)
    page.goto("/services/web/groups/next")
    page.get_by_label("Name").fill("elder")
    page.get_by_role("textbox", name="Address").fill("not an address")
    page.get_by_role("button", name="Add host").click()
    expect(page.get_by_role("alert")).to_contain_text("Not done")
    page.get_by_role("textbox", name="Address").fill(f"127.0.0.1:{stage.ports['birch']}")
    page.get_by_role("textbox", name="Weight").fill("2.5")
    page.get_by_role("button", name="Add host").click()
    expect(page.get_by_role("status").filter(has_text="The host is added.")).to_be_visible()
    host = "services/web/groups/next/hosts/elder"
    until(lambda: stage.api("GET", host)["in_rotation"], "elder is checked and in use")
    assert stage.api("GET", host)["configured_weight"] == 2.5
    page.get_by_text("Remove this host…").click()
    page.get_by_role("button", name="Remove elder").click()
    expect(page.get_by_role("status").filter(has_text="The host is removed.")).to_be_visible()
    expect(page.get_by_role("table")).not_to_contain_text("elder")
    assert [each["name"] for each in stage.api("GET", "services/web/groups/next")["hosts"]] == ["dogwood"]


@both
def test_groups(visit: Visit, stage: Stage, scripting: bool) -> None:
    """Another group is enabled and its scheduler changed; what the enabled group forbids is told."""
    page = visit(scripting=scripting)
    page.goto("/services/web/groups/next")
    page.get_by_label("How a client’s host is chosen").select_option("p2c")
    page.get_by_label("Parameters").fill("choices = 3")
    page.get_by_role("button", name="Change scheduler").click()
    expect(page.get_by_role("main")).to_contain_text("chosen by p2c")
    page.get_by_role("button", name="Enable next").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("next enabled")
    assert stage.api("GET", "services/web")["enabled"] == "next"
    page.get_by_text("Remove all hosts…").click()
    page.get_by_role("button", name="Remove all hosts of next").click()
    expect(page.get_by_role("alert")).to_contain_text("is the enabled group")
    page.goto("/services/web/groups/main")
    page.get_by_role("button", name="Enable main").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("main enabled")


@both
def test_services(visit: Visit, stage: Stage, scripting: bool) -> None:
    """A service is made, shows as a difference from the node's file, and is deleted; an address that is taken is told."""
    page = visit(scripting=scripting)
    page.goto("/configuration")
    page.get_by_label("Name").fill("ftp")
    page.get_by_label("Listens on").fill(f"127.0.0.1:{stage.ports['web']}")
    page.get_by_role("button", name="Add service").click()
    expect(page.get_by_role("alert")).to_contain_text(str(stage.ports["web"]))
    page.get_by_label("Listens on").fill(f"127.0.0.1:{stage.ports['ftp']}")
    page.get_by_role("button", name="Add service").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("ftp")
    page.get_by_role("link", name="Configuration").click()
    expect(page.get_by_role("table").first).to_contain_text("services.ftp")
    page.goto("/services/ftp")
    page.get_by_text("Delete this service…").click()
    page.get_by_role("button", name="Delete ftp").click()
    expect(page.get_by_role("status").filter(has_text="The service is deleted.")).to_be_visible()
    assert [each["name"] for each in stage.api("GET", "services")] == ["mail", "web"]


@both
def test_connections(visit: Visit, stage: Stage, scripting: bool) -> None:
    """A client that is connected is listed with its host, and cut."""
    with socket.create_connection(("127.0.0.1", stage.ports["mail"])) as client:
        client.settimeout(DEADLINE_S)
        name = "{}:{}".format(*client.getsockname())
        page = visit(scripting=scripting)
        page.goto("/connections?live=off")
        expect(row(page, name)).to_contain_text("all/mx1")
        page.get_by_role("button", name=f"Cut {name}").click()
        expect(page.get_by_role("status").filter(has_text="The connection is cut.")).to_be_visible()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    expect(page.get_by_role("main")).not_to_contain_text(name)


@both
def test_users(visit: Visit, scripting: bool) -> None:
    """A user is added and signs in; a new password ends that session, and the deletion ends everything."""
    page = visit(scripting=scripting)

    def keep(password: str) -> None:
        page.goto("/users")
        page.get_by_label("Name").fill("eve")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Keep user").click()
        expect(page.get_by_role("status").filter(has_text="The user is kept.")).to_be_visible()

    def enter(password: str) -> None:
        eve.goto("/sign-in")
        eve.get_by_label("Name").fill("eve")
        eve.get_by_label("Password").fill(password)
        eve.get_by_role("button", name="Sign in").click()
        expect(eve.get_by_role("heading", level=1)).to_have_text("Overview")

    eve = visit(None, scripting=scripting)
    keep("first of three")
    enter("first of three")
    keep("second of three")
    eve.goto("/cluster")
    expect(eve.get_by_role("heading", level=1)).to_have_text("Sign in")
    enter("second of three")
    page.goto("/users")
    page.get_by_role("button", name="Delete eve").click()
    expect(page.get_by_role("table")).not_to_contain_text("eve")
    eve.goto("/cluster")
    expect(eve.get_by_role("heading", level=1)).to_have_text("Sign in")


@both
def test_explain(visit: Visit, scripting: bool) -> None:
    """Who would serve a client, asked through a form."""
    page = visit(scripting=scripting)
    page.get_by_role("link", name="Explain").click()
    page.get_by_label("Client’s IP address").fill("192.0.2.7")
    page.get_by_label("Service").select_option("mail")
    page.get_by_role("button", name="Explain").click()
    expect(page.get_by_role("main")).to_contain_text("192.0.2.7 would get mx1")
    expect(row(page, "mx2")).to_contain_text("failed")


@both
def test_looking_only(visit: Visit, scripting: bool) -> None:
    """Who may only look is offered nothing to change, on any host's page."""
    page = visit("bob", scripting=scripting)
    page.goto(AMBER)
    expect(page.get_by_role("heading", level=1)).to_contain_text("amber")
    expect(page.get_by_role("button")).to_have_count(1)  # to sign out


def test_typing_is_left_alone(visit: Visit, stage: Stage) -> None:
    """While facts of a page are drawn again, what somebody types stays, and so does the focus."""
    page = visit()
    page.goto(AMBER)
    expect(page.locator("#live")).to_have_text("Live")
    page.get_by_label("Reason").press_sequentially("half a sent")
    stage.api("PUT", "services/web/groups/main/hosts/amber/state", {"state": "drain", "why": "somebody else"})
    expect(page.get_by_role("main")).to_contain_text("somebody else")
    page.keyboard.type("ence")
    expect(page.get_by_label("Reason")).to_have_value("half a sentence")


def test_a_host_fails_while_one_looks(visit: Visit, stage: Stage) -> None:
    """A backend that dies leaves the overview's list of hosts in use, and the page of bad hosts tells why; when it is
    back it is shown back."""
    page, bad = visit(), visit()
    bad.goto("/bad-hosts")
    expect(bad.locator("#live")).to_have_text("Live")
    with stage.without("cedar"):
        expect(row(page, "cedar").get_by_role("cell").first).to_contain_text("down")
        expect(bad.get_by_role("table").first).to_contain_text("web/main/cedar")
        expect(bad.get_by_role("table").nth(1)).to_contain_text("refused")
    expect(row(page, "cedar").get_by_role("cell").first).to_have_text("up ")
    until(lambda: stage.host("cedar")["in_rotation"], "cedar is back")


def test_signed_out_elsewhere(visit: Visit) -> None:
    """A page that is open when its session ends does not go on pretending: it shows the sign-in."""
    page = visit()
    expect(page.locator("#live")).to_have_text("Live")
    other = page.context.new_page()
    other.goto("/")
    other.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_keyboard(visit: Visit) -> None:
    """The first stop skips to the content; every stop from there to a button is seen; Enter does it."""
    page = visit()
    page.goto(AMBER)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("Tab")
        outline = page.evaluate("(({outlineStyle, outlineWidth}) => outlineStyle != 'none' && parseFloat(outlineWidth) >= 2)"
                                "(getComputedStyle(document.activeElement))")
        assert outline, page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("document.activeElement.textContent").strip() == "Drain":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("draining")


@both
def test_find_among_a_thousand(visit: Visit, stage: Stage, scripting: bool) -> None:
    """Hosts of a large group are found by a part of their name: as one types, or by the button where there are no scripts;
    and what is found is kept current."""
    hosts = {f"n{number:03}": {"address": f"127.0.0.1:{10000 + number}"} for number in range(1000)}
    group = {"hosts": hosts, "health": {"probe": {"kind": "none"}}}
    stage.api("PUT", "services/many", {"spec": {"groups": {"all": group}}})
    try:
        page = visit(scripting=scripting)
        page.goto("/services/many/groups/all")
        page.evaluate("window.untouched = true")
        field = page.get_by_role("searchbox", name="Find hosts by name or address")
        field.fill("N77")
        if scripting:
            expect(field).to_be_focused()
        else:
            page.get_by_role("button", name="Find").click()
        expect(page.get_by_role("rowheader")).to_have_count(10)
        expect(page.get_by_role("status").filter(has_text="10 of 1000 hosts")).to_be_visible()
        stage.api("PUT", "services/many/groups/all/hosts/n777/state", {"state": "drain"})
        if not scripting:  # a page with something to fill in does not reload by itself
            page.reload()
        expect(row(page, "n777")).to_contain_text("draining")
        assert page.evaluate("Boolean(window.untouched)") == scripting
        page.get_by_role("link", name="All hosts").click()
        expect(page.get_by_role("rowheader")).to_have_count(100)
        expect(field).to_have_value("")
    finally:
        stage.api("DELETE", "services/many")
