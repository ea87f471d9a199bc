"""Style, script and icons: caching, types, and that everything is ours."""

from __future__ import annotations

import re
from importlib.resources import files

from twisted.trial.unittest import SynchronousTestCase

from director.admin.ui.static import load
from tests.unit.admin.small_director import Admin
from tests.unit.admin.visit import Visitor

UI = files("director.admin.ui")


class StaticTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.admin = Admin()
        self.visitor = Visitor(self.admin)
        page = self.visitor.page("/sign-in")
        self.urls = sorted({given.get("href", given.get("src", "")) for tag, given in page.tags if tag in ("link", "script")})

    def test_kept_for_good(self) -> None:
        """What pages refer to needs no sign-in, may be kept for good, and is asked for by its content's name."""
        self.assertEqual(len(self.urls), 3)
        for url in self.urls:
            answer = self.visitor.get(url)
            self.assertEqual(answer.status, 200)
            self.assertIn("immutable", answer.headers["Cache-Control"])
            self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
            self.assertGreater(len(answer.body), 100)

    def test_etag(self) -> None:
        """Asked again with the tag, the answer is 304 without a body."""
        tag = self.visitor.get(self.urls[0]).headers["ETag"]
        answer = self.visitor.get(self.urls[0], If_None_Match=tag)
        self.assertEqual((answer.status, answer.body, answer.headers["ETag"]), (304, b"", tag))
        self.assertEqual(self.visitor.get(self.urls[0], If_None_Match='"other"').status, 200)

    def test_another_version(self) -> None:
        """Under the path of another version it is served, as a restart between page and style would need, but not kept."""
        url = re.sub(r"/static/\w+/", "/static/0123/", self.urls[0])
        self.assertEqual(self.visitor.get(url).headers["Cache-Control"], "public, no-cache")

    def test_nothing_else(self) -> None:
        """There are the known files and no way to others."""
        base = self.urls[0].rpartition("/")[0]
        for name in ("", "nothing.css", "../templates/base.html", "..%2ftemplates%2fbase.html", "%2e%2e/__init__.py",
                     "style.css/x", "%00", "%FF"):
            self.assertEqual(self.visitor.get(f"{base}/{name}").status, 404, name)
        self.assertEqual(self.visitor.post(self.urls[0], {}).status, 405)

    def test_types(self) -> None:
        """Each kind of file has its type, and style refers only to files that are there."""
        assets = load()
        self.assertEqual({asset.type.partition(";")[0] for asset in assets.values()},
                         {"text/css", "text/javascript", "image/svg+xml"})
        named = set(re.findall(r"url\(([^)]+)\)", assets["style.css"].body.decode()))
        self.assertLessEqual(named, set(assets))
        self.assertGreater(len(named), 5)

    def test_nothing_from_elsewhere(self) -> None:
        """No template and no file asks anybody else for anything."""
        for folder in ("templates", "static"):
            for file in UI.joinpath(folder).iterdir():
                source = file.read_text().replace("http://www.w3.org/2000/svg", "")
                self.assertNotRegex(source, r"https?://|@import|url\([\"']?//", file.name)

    def test_every_mark_has_an_icon(self) -> None:
        """Every mark that templates and cells use is drawn."""
        style = load()["style.css"].body.decode()
        sources = [file.read_text() for file in UI.joinpath("templates").iterdir()]
        marks = set(re.findall(r'data-mark="(\w+)"|pill\("(\w+)"', "".join(sources)))
        for mark in {"up", "suspect", "down", "drain", "idle"} | {first or second for first, second in marks}:
            self.assertIn(f"[data-mark={mark}] {{ --icon:", style, mark)
