"""What tables keep whole where there is little room."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from director.ctl import tables

MEMBER: dict[str, Any] = {
    "name": "director-amsterdam-1", "leads": True, "version": "0.1.0", "started": 0.0, "admin": ["127.0.0.1:7401"],
    "agents": ["10.10.20.30:7946"], "peers": "10.10.20.30:7947", "roles": ["balance", "manage"],
}
HOST: dict[str, Any] = {
    "service": "storefront", "group": "blue", "name": "application-17", "address": "10.10.20.30:8080", "state": "suspect",
    "admin": "drain", "weight": 1.25, "in_flight": 4711, "max_connections": 5000, "report": {"utilisation": 0.5},
    "heartbeat_age_s": 0.3, "why_not": "drained by ada: new kernel", "share": 0.25, "rate": 1234.5, "turnaround_s": 0.0123,
}


def shown(table: Any, width: int = 80) -> str:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


class NarrowTests(SynchronousTestCase):
    def test_names_stay_whole(self) -> None:
        """On 80 columns no director's and no host's name is cut; what there is no room for is left out or folds."""
        self.assertNotIn("NO LINK", shown(tables.members_table([MEMBER | {"linked": True}, MEMBER | {"linked": None}])))
        self.assertIn("NO LINK", shown(tables.members_table([MEMBER | {"linked": False}])))
        self.assertIn(MEMBER["name"], shown(tables.members_table([MEMBER, MEMBER | {"name": "b", "leads": False}])))
        self.assertIn("storefront/blue/application-17", shown(tables.hosts_table([HOST], width=80)))
        self.assertIn(" 25% ", shown(tables.hosts_table([HOST], width=80)))

    def test_answers(self) -> None:
        """Where there is room: how many a second and how long each took, as far as is known."""
        self.assertIn("1,234/s 12.3 ms", shown(tables.hosts_table([HOST], width=200), 200))
        self.assertIn(" 7.0/s ", shown(tables.hosts_table([HOST | {"rate": 7.0, "turnaround_s": None}], width=200), 200))
        self.assertNotIn("/s", shown(tables.hosts_table([HOST | {"rate": None}], width=200), 200))

    def test_nothing_is_lost(self) -> None:
        """What folds is all there."""
        text = shown(tables.members_table([MEMBER])).replace("\n", " ")
        self.assertNotIn("…", text)


class ExplainTests(SynchronousTestCase):
    def explanation(self, group: str | None) -> dict[str, Any]:
        candidate = {"group": "blue", "host": "a", "eligible": True, "why_not": "", "weight": 0.5, "share": 0.256,
                     "factors": {"in_flight": 3, "load": 8.0}, "words": ["weight 0.5: configured 1 × capacity 0.5"]}
        other = candidate | {"host": "b", "share": 0.0, "factors": {}, "why_not": "ejected [for now]", "words": []}
        return {"group": group, "host": "a", "candidates": [candidate, other, other | {"host": "c", "share": 0.012}]}

    def test_candidates(self) -> None:
        """Share, weight, connections and score of each on 80 columns; a share that is none is a dash."""
        lines = [line.split() for line in shown(tables.candidates_table(self.explanation("blue"))).splitlines()]
        self.assertIn(["host", "share", "weight", "open", "score", "why", "not"], lines)
        self.assertIn([">", "a", "26%", "0.5", "3", "8"], lines)
        self.assertIn(["b", "-", "0.5", "-", "-", "ejected", "[for", "now]"], lines)
        self.assertIn("0.01%", shown(tables.hosts_table([HOST | {"share": 0.0001}], width=80)))
        self.assertIn(["c", "1.2%", "0.5", "-", "-", "ejected", "[for", "now]"], lines)

    def test_words(self) -> None:
        """Under each host's name, with its group where several take turns."""
        self.assertEqual(list(tables.candidate_lines(self.explanation("blue")))[:2],
                         ["a:", "  weight 0.5: configured 1 × capacity 0.5"])
        self.assertEqual(next(iter(tables.candidate_lines(self.explanation(None)))), "blue/a:")


