"""Pages as HTML: what they say, to whom, and that nothing an operator or an agent wrote becomes markup."""

from __future__ import annotations

import re

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import AdminState, AuditEntry, HostRef, HostState
from director.admin.ui.cells import MAX_LISTED, MAX_ROWS, MAX_SERVICES
from director.admin.ui.pages import PAGES
from director.core.snapshot import (
    CheckPicture,
    ClusterPicture,
    DirectorPicture,
    DisagreementPicture,
    MemberPicture,
    OrderPicture,
    PastPicture,
    PeerPicture,
    SeenPicture,
    TransitionPicture,
    VipPicture,
    WaitingPicture,
)
from tests.unit.admin.small_director import Admin, host_picture
from tests.unit.admin.visit import Html, Visitor

APP1 = HostRef("web", "blue", "app1")
HOST = "/services/web/groups/blue/hosts/app1"
NAMES = {"service": "web", "group": "blue", "host": "app1"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}"


def paths() -> list[str]:
    """Every page there is."""
    return ["/" + route.path.format(**NAMES) for route in PAGES] + ["/explain?client=192.0.2.7&service=web"]


class PageCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.admin = Admin()
        self.ada = Visitor(self.admin)
        self.ada.sign_in()
        self.bob = Visitor(self.admin)
        self.bob.sign_in("bob", "looking")


