"""The key layout."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import Misuse
from cluster.keys import (
    AddressKeys,
    AdminKey,
    AuditKey,
    BootKey,
    CapsKey,
    DirectorKey,
    Keys,
    LeaderBeatKey,
    LeaderKey,
    LoadKey,
    ObservedKey,
    Place,
    PlacementKey,
    RegisteredKey,
    ReignBeatKey,
    ReignKey,
    ServiceKey,
    UserKey,
    VipKey,
)
from cluster.model import HostRef
from cluster.store import MAX_KEY_BYTES

names = st.from_regex(r"[A-Za-z0-9._-]{1,63}", fullmatch=True)
refs = st.builds(HostRef, names, names, names)
places: st.SearchStrategy[Place] = st.one_of(
    st.builds(ServiceKey, names), st.builds(BootKey, names), st.builds(RegisteredKey, refs),
    st.builds(AdminKey, refs, st.sampled_from(["operator", "agent"])), st.builds(ObservedKey, names, refs),
    st.builds(LoadKey, names), st.builds(DirectorKey, names), st.just(LeaderKey()), st.just(LeaderBeatKey()),
    *(st.builds(kind, st.ip_addresses().map(str)) for kind in (VipKey, ReignKey, ReignBeatKey, PlacementKey)), st.builds(CapsKey, names), st.builds(UserKey, names),
    st.builds(AuditKey, st.datetimes().map(lambda at: int(at.timestamp() * 1e6))),
)

_BUILD: dict[type, Callable[..., Callable[..., str]]] = {
    ServiceKey: lambda keys: keys.service, BootKey: lambda keys: keys.boot, RegisteredKey: lambda keys: keys.registered,
    AdminKey: lambda keys: keys.admin, ObservedKey: lambda keys: keys.observed, LoadKey: lambda keys: keys.load,
    DirectorKey: lambda keys: keys.director, LeaderKey: lambda keys: keys.leader, LeaderBeatKey: lambda keys: keys.leader_beat, VipKey: lambda keys: keys.vip,
    ReignKey: lambda keys: keys.reign, ReignBeatKey: lambda keys: keys.reign_beat,
    PlacementKey: lambda keys: keys.placement,
    CapsKey: lambda keys: keys.caps, UserKey: lambda keys: keys.user, AuditKey: lambda keys: keys.audit,
}


def build(keys: Keys, place: Place) -> str:
    return _BUILD[type(place)](keys)(*place)


class KeysTests(SynchronousTestCase):
    keys = Keys("main")

    @given(places)
    def test_parse_inverts_build(self, place: Place) -> None:
        """Every place becomes a key and that key the same place, of the same type."""
        key = build(self.keys, place)
        self.assertEqual(self.keys.parse(key), place)
        self.assertIs(type(self.keys.parse(key)), type(place))
        self.assertLessEqual(len(key), MAX_KEY_BYTES)

    @given(places, places)
    def test_one_place_one_key(self, one: Place, other: Place) -> None:
        """Two places share a key only when they are the same."""
        same = (type(one), one) == (type(other), other)
        self.assertEqual(build(self.keys, one) == build(self.keys, other), same)

    @given(st.text(max_size=60) | st.from_regex(r"/txdirector/main/[a-z]{4,10}(/[A-Za-z0-9:._-]{0,9}){0,5}"))
    def test_parse_never_raises(self, text: str) -> None:
        """What parses is exactly what its place builds; all else is None."""
        place = self.keys.parse(text)
        if place is not None:
            self.assertEqual(build(self.keys, place), text)

    def test_no_keys(self) -> None:
        """What looks like a key and is none: too few parts or too many, of another kind, no names, no addresses, no times."""
        for text in (
            "", "nothing", "services", "services/", "services/a/b", "services/a b", "service/a", "boot/a/b", "registered/s/g",
            "registered/s/g/h/i", "registered/s//h", "admin/s/g/h", "admin/s/g/h/else", "admin/s/g/h/agent/x", "observed/d/s/g",
            "observed/d/s/g/h/i", "load/a/b", "directors/a/b", "leader/beats", "leader/beat/x", "caps/a/b", "users/a/b",
            "vips/a", "vips/", "vips/10.0.0.1/24", "vips/10.0.0.01", "vips/10.0.0.1:80", "audit/now",
            "audit/2024-02-31T00:00:00.000000Z", "audit/20240231T000000.000000Z", "audit/2024-02-28T00:00:00.000000Z/x",
        ):
            self.assertIsNone(self.keys.parse(self.keys.root + text), text)
        for key in ("/txdirector/mai/services/a", "txdirector/main/services/a", "/txdirector/main", "/txdirector/mainservices/a"):
            self.assertIsNone(self.keys.parse(key), key)
        impossible = self.keys.audit(0).replace("01", "31", 1).replace("01", "31", 1)
        self.assertIsNone(self.keys.parse(impossible), impossible)

    def test_spelling(self) -> None:
        """Each kind's key as other programs know it."""
        keys, ref = self.keys, HostRef("s", "g", "h")
        self.assertEqual(
            [key.removeprefix("/txdirector/main/") for key in (
                keys.service("s"), keys.boot("s"), keys.registered(ref), keys.admin(ref, "agent"), keys.observed("d", ref), keys.load("d"),
                keys.director("d"), keys.leader(), keys.leader_beat(), keys.vip("10.0.0.1"), keys.caps("s"), keys.user("u"),
                keys.registered_hosts("s"), keys.orders("s", "g"), keys.observations("d"))],
            ["services/s", "boot/s", "registered/s/g/h", "admin/s/g/h/agent", "observed/d/s/g/h", "load/d", "directors/d", "leader",
             "leader/beat", "vips/10.0.0.1", "caps/s", "users/u", "registered/s/", "admin/s/g/", "observed/d/"],
        )
        at = 1_700_000_000_123_456
        self.assertEqual(repr(keys.parse(keys.audit(at))), repr(AuditKey(at)))  # a whole number
        self.assertEqual(keys.parse(keys.audit(-1)), AuditKey(-1))

    @given(names, names)
    def test_prefixes_do_not_meet(self, one: str, other: str) -> None:
        """A key lies under the prefix of its own service and under no other's."""
        for name in (other, one + "x", one):
            key = self.keys.admin(HostRef(name, "g", "h"), "agent")
            self.assertEqual(key.startswith(self.keys.orders(one)), name == one)

    def test_every_prefix_ends_in_a_slash(self) -> None:
        """Prefixes end in a slash and hold their own kind only."""
        keys, ref = self.keys, HostRef("s", "g", "h")
        pairs = [
            (keys.services(), keys.service("s")), (keys.boots(), keys.boot("s")),
            (keys.registered_hosts(), keys.registered(ref)), (keys.registered_hosts("s", "g"), keys.registered(ref)),
            (keys.orders(), keys.admin(ref, "agent")), (keys.orders(*ref), keys.admin(ref, "operator")),
            (keys.observations(), keys.observed("d", ref)), (keys.observations("d"), keys.observed("d", ref)),
            (keys.loads(), keys.load("d")), (keys.directors(), keys.director("d")), (keys.vips(), keys.vip("::1")),
            (keys.all_caps(), keys.caps("s")), (keys.users(), keys.user("u")), (keys.audits(), keys.audit(0)),
        ]
        for prefix, key in pairs:
            self.assertTrue(prefix.endswith("/") and prefix.startswith("/txdirector/main/"), prefix)
            inside = {kind for kind, of_kind in pairs if of_kind.startswith(prefix)}
            self.assertTrue(key.startswith(prefix))
            self.assertEqual(len({kind.split("/")[3] for kind in inside}), 1, prefix)

    def test_clusters_do_not_meet(self) -> None:
        """A key of another cluster is nobody here, even if the name begins the same."""
        self.assertIsNone(self.keys.parse(Keys("main2").service("s")))

    def test_bad_names(self) -> None:
        """What is not a name, an address or an origin is refused before it becomes a key."""
        keys, ref = self.keys, HostRef("s", "g", "h")
        bad: list[Callable[[], object]] = [
            lambda: Keys("a/b"), lambda: keys.service(""), lambda: keys.service("a\n"), lambda: keys.service("a/b"),
            lambda: keys.service("x" * 64), lambda: keys.registered(HostRef("s", "g", "10.0.0.1:80")),
            lambda: keys.admin(ref, "else"), lambda: keys.vip("10.0.0.1:80"),  # type: ignore[arg-type]
            lambda: keys.orders(None, "g"), lambda: keys.audit(10 ** 20),
        ]
        for call in bad:
            self.assertRaises(Misuse, call)

    def test_vips_are_canonical(self) -> None:
        """One address has one key, however it was written."""
        self.assertEqual(self.keys.vip("2001:DB8:0::1"), self.keys.vip("2001:db8::1"))
        self.assertIsNone(self.keys.parse(self.keys.vips() + "2001:DB8::1"))

    @given(st.lists(st.integers(0, 4 * 10 ** 15), min_size=2, max_size=5))
    def test_audit_sorts_by_time(self, times: list[int]) -> None:
        """Audit keys in order are in order of time."""
        self.assertEqual(sorted(map(self.keys.audit, times)), [self.keys.audit(at) for at in sorted(times)])

    @given(st.ip_addresses())
    def test_vip_of_any_address(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        """IPv4 and IPv6 alike, zones too."""
        self.assertEqual(self.keys.parse(self.keys.vip(str(address))), VipKey(str(address)))

    def test_of_one_address(self) -> None:
        """Where each address has an owner of its own, its record and its beat stand for the leader's; nothing else changes."""
        of_one = AddressKeys(self.keys, "2001:DB8::1")
        self.assertEqual((of_one.leader(), of_one.leader_beat()),
                         (self.keys.reign("2001:db8::1"), self.keys.reign_beat("2001:db8::1")))
        self.assertEqual(of_one.service("web"), self.keys.service("web"))
        self.assertRaises(Misuse, AddressKeys, self.keys, "lb1")
        for key in ("reigns/lb1", "reigns/2001:DB8::1", "placements/10.0.0.1/beat", "reigns/10.0.0.1/more", "reigns"):
            self.assertIsNone(self.keys.parse(self.keys.root + key))
