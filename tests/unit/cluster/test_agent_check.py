"""The grammar of agent-check."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.agent_check import (
    MAX_LINE_BYTES,
    MAX_WHY,
    MOST_CONNECTIONS,
    MOST_PERCENT,
    Answer,
    compose,
    first_line,
    parse,
)

ANSWERS = st.builds(
    Answer, st.none() | st.integers(0, MOST_PERCENT), st.none() | st.integers(0, MOST_CONNECTIONS),
    st.sampled_from([None, "ready", "drain", "maint"]), st.sampled_from(["up", "down", "fail", "stopped"]),
    st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20))


class Lines(SynchronousTestCase):
    def test_where_a_line_ends(self) -> None:
        """At the first CR or LF; a line without an end, with a zero byte, or too long is none."""
        for data, line in (
            (b"50%\n", b"50%"), (b"50%\r\n", b"50%"), (b"50%\rup\n", b"50%"), (b"\n", b""), (b"50%\nmaint\n", b"50%"),
            (b"50%", None), (b"", None), (b"50%\0\n", None), (b"x" * MAX_LINE_BYTES + b"\n", None),
            (b"x" * (MAX_LINE_BYTES - 1) + b"\n", b"x" * (MAX_LINE_BYTES - 1)),
        ):
            self.assertEqual(first_line(data), line, data[:20])

    def test_words(self) -> None:
        """Every word, in any case and order, between blanks, tabs and commas; the last of a kind counts."""
        for line, answer in (
            (b"", Answer()),
            (b"75%", Answer(percent=75)),
            (b"0%", Answer(percent=0)),
            (b"007%", Answer(percent=7)),
            (b"99999999999999999999%", Answer(percent=MOST_PERCENT)),
            (b"maxconn:30", Answer(max_connections=30)),
            (b"MaxConn:0", Answer(max_connections=0)),
            (b"maxconn:" + b"9" * 4000, Answer(max_connections=MOST_CONNECTIONS)),
            (b"ready", Answer(admin="ready")), (b"DRAIN", Answer(admin="drain")), (b"Maint", Answer(admin="maint")),
            (b"up", Answer(health="up")), (b"Down", Answer(health="down")), (b"FAIL", Answer(health="fail")),
            (b"stopped", Answer(health="stopped")),
            (b" 50%,,maxconn:7\t up ready", Answer(50, 7, "ready", "up")),
            (b"drain ready up fail 10% 20%", Answer(20, None, "ready", "fail")),
            (b"down # disk full, sorry", Answer(health="down", why="disk full, sorry")),
            (b"fail #up 50%", Answer(health="fail", why="up 50%")),
            (b"drain #why", Answer(admin="drain")),
            (b"#50%", Answer()),
        ):
            self.assertEqual(parse(line), answer, line)

    def test_garbage(self) -> None:
        """A word that is none says nothing; nor does the last of a kind if it is broken. Others count."""
        for line, answer in (
            (b"down#why", Answer(unknown=("down#why",))),
            (b"-5% +5% 5 % 1.5%", Answer(unknown=("-5%", "+5%", "5", "%", "1.5%"))),
            (b"up 5x% maxconn: maxconn:9x", Answer(health="up", unknown=("5x%", "maxconn:", "maxconn:9x"))),
            (b"50% 5x%", Answer(unknown=("5x%",))),
            ("5\N{ARABIC-INDIC DIGIT FIVE}% up".encode(), Answer(health="up", unknown=("5\N{ARABIC-INDIC DIGIT FIVE}%",))),
            (b"\xff up", Answer(health="up", unknown=("\\xff",))),
            (b"HTTP/1.1 400 Bad Request", Answer(unknown=("HTTP/1.1", "400", "Bad", "Request"))),
        ):
            self.assertEqual(parse(line), answer, line)

    @given(st.binary(max_size=60) | st.text("up down#50%,\tmaxconn:ready").map(str.encode))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes, there is an answer, and what it says can be said again."""
        line = first_line(data)
        if line is not None:
            answer = parse(line)
            again = first_line(compose(answer))
            assert again is not None
            self.assertEqual(parse(again)[:4], answer[:4])

    @given(ANSWERS)
    def test_what_is_composed_is_parsed(self, answer: Answer) -> None:
        line = first_line(compose(answer))
        assert line is not None
        self.assertEqual(parse(line)[:5], answer[:5])

    def test_a_description_stays_on_its_line(self) -> None:
        """Its line ends become blanks, and it is cut; without a health word there is none."""
        self.assertEqual(compose(Answer(health="down", why="a\r\nmaint\0")), b"down #a maint \n")
        self.assertEqual(len(compose(Answer(health="down", why="x" * 999))), len("down #\n") + MAX_WHY)
        self.assertEqual(compose(Answer(admin="drain", why="x")), b"drain\n")
        self.assertEqual(compose(Answer()), b"\n")