class EveryPageTests(PageCase):
    def test_well_formed(self) -> None:
        """Each page answers 200 with a title, one heading of the first level, every tag closed, to both roles."""
        for path in paths():
            for visitor in (self.ada, self.bob):
                answer = visitor.get(path)
                self.assertEqual(answer.status, 200, path)
                page = Html(answer.body)
                self.assertEqual(page.unclosed, [], path)
                self.assertEqual([tag for tag, _ in page.tags].count("h1"), 1, path)
                self.assertIn("· txdirector", page.text)

    def test_headers(self) -> None:
        """Pages are not stored, framed, sniffed or scripted from elsewhere; nothing is inline."""
        for path in [*paths(), "/sign-in", "/nowhere"]:
            answer = self.ada.get(path)
            policy = answer.headers["Content-Security-Policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(answer.headers["Referrer-Policy"], "same-origin")
            self.assertEqual(answer.headers["Cache-Control"], "no-store")
            self.assertTrue(answer.headers["Content-Type"].startswith("text/html"))
            for tag, given in Html(answer.body).tags:
                self.assertFalse({name for name in given if name == "style" or name.startswith("on")}, (path, tag))
                self.assertNotEqual(tag, "style")
                if tag == "script":
                    self.assertTrue(given["src"].startswith("/static/"))

    def test_only_full_users_see_forms(self) -> None:
        """Users who may only look see no form that changes anything; the others do."""
        changing = {path: {action for action in self.ada.page(path).forms if action.startswith("/do/")} for path in paths()}
        self.assertGreaterEqual(changing[HOST], {"/do/order", "/do/weight", "/do/retry"})
        for path in paths():
            self.assertEqual({each for each in self.bob.page(path).forms if each.startswith("/do/")}, set(), path)

    def test_every_form_carries_the_token(self) -> None:
        """All forms that are sent by POST have a token, and name one that is there."""
        for path in paths():
            page = self.ada.page(path)
            for tag, given in page.tags:
                if tag == "form" and given.get("method") == "post":
                    self.assertGreater(len(page.forms[given["action"]]["csrf"]), 40, path)

    def test_hostile_texts(self) -> None:
        """Reasons, details and metrics' names that look like markup or templates are shown as they are."""
        report = msgspec.structs.replace(host_picture(APP1).report, custom={HOSTILE[:63]: 1.0})
        self.admin.director.hosts[APP1] = host_picture(
            APP1, why=HOSTILE, why_not=HOSTILE, in_rotation=False, admin=AdminState.DOWN, report=report, address=HOSTILE,
            orders=(OrderPicture(by="operator", state=AdminState.DOWN, who=HOSTILE, why=HOSTILE, at=1.0),),
            check=CheckPicture(at=1.0, ok=False, detail=HOSTILE, duration_s=0.1, next_at=3000.0),
            history=(TransitionPicture(at=1.0, before=HostState.UP, after=HostState.DOWN, why=HOSTILE),),
        )
        for path in [*paths(), f"/explain?client={'%22%3E%3Cscript%3E'}&service=web"]:
            page = self.ada.page(path)
            self.assertEqual(page.unclosed, [], path)
            self.assertEqual([given for tag, given in page.tags if tag == "script" and "src" not in given], [], path)
            self.assertEqual([given for tag, given in page.tags if tag == "img" and given.get("src") == "x"], [], path)
            self.assertNotIn("49", page.text.replace(HOSTILE, ""), path)
        for path in (HOST, "/bad-hosts", "/services/web/groups/blue"):
            self.assertIn(HOSTILE, self.ada.page(path).text, path)

    def test_shares(self) -> None:
        """A group's part in a split is told wherever it is, small ones too; all pages follow when it changes."""
        pages = ("/", "/services/web", "/services/web/groups/blue")
        before = [self.ada.page(path).text for path in pages]
        for share, words in ((0.005, "enabled, 0.5 % of new clients"), (0.0, "enabled, 0 % of new clients")):
            self.admin.director.shares["blue"] = share
            for path, earlier in zip(pages, before, strict=True):
                self.assertIn(words, self.ada.page(path).text)
                self.assertNotIn("% of new clients", earlier)
        self.assertIn("/do/enable_group", self.ada.page(pages[2]).forms)

    def test_states_have_words(self) -> None:
        """Whatever is marked by icon and colour says its state in a word too."""
        self.admin.director.hosts[APP1] = host_picture(APP1, state=HostState.SUSPECT, admin=AdminState.DRAIN)
        for path in paths():
            source = self.ada.page(path).source
            for mark, word in re.findall(r'class="state"[^>]*data-mark="(\w+)"><span class="mark"></span>'
                                         r'<span class="word">([^<]*)</span>', source):
                self.assertTrue(word or mark == "up", path)  # no order leaves an empty pill, which is not shown

    def test_without_javascript(self) -> None:
        """Pages without anything to fill in reload at the configured rate, unless told not to; others never do."""
        for route in PAGES:
            path = "/" + route.path.format(**NAMES)
            page = self.ada.page(path)
            fields = [given for tag, given in page.tags if tag in ("input", "select", "textarea")
                      and given.get("type") != "hidden"]
            reloads = ('http-equiv="refresh" content="7"' in page.source)
            self.assertEqual(reloads, route.refresh, path)
            self.assertFalse(reloads and fields, path)
            if reloads:
                self.assertIn("?live=off", page.source)
                self.assertNotIn("http-equiv", self.ada.page(f"{path}?live=off").source)

    def test_footer(self) -> None:
        """The version and the configured project are on every page."""
        for path in paths():
            page = self.ada.page(path)
            self.assertIn(f"txdirector {self.admin.director.picture().version}"[:10], page.text)
            self.assertIn("https://project.example/", [given.get("href") for tag, given in page.tags if tag == "a"])


class OverviewTests(PageCase):
    def test_everything_at_a_glance(self) -> None:
        """Services, groups, hosts, weights and why a host is out."""
        self.admin.director.hosts[APP1] = host_picture(APP1, in_rotation=False, why_not="disk on fire", weight=1.25)
        page = self.ada.page("/")
        for said in ("web", "blue", "app1", "1.25", "disk on fire", "mail", "mx", "2 / 3", "25 %"):
            self.assertIn(said, page.text)

    def test_page_numbers(self) -> None:
        """Whatever stands for a page's number is the first page, or the last; never an accident."""
        for number in ("9" * 5000, "0", "-1", "", "%D9%A1", "1e9", "x", "999999"):
            answer = self.ada.get(f"/services/web/groups/blue?page={number}")
            self.assertEqual((answer.status, b"app1" in answer.body), (200, True))

    def test_large_groups(self) -> None:
        """Of a large group the overview lists a bounded number, those in trouble first; its own page has pages."""
        for number in range(250):
            ref = HostRef("web", "blue", f"n{number:03}")
            self.admin.director.hosts[ref] = host_picture(ref, in_rotation=number != 249)
        page = self.ada.page("/")
        shown = re.findall(r'href="/services/web/groups/blue/hosts/([^"]+)"', page.source)
        self.assertEqual((len(shown), shown[0]), (MAX_LISTED, "n249"))
        self.assertIn("All 252 hosts of web/blue", page.text)
        listed: list[str] = []
        for number in (1, 2, 3):
            names = re.findall(r"/hosts/([^\"]+)\"", self.ada.page(f"/services/web/groups/blue?page={number}").source)
            self.assertLessEqual(len(names), MAX_ROWS)
            listed += names
        self.assertEqual(len(set(listed)), 252)
        for odd in ("0", "-1", "99", "x", "²"):
            self.assertEqual(self.ada.get(f"/services/web/groups/blue?page={odd.encode('utf-8').hex()}").status, 200)

    def test_many_services(self) -> None:
        """Overview and connections show a page of services at a time; the totals count all, and explain offers all."""
        for number in range(2 * MAX_SERVICES - 1):
            ref = HostRef(f"s{number:02}", "main", "a")
            self.admin.director.hosts[ref] = host_picture(ref, connect_failures=1)
        for path in ("/", "/connections"):
            pages = []
            for number in (1, 2, 3):
                page = self.ada.page(f"{path}?page={number}")
                pages.append(re.findall(r'<h2[^>]*><a href="/services/([^"/]+)"', page.source))
                self.assertIn(f"Page {number} of 3", page.text)
                self.assertIn(f'data-scope="#{number}"', page.source)
                self.assertIn(str(2 * MAX_SERVICES - 1), page.text)
            self.assertEqual([len(each) for each in pages], [MAX_SERVICES, MAX_SERVICES, 1], path)
            self.assertEqual([name for each in pages for name in each], list(self.admin.director.totals().services))
        self.assertIn("82 / 82", self.ada.page("/?page=2").text)
        self.assertEqual(len(re.findall("<option", self.ada.page("/explain").source)), 2 * MAX_SERVICES + 1)

    def test_few_services(self) -> None:
        """Where all services fit on a page, nothing says of pages."""
        for path in ("/", "/connections", "/bad-hosts"):
            self.assertNotIn("Page 1", self.ada.page(path).text)
            self.assertNotIn('class="more"', self.ada.page(path).source)

    def test_many_bad_hosts(self) -> None:
        """The page of bad hosts has pages, and says how many there are in all."""
        for number in range(2 * MAX_ROWS):
            ref = HostRef("web", "blue", f"n{number:03}")
            self.admin.director.hosts[ref] = host_picture(ref, in_rotation=False)
        row = r'<th scope="row"><a href="[^"]*/hosts/([^"]+)"'
        page, found = self.ada.page("/bad-hosts"), []
        while True:
            found += re.findall(row, page.source)
            self.assertIn("of 200", page.text)
            self.assertLessEqual(len(found), 2 * MAX_ROWS)
            later = re.search(r'<a href="(/bad-hosts\?after=[^"]+)">Later', page.source)
            if later is None:
                break
            page = self.ada.page(later[1])
            if "No further hosts" in page.text:
                break
        self.assertEqual(found, [f"n{number:03}" for number in range(2 * MAX_ROWS)])
        self.assertEqual(self.ada.get("/bad-hosts?after=nonsense").status, 400)

    def test_only_what_is_shown(self) -> None:
        """No page has a picture of everything made: with thousands of hosts each would take the director's time."""
        picture, asked = self.admin.director.picture, []

        def noted(*names: str | None) -> DirectorPicture:
            asked.append(names[:1])
            return picture(*names)

        self.admin.director.picture = noted  # type: ignore[method-assign]
        for path in paths():
            asked.clear()
            self.assertEqual(self.ada.get(path).status, 200)
            self.assertFalse({(), (None,)} & set(asked), path)

    def test_find(self) -> None:
        """A large group's page finds hosts by a part of their name or address, in any case, pages of what was found too."""
        for number in range(1000):
            ref = HostRef("web", "blue", f"n{number:03}")
            self.admin.director.hosts[ref] = host_picture(ref, address=f"10.0.{number // 100}.{number % 100}:80")
        here = "/services/web/groups/blue"

        def found(query: str) -> list[str]:
            return re.findall(r'<th scope="row"><a href="[^"]*/hosts/([^"]+)"', self.ada.page(here + query).source)

        self.assertEqual(found("?find=N12"), [f"n12{digit}" for digit in range(10)])
        self.assertEqual(found("?find=%20n500%20"), ["n500"])
        self.assertEqual(found("?find=10.0.3."), [f"n{number}" for number in range(300, 400)])
        self.assertEqual(found("?find=nowhere"), [])
        self.assertEqual(len(found("?find=")), MAX_ROWS)
        page = self.ada.page(f"{here}?find=n&page=2")
        self.assertIn("1000 of 1002 hosts", page.text)
        self.assertIn('href="/services/web/groups/blue?page=3&amp;find=n"', page.source)
        self.assertIn('data-scope="web/blue#2?n"', page.source)
        odd = self.ada.get(f"{here}?find=%22%3E%3Cscript%3E{'x' * 5000}")
        self.assertEqual((odd.status, b"<script>x" in odd.body), (200, False))

    def test_find_only_where_there_are_many(self) -> None:
        """A page of a few hosts has no field to find them by."""
        self.assertNotIn("data-find", self.ada.page("/services/web/groups/blue").source)

    def test_modes(self) -> None:
        """What an operator must not overlook is a notice on top."""
        self.admin.director.available = False
        self.assertIn("The store does not answer", self.ada.page("/").text)


class WaitingTests(PageCase):
    def test_let_in(self) -> None:
        """Hosts that wait for approval are told on the overview, and let in on their group's page."""
        whole = self.admin.director.whole
        waiting = WaitingPicture(name="app7", address="10.0.0.7:80", agent="agent7", since=86400.0)

        def with_waiting() -> DirectorPicture:
            picture = whole()
            service = picture.services[0]
            group = msgspec.structs.replace(service.groups[0], waiting=(waiting,))
            service = msgspec.structs.replace(service, groups=(group, *service.groups[1:]))
            return msgspec.structs.replace(picture, services=(service, *picture.services[1:]))

        self.patch(self.admin.director, "whole", with_waiting)
        self.assertIn("1 host waits for approval to join web/blue", self.ada.page("/").text)
        page = self.ada.page("/services/web/groups/blue")
        for said in ("app7", "10.0.0.7:80", "agent7", "1970-01-02 00:00:00"):
            self.assertIn(said, page.text)
        self.assertEqual(page.forms["/do/approve"]["host"], "app7")
        self.assertNotIn("/do/approve", self.bob.page("/services/web/groups/blue").forms)


class HostTests(PageCase):
    def test_why(self) -> None:
        """State, since when, why, last and next check, orders by whom, history."""
        self.admin.director.hosts[APP1] = host_picture(
            APP1, state=HostState.DOWN, since=1940.0, why="3 probes failed", in_rotation=False, why_not="3 probes failed",
            orders=(OrderPicture(by="agent", state=AdminState.DRAIN, who="agent7", why="deploy", at=1500.0),),
            check=CheckPicture(at=1995.0, ok=False, detail="refused", duration_s=0.002, next_at=2010.0),
            history=(TransitionPicture(at=1940.0, before=HostState.SUSPECT, after=HostState.DOWN, why="3 probes failed"),),
        )
        page = self.ada.page(HOST)
        for said in ("1 min ago", "3 probes failed", "failed 5 s ago, took 2 ms: refused", "in 10 s", "by agent agent7",
                     "deploy", "1970-01-01 00:32:20"):
            self.assertIn(said, page.text)

    def test_other_directors(self) -> None:
        """What others see of the host, and whose word decides."""
        seen = SeenPicture(director="two", state=HostState.DOWN, why="no answer", since=1940.0, blind=True)
        self.admin.director.hosts[APP1] = host_picture(APP1, overruled="two reaches it", seen_by_others=(seen,))
        page = self.ada.page(HOST)
        for said in ("two reaches it", "Seen by two", "out of touch", "no answer"):
            self.assertIn(said, page.text)

    def test_not_there(self) -> None:
        """What does not exist is a page that says so, with 404."""
        for path in ("/services/gopher", "/services/web/groups/red", f"{HOST}x", "/nothing", "/services//groups/",
                     "/services/%FF", "/services/web/groups/blue/hosts/..%2f..", "/static/x", "/do/order", "/sign-out",
                     "/favicon.ico", "/index.php"):
            self.assertEqual(self.ada.get(path).status, 404, path)


class ClusterTests(PageCase):
    def test_alone(self) -> None:
        """With a store of its own a director says that there are no others."""
        page = self.ada.page("/cluster")
        self.assertIn("keeps its state in a store of its own", page.text)
        self.assertNotIn("Members", page.text)

    def test_together(self) -> None:
        """Members, leader and term, virtual addresses, links, and hosts that are seen differently."""
        cluster = ClusterPicture(
            cluster="prod", director="one", store="etcd:", store_available=True, cold_start=False, leader="two", term=7,
            members=tuple(
                MemberPicture(name=name, version="0.1.0", started=1000.0, boot_id="b", peers=None, agents=(),
                              admin=(f"https://{name}.example:7401",), roles=("balance", "manage"), leads=name == "two")
                for name in ("one", "two")
            ),
            vips=(VipPicture(address="192.0.2.80/24", owner="two", since=1500.0, term=7),),
            disagreements=(DisagreementPicture(host="web/blue/app1", views={"two": "down"}),),
        )
        picture = msgspec.structs.replace(
            self.admin.director.picture(), leader="two", cold_start=True, store="etcd:http://e:2379",
            peers=(PeerPicture(name="two", address="192.0.2.2:7947", connected=False, heard_s=12.0),),
        )
        self.patch(self.admin.director, "picture", lambda *names: picture)
        self.patch(self.admin.director, "cluster", lambda: cluster)
        page = self.ada.page("/cluster")
        self.assertEqual(page.unclosed, [])
        for said in ("Members of prod", "two leads", "one (this one)", "https://two.example:7401", "term 7", "192.0.2.80/24",
                     "web/blue/app1: two sees down", "not connected", "12 s", "Started without the store"):
            self.assertIn(said, page.text)


    def test_store_away(self) -> None:
        """While the store is away this director's own part is told as it is; everything else is marked as last known."""
        member = MemberPicture(name="two", version="0.1.0", started=1000.0, boot_id="b", peers=None, agents=(), admin=(),
                               roles=("balance", "manage"), leads=False)
        cluster = ClusterPicture(
            cluster="prod", director="one", store="etcd:", store_available=False, cold_start=False, leader=None, term=7,
            members=(member,), last_known=True,
            vips=(VipPicture(address="192.0.2.80/24", owner=None, since=1500.0, term=7),
                  VipPicture(address="192.0.2.81/24", owner="two", since=1500.0, term=7)),
        )
        picture = msgspec.structs.replace(self.admin.director.picture(), store_available=False, leader=None,
                                          store="etcd:http://e:2379")
        self.patch(self.admin.director, "picture", lambda *names: picture)
        self.patch(self.admin.director, "cluster", lambda: cluster)
        page = self.ada.page("/cluster")
        for said in ("Members of prod last known", "not this director", "192.0.2.80/24given up by this director",
                     "192.0.2.81/24two last known", "Views that disagree last known"):
            self.assertIn(said, page.text)
        self.assertNotIn("leads", page.text)


class UsersTests(PageCase):
    def test_users(self) -> None:
        """Who may call, what, and where that is kept; only what the store keeps can be deleted here, and no password
        comes back to a form that was refused."""
        page = self.ada.page("/users")
        self.assertIn("ada (you) look and change", page.text)
        self.assertNotIn("argon2", page.source)
        answer = self.ada.send(page, "/do/put_user", user="eve", password="short", role="full")
        shown = Html(answer.body)
        self.assertEqual((answer.status, shown.forms["/do/put_user"]["user"]), (400, "eve"))
        self.assertEqual(shown.forms["/do/put_user"]["password"], "")
        self.assertNotIn("short", shown.source)


class PastTests(PageCase):
    def test_audit(self) -> None:
        """Who, from where, at which director, what with which arguments, and what became of it; as text, whatever it is."""
        entry = AuditEntry(at=86400.0, who="ada", origin="192.0.2.9", director="two", operation="put_host", outcome="ok",
                           arguments={"host": "app3", "why": HOSTILE, "weight": 2.5})
        refused = msgspec.structs.replace(entry, who=HOSTILE, outcome=f"Conflict: {HOSTILE}", director="one")
        self.patch(self.admin.director, "audit", lambda limit: (refused, entry))
        page = self.ada.page("/audit")
        self.assertEqual(page.unclosed, [])
        self.assertEqual([given for tag, given in page.tags if tag == "script" and "src" not in given], [])
        for said in ("1970-01-02 00:00:00", "192.0.2.9 at two", "put host", "host app3", "weight 2.5", f"why {HOSTILE}",
                     f"Conflict: {HOSTILE}", "done", "refused"):
            self.assertIn(said, page.text)

    def test_history(self) -> None:
        """What the store remembers, of everything or of one host."""
        past = PastPicture(revision=41, at=86400.0, key="/txdirector/x", what=f"app1 went down {HOSTILE}", value=None)
        asked: list[object] = []

        def history(ref: object, limit: int) -> Deferred[tuple[PastPicture, ...]]:
            asked.append(ref)
            return succeed((past, msgspec.structs.replace(past, at=None)))

        self.patch(self.admin.director, "history", history)
        for path in ("/history", f"{HOST}/history"):
            page = self.ada.page(path)
            for said in ("1970-01-02 00:00:00", f"app1 went down {HOSTILE}", "/txdirector/x", "41", "not known"):
                self.assertIn(said, page.text)
        self.assertEqual(asked, [None, APP1])


class ExplainTests(PageCase):
    def test_answer(self) -> None:
        """Steps and candidates, with the chosen one marked."""
        page = self.ada.page("/explain?client=192.0.2.7&service=web")
        self.assertIn("192.0.2.7 would get app1", page.text)
        self.assertIn("the access list lets the client in", page.text)
        self.assertIn("chosen", page.text)
        self.assertIn("weight 1: configured 1 × capacity 1", page.text)
        self.assertIn("capacity 1: no report has come", page.text)

    def test_nonsense(self) -> None:
        """A client that is no address, or a service that is not there, is told on the form, which keeps what was typed."""
        for query, said in (("client=me&service=web", "'me' is not an IP address"),
                            ("client=192.0.2.7&service=gopher", "no service is called 'gopher'")):
            answer = self.ada.get(f"/explain?{query}")
            page = Html(answer.body)
            self.assertIn(answer.status, (400, 404))
            self.assertIn(said, page.text)
            self.assertEqual(page.forms["/explain"]["client"], query[7:].partition("&")[0])
