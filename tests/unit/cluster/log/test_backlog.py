"""`cluster.log.backlog`: lines in order, whole, bounded; what is dropped is told where it is missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.log.backlog import MAX_LINE, Backlog

ROOM = 100


def told(count: int) -> bytes:
    return b"-%d\n" % count


class BacklogTests(SynchronousTestCase):
    def test_head(self) -> None:
        """As many whole lines as there is room for; of a longer one a piece, then the next piece alone."""
        backlog = Backlog(told)
        for line in (b"ab\n", b"cd\n", b"efghijkl\n", b"m\n"):
            backlog.add(line)
        self.assertEqual([backlog.head(most) for most in (1, 2, 3, 5, 6, 99)],
                         [b"a", b"ab", b"ab\n", b"ab\n", b"ab\ncd\n", b"ab\ncd\nefghijkl\nm\n"])
        backlog.wrote(8)
        self.assertEqual([backlog.head(most) for most in (3, 7, 8, 9)], [b"ghi", b"ghijkl\n", b"ghijkl\n", b"ghijkl\nm\n"])
        backlog.begin_anew()
        self.assertEqual((backlog.head(99), backlog.size), (b"efghijkl\nm\n", 11))

    def test_dropped(self) -> None:
        """Once full it drops until half is free again, then it tells how many, before the next line."""
        backlog = Backlog(told, max_bytes=10)
        for number in range(8):
            backlog.add(b"%d\n" % number)
        backlog.wrote(2)
        backlog.add(b"x\n")
        self.assertEqual((backlog.head(99), backlog.dropped), (b"1\n2\n3\n4\n", 4))
        backlog.wrote(4)
        backlog.add(b"y\n")
        self.assertEqual(backlog.head(99), b"3\n4\n-4\ny\n")

    def test_long_line(self) -> None:
        """A line that nothing could hold is cut."""
        backlog = Backlog(told)
        backlog.add(b"x" * (2 * MAX_LINE) + b"\n")
        found = backlog.head(3 * MAX_LINE)
        self.assertEqual((len(found), found[-9:]), (MAX_LINE, b" ... cut\n"))

    @given(st.lists(st.one_of(
        st.integers(1, 40),  # add a line of that length
        st.tuples(st.integers(1, 60), st.floats(0, 1)),  # write a part of that many bytes
        st.none(),  # the target is another one
    ), max_size=200))
    def test_stream(self, steps: list[int | tuple[int, float] | None]) -> None:
        """Whatever the target takes, when and how much: the lines are whole and in order, each was written or counted,
        and no more waits than is allowed."""
        backlog = Backlog(told, max_bytes=ROOM)
        targets, added = [b""], 0

        def write(most: int, part: float) -> None:
            data = backlog.head(most)
            taken = data[: round(part * len(data))]
            targets[-1] += taken
            backlog.wrote(len(taken))

        for step in steps:
            if step is None:
                targets.append(b"")
                backlog.begin_anew()
            elif isinstance(step, tuple):
                write(*step)
            else:
                added += 1
                backlog.add(b"%d".ljust(step, b".") % added + b"\n")
            self.assertLessEqual(backlog.size, ROOM + len(told(added)))
        while backlog.head(1):
            write(50, 1.0)
        self.assertEqual(backlog.size, 0)
        lines = b"".join(each[: each.rfind(b"\n") + 1] for each in targets).decode().splitlines()
        expected, dropped = 1, 0
        for line in lines:
            if line.startswith("-"):
                expected += int(line[1:])
                dropped += int(line[1:])
            else:
                self.assertEqual(int(line.rstrip(".")), expected)
                expected += 1
        self.assertEqual((expected - 1, dropped), (added, backlog.dropped))
