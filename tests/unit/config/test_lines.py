"""`director.config.lines`: the line of every key, however it is written."""

from __future__ import annotations

import tomllib

import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.validate import join
from director.config.lines import Lines

DOCUMENT = (
    r'''# a comment = "not a key"
top = 1
[node]  # another
name = "x # not a comment"
agents.listen = ["a", # a comment ] "
  "b"]
admin = { users = { alice = { role = "full" } }, refresh_s = 5.0 }
[services.web]
text = """
fake = 1
[fake.table]
\"""" # closed
raw = \
'''.replace("raw = \\\n", "raw = '''\nfake = 2\n'''''\n")
    + r"""
"quoted \"key\".with.dots" = 2000-01-01 10:00:00
'literal key' = -1.5e3
[[list]]
a = 1
[[list]]
a = 2
[list.sub]
b = 3
[ "spaced" . key ]
c = [[1, 2], {d = 4}]
"""
)


def places(data: object, place: str = "") -> list[str]:
    """Every place of a parsed document."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [each for key, item in items for each in (join(place, key), *places(item, join(place, key)))]


class LinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        tomllib.loads(DOCUMENT)
        self.lines = Lines(DOCUMENT)

    def line_text(self, place: str) -> str:
        line = self.lines.line(place)
        assert line is not None, place
        return DOCUMENT.splitlines()[line - 1]

    def test_every_form(self) -> None:
        """Tables, dotted and quoted keys, inline tables, arrays and arrays of tables each give their own line."""
        for place, text in [
            ("top", "top = 1"),
            ("node", "[node]"),
            ("node.name", "name = "),
            ("node.agents", "agents.listen"),
            ("node.agents.listen[1]", '"b"]'),
            ("node.admin.users.alice.role", "admin = "),
            ("services", "[services.web]"),
            ("services.web.raw", "raw = "),
            (join("services.web", 'quoted "key".with.dots'), '"quoted'),
            (join("services.web", "literal key"), "'literal"),
            ("list", "[[list]]"),
            ("list[0].a", "a = 1"),
            ("list[1].a", "a = 2"),
            ("list[1].sub.b", "b = 3"),
            ("spaced.key.c[1].d", "c = "),
        ]:
            self.assertIn(text, self.line_text(place), place)

    def test_nearest(self) -> None:
        """What is missing is located at what should have contained it; what nothing contains has no line."""
        self.assertIn("[services.web]", self.line_text("services.web.groups.blue"))
        self.assertIn("a = 2", self.line_text(join("list[1].a", "dotted.name")))
        self.assertIsNone(self.lines.line("other.thing"))
        self.assertIsNone(self.lines.line(""))

    def test_no_fakes(self) -> None:
        """Text inside strings and comments is no key."""
        self.assertIsNone(self.lines.line("fake"))
        self.assertEqual(self.lines.line("services.web.fake"), self.lines.line("services.web"))

    def test_windows_line_ends(self) -> None:
        """CRLF ends one line, not two."""
        self.assertEqual(Lines("a = 1\r\n\r\nb = 2\r\n").line("b"), 3)

    @settings(max_examples=60)
    @given(
        st.recursive(
            st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=8), st.datetimes()),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=12,
        ).filter(lambda value: isinstance(value, dict))
    )
    def test_any_document(self, data: dict[str, object]) -> None:
        """Every place of any document has a line of its own, on which its key stands."""
        text = tomli_w.dumps(data, multiline_strings=True)
        lines = Lines(text)
        self.assertEqual(set(lines._lines), set(places(tomllib.loads(text))))
