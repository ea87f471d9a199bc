"""`cluster.validate`: every error at once, each with its place, in plain words."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import Problem
from cluster.model import AdminState, Moment, Name, Record, Seconds, Sni
from cluster.validate import attempt, convert, did_you_mean, join


class Leaf(Record, frozen=True):
    address: str
    weight: Annotated[float, Meta(ge=0, le=10)] = 1.0
    kind: Literal["tcp", "http"] = "tcp"
    state: AdminState = AdminState.UP
    secret: Annotated[str, Meta(pattern="^x+$")] | None = None


class Root(Record, frozen=True):
    leaves: dict[Name, Leaf] = msgspec.field(default_factory=dict)
    tags: tuple[str, ...] = ()
    inner: Leaf | None = None
    several: tuple[Leaf, ...] = ()
    count: Annotated[int, Meta(ge=1)] = 1
    ratio: Annotated[float, Meta(gt=0)] = 1.0
    values: dict[str, float | int | str | bool] = msgspec.field(default_factory=dict)
    pair: tuple[int, str] = (0, "")
    at: Moment = 0.0
    within: Seconds = 1.0
    few: Annotated[tuple[Leaf, ...], Meta(max_length=2)] = ()


class Only(Record, frozen=True):
    kind: Literal["tcp"] = "tcp"


class Required(Record, frozen=True):
    """What has no default, of each kind."""

    count: Annotated[int, Meta(ge=1)]
    ratio: float
    on: bool
    text: str
    tags: tuple[str, ...]
    leaf: Leaf


class Lenient(msgspec.Struct, frozen=True):
    known: int = 0


def problems(data: object) -> list[Problem]:
    value, found = convert(data, Root, shorthands={Leaf: "address"})
    assert (value is None) == bool(found)
    return found


class ConvertTests(SynchronousTestCase):
    def test_pair(self) -> None:
        """A tuple of a fixed length has a type for each place."""
        self.assertEqual(problems({"pair": [1, "x"]}), [])
        self.assertEqual([each.place for each in problems({"pair": [1, 2]})], ["pair"])

    def test_server_names(self) -> None:
        """A host name, one with a wildcard before it, or all; what else it may be is told in words."""
        good = ["a.example.org", "*.Example.org", "*", "x", "_a-b.1"]
        self.assertEqual(convert({"names": good}, Sni)[1], [])
        for bad in ("", "*.", "a*.org", "*.*.org", "a..b", "a.org.", "-a", "a b", "ä.org", "a/b", "a" * 64, "a.org\n"):
            (problem,) = convert({"names": [*good, bad]}, Sni)[1]
            self.assertEqual(str(problem), "names[5]: expected a host name, *. and a host name, or *, got a string")

    def test_bounded_array(self) -> None:
        """What is wrong within an array of bounded length has its own place."""
        self.assertEqual(problems({"few": [{"address": "a"}]}), [])
        self.assertEqual([each.place for each in problems({"few": [{"address": "a"}, {"address": "a", "weight": 11}]})],
                         ["few[1].weight"])

    def test_durations(self) -> None:
        """More than nothing, and at most thirty years, which a timer can hold."""
        for within in (0.001, 1e9):
            self.assertEqual(problems({"within": within}), [], within)
        for within in (0, -1, 1e9 + 1):
            self.assertEqual([each.place for each in problems({"within": within})], ["within"], within)

    def test_moments(self) -> None:
        """From 1970 to the end of the year 9999."""
        end = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC).timestamp()
        for at in (0, end):
            self.assertEqual(problems({"at": at}), [], at)
        for at in (-1, end + 1):
            self.assertEqual([each.place for each in problems({"at": at})], ["at"], at)

    def test_valid(self) -> None:
        """Valid data becomes the record, nested structs, tables and arrays included."""
        data = {
            "leaves": {"a": {"address": "x", "weight": 2, "state": "drain"}},
            "tags": ["t"],
            "inner": None,
            "several": [{"address": "y"}],
            "values": {"d": 3, "on": True},
        }
        value, found = convert(data, Root)
        self.assertEqual(found, [])
        self.assertEqual(
            value,
            Root(
                leaves={"a": Leaf(address="x", weight=2.0, state=AdminState.DRAIN)},
                tags=("t",),
                several=(Leaf(address="y"),),
                values={"d": 3, "on": True},
            ),
        )

    def test_every_error_at_once(self) -> None:
        """Errors in different branches are all reported, in the order of the document."""
        found = problems({"leaves": {"a": {"weight": "2"}, "b c": {"address": 1}}, "tags": [1], "count": 0, "nope": 1})
        self.assertEqual(
            [problem.place for problem in found],
            ["leaves.a.weight", "leaves.a.address", 'leaves."b c"', 'leaves."b c".address', "tags[0]", "count", "nope"],
        )

    def test_words(self) -> None:
        """Each kind of error is told in plain words."""
        cases: list[tuple[object, str, str]] = [
            ({"count": "x"}, "expected a whole number of at least 1, got a string", ""),
            ({"count": "3"}, "expected a whole number of at least 1, got a string", "write it without quotes"),
            ({"count": 1.5}, "expected a whole number of at least 1, got 1.5", ""),
            ({"count": True}, "expected a whole number of at least 1, got true", ""),
            ({"ratio": 0}, "expected a number above 0, got 0", ""),
            ({"ratio": float("inf")}, "expected a finite number, got inf", ""),
            ({"ratio": float("nan")}, "expected a number above 0, got nan", ""),
            ({"tags": "x"}, "expected an array, got a string", "write it in square brackets"),
            ({"leaves": []}, "expected a table, got an array", ""),
            ({"inner": 5}, "expected a table, got 5", ""),
            ({"inner": {"address": datetime.date(2000, 1, 1)}}, "expected a string, got a date", ""),
            ({"inner": {"address": "a", "weight": 11}}, "expected a number from 0 to 10, got 11", ""),
            (
                {"inner": {"address": "a", "kind": "htp"}},
                'expected one of "http", "tcp", got "htp"',
                "did you mean http?",
            ),
            ({"inner": {"address": "a", "kind": "größe"}}, 'expected one of "http", "tcp", got "größe"', ""),
            ({"inner": {"address": "a", "state": "gone"}}, 'expected one of "up", "drain", "down", got "gone"', ""),
            (
                {"values": {"v": [1]}},
                "expected a number or a whole number or a string or true or false, got an array",
                "",
            ),
            (
                {"leaves": {"a\n": "x"}},
                "expected a name: 1 to 63 letters, digits, dots, underscores or hyphens, got a string",
                "",
            ),
            ([], "expected a table, got an array", ""),
        ]
        for data, message, hint in cases:
            self.assertEqual([(problem.message, problem.hint) for problem in problems(data)], [(message, hint)], data)

    def test_one_choice(self) -> None:
        """Where one word alone may be, that is what is expected, and not one of several."""
        (problem,) = convert({"kind": "udp"}, Only)[1]
        self.assertEqual(problem.message, 'expected "tcp", got "udp"')

    def test_blanks(self) -> None:
        """What is missing or wrong and has no default is blank, so that the rest can be looked at."""
        blank = Required(count=0, ratio=0, on=False, text="", tags=(), leaf=Leaf(address=""))
        for data, wrong in (({}, 6), ({"count": "x", "ratio": "x", "on": 1, "text": 1, "tags": 1, "leaf": 1}, 6)):
            value, found = attempt(data, Required)
            self.assertEqual((value, len(found)), (blank, wrong))

    def test_secrets_stay_unsaid(self) -> None:
        """The text of a string that breaks a pattern is not repeated: it may be a password."""
        self.assertNotIn("hunter2", str(problems({"inner": {"address": "a", "secret": "hunter2"}})))

    def test_unknown_key(self) -> None:
        """An unknown key is an error that points to the nearest known one, else to all that are left."""
        found = problems({"inner": {"address": "x", "wieght": 1, "zzz": 2}})
        self.assertEqual(
            [problem.hint for problem in found], ["did you mean weight?", "known: kind, secret, state, weight"]
        )

    def test_lenient(self) -> None:
        """A struct that allows unknown keys ignores them."""
        self.assertEqual(convert({"known": 1, "more": 2}, Lenient), (Lenient(known=1), []))

    def test_shorthand(self) -> None:
        """A bare string stands for the struct's shorthand field, only where a shorthand is given."""
        value, _ = convert({"inner": "a:1"}, Root, shorthands={Leaf: "address"})
        self.assertEqual(value, Root(inner=Leaf(address="a:1")))
        self.assertEqual(convert({"inner": "a:1"}, Root)[1], [Problem("inner", "expected a table, got a string")])

    def test_place(self) -> None:
        """Places continue the one that was given."""
        self.assertEqual(convert({}, Leaf, "services.web")[1], [Problem("services.web.address", "missing")])


class PlaceTests(SynchronousTestCase):
    def test_join(self) -> None:
        """Places are TOML keys: quoted where TOML wants quotes, with indices for items."""
        self.assertEqual(join(join(join("", "a"), "app.example"), 0), 'a."app.example"[0]')
        self.assertEqual(join("", "münchen"), '"münchen"')

    def test_did_you_mean(self) -> None:
        """Without a near word the hint lists all, or says nothing when told so."""
        self.assertEqual(did_you_mean("qq", ["b", "a"]), "known: a, b")
        self.assertEqual(did_you_mean("qq", ["b", "a"], or_all=False), "")
        self.assertEqual(did_you_mean("qq", []), "")

    def test_problem_text(self) -> None:
        """A problem prints its file, line, place, message and hint, as far as it has them."""
        self.assertEqual(str(Problem("a.b", "bad", "fix it", 3, "f.toml")), "f.toml:3: a.b: bad (fix it)")
        self.assertEqual(str(Problem("", "bad", file="f.toml")), "f.toml: bad")
        self.assertEqual(str(Problem("a.b", "bad")), "a.b: bad")
