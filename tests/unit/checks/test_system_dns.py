"""The machine's own files about names."""

from __future__ import annotations

import errno
import os
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from cluster.shortage import OutOfResources
from director.checks.system_dns import MAX_NDOTS, HostsFile, ResolvConf, Server, WatchedFile, parse_hosts, parse_resolv_conf


class ResolvConfTests(SynchronousTestCase):
    def test_parsed(self) -> None:
        """Servers, search domains and ndots; what is not understood is ignored."""
        parsed = parse_resolv_conf(
            "# comment\nnameserver 192.0.2.1\nnameserver 2001:db8::1 # x\nnameserver dns.example\n"
            "domain a.example\nsearch b.example. c.example\noptions edns0 ndots:2 timeout:1\nsortlist\nnameserver\n")
        servers = Server("192.0.2.1"), Server("2001:db8::1")
        self.assertEqual(parsed, ResolvConf(servers, ("b.example", "c.example"), 2))

    def test_defaults_and_limits(self) -> None:
        """An empty file means a server on this machine; more than three servers are not asked."""
        self.assertEqual(parse_resolv_conf(""), ResolvConf((Server("127.0.0.1"),)))
        self.assertEqual(len(parse_resolv_conf("nameserver 192.0.2.1\n" * 5).servers), 3)
        self.assertEqual(parse_resolv_conf("options ndots:99 ndots:x").ndots, MAX_NDOTS)

    def test_candidates(self) -> None:
        """Short names try the search domains first, others last; a trailing dot forbids them."""
        conf = ResolvConf((), ("a.example", "b.example"))
        for name, candidates in (("app", ["app.a.example", "app.b.example", "app"]),
                                 ("app.x", ["app.x", "app.x.a.example", "app.x.b.example"]), ("app.", ["app"])):
            self.assertEqual(list(conf.candidates(name)), candidates)


class HostsTests(SynchronousTestCase):
    def test_parsed(self) -> None:
        """Names of any case and several addresses each; what is not understood is ignored."""
        self.assertEqual(
            parse_hosts("192.0.2.1 A b # c\n192.0.2.1 a\n2001:db8::1\ta\n\nnonsense d\n192.0.2.9\n"),
            {"a": ("192.0.2.1", "2001:db8::1"), "b": ("192.0.2.1",)})

    def test_localhost_can_be_overruled(self) -> None:
        """The file's ``localhost`` goes before the built-in one."""
        path = self.mktemp()
        self.assertEqual(HostsFile(path).addresses("LocalHost."), ("127.0.0.1", "::1"))
        with open(path, "w") as file:
            file.write("127.0.0.2 localhost")
        self.assertEqual(HostsFile(path).addresses("localhost"), ("127.0.0.2",))


class WatchedFileTests(SynchronousTestCase):
    def test_follows_the_file(self) -> None:
        """Parsed once for each version of the file, replaced and missing ones included."""
        path, parsed = self.mktemp(), []

        def parse(text: str) -> str:
            parsed.append(text)
            return text

        watched = WatchedFile(path, parse)
        self.assertEqual(watched.value(), "")
        with open(path, "w") as file:
            file.write("one")
        self.assertEqual([watched.value(), watched.value()], ["one", "one"])
        with open(path + ".new", "w") as file:
            file.write("two")
        os.rename(path + ".new", path)
        self.assertEqual(watched.value(), "two")
        os.unlink(path)
        self.assertEqual(watched.value(), "")
        self.assertEqual([text for text in parsed if text], ["one", "two"])

    def test_no_descriptor_to_read_it_with(self) -> None:
        """A file that could not be opened is not an empty one."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("one")
        watched = WatchedFile(path, str)
        with mock.patch("builtins.open", side_effect=OSError(errno.EMFILE, "Too many open files")):
            self.assertRaises(OutOfResources, watched.value)
        self.assertEqual(watched.value(), "one")
