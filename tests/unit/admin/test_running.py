"""``running.txt``, read by the grammar of its own documentation. No sockets."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import AdminState, HostRef
from director.admin.running import running_text
from tests.unit.admin.ebnf import grammar
from tests.unit.admin.small_director import Admin, SmallDirector, host_picture

RULES = grammar(Path(__file__).parents[3] / "docs/reference/running.txt.md")
APP1 = HostRef("web", "blue", "app1")


def is_running_text(text: str) -> bool:
    return re.fullmatch(RULES["running"], text) is not None


class TextTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.director = SmallDirector()

    def test_lines(self) -> None:
        """Services, groups and hosts as the ancestor wrote them; who takes no connection is disabled, with the reason."""
        self.director.order(APP1, AdminState.DOWN, who="ada", why="")
        text = running_text(self.director.picture().services)
        self.assertEqual(text, (
            "service web 127.0.0.1:8000 blue\n"
            "group blue enabled\n"
            "host app2 127.0.0.1:8001 0 -\n"
            "disabled app1 127.0.0.1:8001 ordered down -\n"
            "service mail 127.0.0.1:8000 all\n"
            "group all enabled\n"
            "host mx 127.0.0.1:8001 0 -\n"
        ))
        self.assertTrue(is_running_text(text))

    def test_split(self) -> None:
        """A group with a share of the clients is enabled, too, and so is one that stands in for the others."""
        picture = self.director.picture()
        [blue] = picture.services[0].groups
        groups = tuple(msgspec.structs.replace(blue, name=name, enabled=enabled, share=share, hosts=()) for name, enabled, share
                       in (("blue", True, 0.0), ("green", False, 1.0), ("grey", False, 0.0)))
        service = msgspec.structs.replace(picture.services[0], groups=groups)
        text = running_text([service])
        self.assertEqual(text.splitlines()[1:], ["group blue enabled", "group green enabled", "group grey inactive"])

    def test_grammar_refuses(self) -> None:
        """The grammar of the documentation is no formality: it refuses what is not the page."""
        for text in ("group blue enabled\n", "service web 127.0.0.1:1 blue", "service web  blue\n",
                     "service web 127.0.0.1:1 blue\nhost a b 0 -\n", "service web a b\ngroup g enabled\nhost a b c -\n",
                     "service web a b\ngroup g on\n", "service web a b\ngroup g enabled\ndisabled a b  -\n"):
            self.assertFalse(is_running_text(text), text)

    @given(st.text(), st.text(min_size=1), st.integers(min_value=0), st.booleans())
    def test_whatever_is_written_there(self, why: str, path: str, open_now: int, rotation: bool) -> None:
        """Reasons and paths of any characters neither break a line nor make one."""
        director = SmallDirector()
        director.hosts[APP1] = host_picture(
            APP1, why_not=why, address=f"unix:/{path}", in_flight=open_now, in_rotation=rotation
        )
        picture = director.picture()
        service = msgspec.structs.replace(picture.services[0], listen=(f"unix:/{path}", "[::1]:80"), enabled=None)
        text = running_text([service])
        self.assertTrue(is_running_text(text), text)
        self.assertEqual(text.count("\n"), 4)


class PageTests(SynchronousTestCase):
    def test_who_may_read(self) -> None:
        """Every user reads it, strangers do not, and nobody writes."""
        admin = Admin()
        answer = admin.ask("GET", "/running.txt?verbose=1", user="bob:looking")
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "text/plain; charset=utf-8"))
        self.assertEqual(answer.body.decode(), running_text(admin.director.picture().services))
        self.assertEqual(admin.ask("GET", "/running.txt", user=None).status, 401)
        self.assertEqual(admin.ask("POST", "/running.txt").status, 405)

    def test_pages(self) -> None:
        """It is read in pages of services by their names; each is such a text, and together they say everything."""
        admin = Admin()
        found: list[str] = []
        after = ""
        while text := admin.ask("GET", f"/running.txt?limit=1&after={after}").body.decode():
            self.assertTrue(is_running_text(text), text)
            found.append(text)
            self.assertLessEqual(len(found), 2)
            after = text.split()[1]
        self.assertEqual(found, [running_text([each]) for each in sorted(admin.director.picture().services,
                                                                        key=lambda each: each.name)])
        for odd in ("limit=0", "limit=101", "limit=x", f"after={'x' * 301}"):
            self.assertEqual(admin.ask("GET", f"/running.txt?{odd}").status, 400, odd)