class SplitTests(SynchronousTestCase):
    def group(self, name: str, share: float, **more: Any) -> dict[str, Any]:
        return {"name": name, "enabled": name == "blue", "share": share, "scheduler": "leastconns", "available": 1,
                "hosts": [{}, {}], "failing_open": False, "backups_in_use": False, **more}

    def table(self, *groups: dict[str, Any]) -> str:
        service = {"name": "web", "listen": ["0.0.0.0:80"], "groups": groups, "connections": 0, "queued": 0}
        return shown(tables.services_table({"services": [service]}), 200)

    def test_services(self) -> None:
        """Each group that has clients, with its share; what is wrong with one, by its name."""
        self.assertIn(" blue 95 %, green 5 %   leastconns   1/2 1/2 ",
                      self.table(self.group("blue", 0.95), self.group("green", 0.05), self.group("grey", 0.0)))
        self.assertIn(" blue 0 %, green ", self.table(self.group("blue", 0.0), self.group("green", 1.0)))
        text = self.table(self.group("blue", 0.5, backups_in_use=True),
                          self.group("green", 0.5, available=0, scheduler="p2c", failing_open=True))
        for words in ("blue on backups", "green FAILING OPEN", "green HAS NO HOST", "leastconns p2c"):
            self.assertIn(words, text)
        self.assertIn(" blue    leastconns ", self.table(self.group("blue", 1.0), self.group("green", 0.0)))
        self.assertIn("0/0", self.table())


class StoreAwayTests(SynchronousTestCase):
    CLUSTER: ClassVar[dict[str, Any]] = {
        "cluster": "prod", "director": "one", "store": "etcd:", "store_available": True, "store_writable": True,
        "cold_start": False, "leader": "two", "term": 7, "leads": False, "last_known": False, "problems": [],
    }
    VIP: ClassVar[dict[str, Any]] = {"address": "192.0.2.80", "owner": "two", "since": 0.0, "term": 7}

    def test_leader(self) -> None:
        """While the store is away a director says for itself that it does not lead, and who led as last known."""
        self.assertIn("two leads, term 7", tables.cluster_line(self.CLUSTER))
        away = {**self.CLUSTER, "store_available": False, "store_writable": False, "last_known": True}
        self.assertIn("one does not lead; last known: two leads, term 7", tables.cluster_line(away))
        line = tables.cluster_line({**away, "leader": None})
        self.assertIn("one does not lead; STORE UNAVAILABLE", line)
        self.assertNotIn("leads", line)

    def test_addresses(self) -> None:
        """An address of another's is as last known, one of its own as it is."""
        away = {**self.CLUSTER, "last_known": True}
        self.assertNotIn("last known", tables.vip_line(self.VIP, self.CLUSTER))
        self.assertIn("(last known)", tables.vip_line(self.VIP, away))
        self.assertEqual(tables.vip_line({**self.VIP, "owner": None}, away), "192.0.2.80 is not at one any more")
        self.assertNotIn("last known", tables.vip_line({**self.VIP, "owner": "one"}, away))

    def test_vips(self) -> None:
        """Who has each, who may, and where it is pinned; nobody, if so."""
        rows = [{**self.VIP, "able": ["one", "two"], "pinned": None, "moves": 0},
                {**self.VIP, "address": "192.0.2.81", "owner": None, "since": 9.0, "able": [], "pinned": "one", "moves": 0}]
        console = tables.console()
        with console.capture() as shown:
            console.print(tables.vips_table(rows))
        lines = [line.split() for line in shown.get().splitlines() if line.startswith(" 192.")]
        self.assertEqual(lines[0], ["192.0.2.80", "two", "-", "7", "one", "two", "-"])
        self.assertEqual((lines[1][:2], lines[1][-2:]), (["192.0.2.81", "-"], ["-", "one"]))

    def test_no_room(self) -> None:
        """A store that takes no changes is told with what there is to do."""
        line = tables.cluster_line({**self.CLUSTER, "store_writable": False, "problems": ["etcd is out of space"]})
        self.assertIn("STORE TAKES NO CHANGES; etcd is out of space", line)
