"""`director.config.init.wanted`: answers are read, and bad ones are told with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from director.config.init import wanted
from director.config.init.wanted import Wanted, listening, whole

GOOD: dict[Callable[[str], Any], dict[str, Any]] = {
    wanted.director: {"lb1=10.0.0.1": ("lb1", "10.0.0.1"), "b=fd00::1": ("b", "fd00::1"), "b=[fd00::1]": ("b", "fd00::1"),
                      "lb.1=lb1.example": ("lb.1", "lb1.example")},
    wanted.host: {"app1=10.0.0.9:80": ("app1", Address("10.0.0.9", 80)), "a=[fd00::9]:80": ("a", Address("fd00::9", 80)),
                  "a=app.example:80": ("a", Address("app.example", 80))},
    wanted.vip: {"10.0.0.100/24": "10.0.0.100/24", "fd00::5/64": "fd00::5/64"},
    wanted.endpoint: {"10.0.0.21:2379": "10.0.0.21:2379"},
    wanted.listener: {"0.0.0.0:80": "0.0.0.0:80", "127.0.0.1:0": "127.0.0.1:0"},
}
BAD: dict[Callable[[str], Any], tuple[str, ...]] = {
    wanted.director: ("", "lb1", "lb1=", "=10.0.0.1", "lb1=10.0.0.1:7946", "lb1=0.0.0.0", "lb1=::", "lb1=[fd00::1", "lb1=a b",
                      "..=10.0.0.1", ".=10.0.0.1", "a/b=10.0.0.1", "-a=10.0.0.1", "a.=10.0.0.1", "x" * 64 + "=10.0.0.1",
                      "lb1\n=10.0.0.1", "lb1=10.0.0.1\n", "lb1=unix:/x", "lb1=300.0.0.1"),
    wanted.host: ("", "app1", "app1=10.0.0.9", "app1=unix:/run/app", "app1=0.0.0.0:80", "app1=10.0.0.9:0", "..=10.0.0.9:80"),
    wanted.vip: ("", "10.0.0.100", "10.0.0.100/99", "vip/24"),
    wanted.endpoint: ("", "10.0.0.21", "http://10.0.0.21:2379", "unix:/run/etcd"),
    wanted.listener: ("", "80", "0.0.0.0"),
}


class PieceTests(SynchronousTestCase):
    def test_good(self) -> None:
        for read, texts in GOOD.items():
            for text, expected in texts.items():
                self.assertEqual(read(text), expected)

    def test_bad(self) -> None:
        """One sentence, and nothing else goes wrong."""
        for read, texts in BAD.items():
            for text in texts:
                with self.assertRaises(ValueError, msg=f"{read.__name__} {text!r}") as caught:
                    read(text)
                self.assertNotIn("\n", str(caught.exception))


class WholeTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """What does not go together is told by the option that is missing."""
        two = {"a": "10.0.0.1", "b": "10.0.0.2"}
        for answers, option in ((Wanted({}), "--director"),
                                (Wanted({f"d{n}": f"10.0.1.{n}" for n in range(65)}, etcd=("e:1",)), "at most"), (Wanted(two), "--etcd"),
                                (Wanted({"a": "10.0.0.1"}, vips=("10.0.0.9/24",)), "--interface"),
                                (Wanted({"a": "10.0.0.1"}, interface="eth0"), "--vip"),
                                (Wanted({"a": "10.0.0.1", "b": "10.0.0.1"}, etcd=("e:1",)), "10.0.0.1")):
            with self.assertRaises(ValueError) as caught:
                whole(answers)
            self.assertIn(option, str(caught.exception))
        whole(Wanted(two, etcd=("e:1",), vips=("10.0.0.9/24",), interface="eth0"))

    def test_listening(self) -> None:
        """In the families of the virtual addresses, or of the directors."""
        for answers, expected in (
            (Wanted({"a": "10.0.0.1"}), ("0.0.0.0:8080",)), (Wanted({"a": "fd00::1"}), ("[::]:8080",)),
            (Wanted({"a": "10.0.0.1"}, vips=("fd00::5/64",)), ("[::]:8080",)),
            (Wanted({"a": "10.0.0.1"}, vips=("fd00::5/64", "10.0.0.9/24")), ("0.0.0.0:8080", "[::]:8080")),
            (Wanted({"a": "10.0.0.1"}, listen=("10.0.0.1:80",)), ("10.0.0.1:80",)),
        ):
            self.assertEqual(listening(answers), expected)
