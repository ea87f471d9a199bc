"""The configuration is changed through the control interface while clients are served."""

from __future__ import annotations

import os
import socket
from typing import Any

from cluster.model import HostRef
from cluster.store import Put
from director.admin.control import Caller, Role
from director.config.files import parse
from director.engine.errors import Conflict, Invalid, NotFound, Stale, Wrong
from director.service import DirectorService
from tests.integration.kit import DirectorTestCase, service, until

ADA = Caller("ada", Role.FULL, "test")


class ConfiguringCase(DirectorTestCase):
    async def start(self, **more: Any) -> DirectorService:
        """A director whose service ``web`` has the groups ``main`` (backend one) and ``other`` (backend two)."""
        self.one, self.two = await self.backend("one"), await self.backend("two")
        data = service({"one": self.one.address}, **more)
        data["services"]["web"]["groups"]["other"] = {"hosts": {"two": self.two.address}}
        self.running = await self.director(data)
        return self.running

    async def do(self, name: str, **arguments: object) -> Any:
        return await self.running.control.call(ADA, name, arguments)

    async def refused(self, kind: type[Exception], name: str, **arguments: object) -> str:
        before = await self.do("config_running")
        with self.assertRaises(kind) as caught:
            await self.do(name, **arguments)
        self.assertEqual(await self.do("config_running"), before)
        return str(caught.exception)


class ServiceTests(ConfiguringCase):
    async def test_new_service_serves_at_once(self) -> None:
        """A service made at run time listens when its maker is answered, and is gone when it is deleted."""
        director = await self.start()
        spec = {"listen": ["127.0.0.1:0"], "groups": {"only": {"hosts": {"two": self.two.address}}}}
        await self.do("new_service", service="more", spec=spec)
        self.assertEqual(await self.served_by(director, "more"), "two")
        self.assertIn("already", await self.refused(Conflict, "new_service", service="more", spec=spec))
        await self.do("del_service", service="more")
        self.assertEqual(director.node.listeners.addresses("more"), ())
        await self.refused(NotFound, "del_service", service="more")

    async def test_an_address_that_cannot_be_had(self) -> None:
        """An address that is taken is the caller's answer, and nothing of the service is left, not even its other
        addresses."""
        await self.start()
        with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as probe:
            free = probe.getsockname()[1]
            probe.close()
            spec = {"listen": [f"127.0.0.1:{free}", f"127.0.0.1:{taken.getsockname()[1]}"]}
            self.assertIn("cannot listen", await self.refused(Conflict, "new_service", service="more", spec=spec))
            socket.create_server(("127.0.0.1", free)).close()
        self.assertNotIn("more", self.running.node.frontends)

    async def test_listeners_follow(self) -> None:
        """A changed service listens where it says now, and no more where it did; a wildcard makes room for one of its
        own addresses."""
        director = await self.start()
        stored = await self.do("spec", service="web")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        for listen in (f"0.0.0.0:{port}", f"127.0.0.1:{port}"):
            data = {"listen": [listen], "groups": {"main": {"hosts": {"one": self.one.address}}}}
            changed = await self.do("put_service", service="web", spec=data, revision=stored.revision)
            self.assertEqual(director.node.listeners.addresses("web"), (listen,))
            stored = await self.do("spec", service="web")
            self.assertEqual(stored.revision, changed.revision)

    async def test_same_rules_as_the_file(self) -> None:
        """Every error of a document is told with its place, and an address that something else has is refused."""
        await self.start()
        bad = {"listen": ["nowhere"], "groups": {"g": {"scheduler": "magic", "hosts": {"h": "1.2.3.4:x"}}}}
        told = await self.refused(Wrong, "put_service", service="web", spec=bad)
        for place in ("services.web.listen[0]", "services.web.groups.g.scheduler",
                      "services.web.groups.g.hosts.h.address"):
            self.assertIn(place, told)
        self.assertIn("services.web.colour", await self.refused(Wrong, "put_service", service="web",
                                                                spec={"colour": "red"}))
        twice = {"listen": ["127.0.0.1:1", "127.0.0.1:1"]}
        self.assertIn("services.web.listen[1]", await self.refused(Wrong, "put_service", service="web", spec=twice))
        huge = {"groups": {"g": {"hosts": {f"h{number}": f"unix:/{'x' * 90}" for number in range(9_000)}}}}
        self.assertIn("bytes", await self.refused(Invalid, "new_service", service="huge", spec=huge))

    async def test_revisions(self) -> None:
        """A change made for another revision, or for no service, is refused."""
        await self.start()
        stored = await self.do("spec", service="web")
        await self.do("put_host", service="web", group="main", host="one", address=self.one.address, weight=3)
        for revision in (stored.revision, 0, 10**9):
            await self.refused(Stale, "put_service", service="web", spec={}, revision=revision)
            await self.refused(Stale, "del_host", service="web", group="main", host="one", revision=revision)
        await self.refused(Stale, "put_service", service="gone", spec={}, revision=7)

    async def test_a_racing_change_is_not_lost(self) -> None:
        """Two hosts added at once are both there: each change is made again on what the other left."""
        await self.start()
        where = {"service": "web", "group": "other"}
        both = [self.running.control.call(ADA, "put_host", {**where, "host": name, "address": "127.0.0.1:9"})
                for name in ("three", "four")]
        for each in both:
            await each
        spec = (await self.do("spec", service="web")).spec
        self.assertEqual(set(spec.groups["other"].hosts), {"two", "three", "four"})

    async def test_unreadable_record(self) -> None:
        """A record that nobody can read is not overwritten by a change."""
        await self.start()
        await self.running.store.commit([Put(self.running.keys.service("odd"), b"{")])
        with self.assertRaises(Conflict):
            await self.do("put_service", service="odd", spec={})
        self.assertNotIn("odd", await self.do("config_running"))
        self.assertTrue(self.flushLoggedErrors() == [])

    async def test_toml_goes_back_in(self) -> None:
        """The running configuration as TOML is a file that means the same."""
        await self.start()
        text = await self.do("config_running", format="toml")
        self.assertEqual(parse(text.body).services["web"], (await self.do("spec", service="web")).spec)


class GroupTests(ConfiguringCase):
    async def test_enable_leaves_connections_alone(self) -> None:
        """Enabling another group moves new clients only; open connections go on, and are counted where they are until
        they end."""
        director = await self.start()
        old = await self.client(director)
        await until(lambda: old.received == b"one\n")
        await self.do("enable_group", service="web", group="other")
        self.assertEqual(await self.served_by(director), "two")
        old.send(b"still here")
        await until(lambda: old.received == b"one\nSTILL HERE")

        def counted() -> tuple[int, int, int]:
            picture = director.operations.picture().services[0]
            by_name = {group.name: group.in_flight for group in picture.groups}
            return picture.connections, by_name["main"], by_name["other"]

        await until(lambda: counted() == (1, 1, 0))
        new = await self.client(director)
        await until(lambda: counted() == (2, 1, 1))
        await self.do("enable_group", service="web", group="main")
        self.assertEqual(counted(), (2, 1, 1))
        old.close()
        await until(lambda: counted() == (1, 0, 1))
        new.close()
        await until(lambda: counted() == (0, 0, 0))

    async def test_new_group_waits(self) -> None:
        """A new group is not enabled; the enabled one can be neither deleted nor emptied."""
        director = await self.start()
        web = {"service": "web"}
        await self.do("new_group", **web, group="third", spec={"hosts": {"two": self.two.address}})
        await self.refused(Conflict, "new_group", **web, group="third")
        self.assertEqual(await self.served_by(director), "one")
        self.assertIn("enabled", await self.refused(Conflict, "del_group", **web, group="main"))
        await self.refused(Conflict, "del_all_hosts", **web, group="main")
        await self.refused(NotFound, "enable_group", **web, group="fourth")
        await self.do("enable_group", **web, group="third")
        self.assertEqual(await self.served_by(director), "two")
        await self.do("del_all_hosts", **web, group="main")
        await self.do("del_group", **web, group="main")
        self.assertEqual({group.name for group in await self.do("groups", **web)}, {"other", "third"})

    async def test_change_scheduler(self) -> None:
        """A scheduler is changed with its parameters while connections are open; a bad one is refused by its place."""
        director = await self.start()
        where = {"service": "web", "group": "main"}
        client = await self.client(director)
        await until(lambda: client.received == b"one\n")
        await self.do("change_scheduler", **where, scheduler="p2c", parameters={"choices": 3})
        group = await self.do("group", **where)
        self.assertEqual((group.scheduler, group.in_flight), ("p2c", 1))
        self.assertEqual(await self.served_by(director), "one")
        told = await self.refused(Wrong, "change_scheduler", **where, scheduler="p2c", parameters={"choices": 0})
        self.assertIn("services.web.groups.main.parameters.choices", told)


class HostTests(ConfiguringCase):
    async def test_hosts_come_and_go(self) -> None:
        """A host added is used by the next client, a host deleted by none, and its open connections go on."""
        director = await self.start()
        where = {"service": "web", "group": "main"}
        client = await self.client(director)
        await until(lambda: client.received == b"one\n")
        await self.do("put_host", **where, host="two", address=self.two.address)
        await self.do("del_host", **where, host="one")
        self.assertEqual(await self.served_by(director), "two")
        client.send(b"x")
        await until(lambda: client.received == b"one\nX")
        await self.refused(NotFound, "del_host", **where, host="one")

    async def test_registered_host(self) -> None:
        """A host that joined through its agent is deleted by dropping its registration."""
        director = await self.start()
        ref = HostRef("web", "other", "guest")
        record = (b'{"host":{"address":"127.0.0.1:9"},"agent":"a","boot_id":"b","at":1.0,"approved":true}')
        await director.store.commit([Put(director.keys.registered(ref), record)])
        await until(lambda: ref in director.node.inventory.hosts)
        await self.do("del_host", **ref._asdict())
        self.assertNotIn(ref, director.node.inventory.hosts)


class PersistenceTests(ConfiguringCase):
    async def test_survives_a_restart(self) -> None:
        """What was made, changed and deleted at run time is so after a restart with the same file."""
        self.one = await self.backend("one")
        data = service({"one": self.one.address})
        data["services"]["mail"] = {"listen": ["127.0.0.1:0"]}
        data["node"] = {"store": f"file:{os.path.abspath(self.mktemp())}"}
        self.running = await self.director(data)
        await self.do("new_service", service="more", spec={"listen": ["127.0.0.1:0"]})
        await self.do("put_host", service="web", group="main", host="late", address="127.0.0.1:9", backup=True)
        await self.do("del_service", service="mail")
        before = {name: stored.spec for name, stored in (await self.do("config_running")).items()}
        self.assertEqual(set(before), {"web", "more"})
        await self.running.stopService()
        self.running = await self.director(data)
        after = {name: stored.spec for name, stored in (await self.do("config_running")).items()}
        self.assertEqual(after, before)


class DeletedServiceTests(ConfiguringCase):
    async def test_who_waits_is_closed_and_who_is_served_goes_on(self) -> None:
        """A client in the queue of a service that is deleted is closed at once; one that has a host keeps it."""
        director = await self.start(limits={"max_connections": 1, "queue": 5, "queue_timeout_s": 60})
        served = await self.client(director)
        await until(lambda: served.received == b"one\n")
        waiting = await self.client(director)
        await until(lambda: director.node.inventory.services["web"].admission.queued == 1)
        await self.do("del_service", service="web")
        await until(lambda: waiting.lost is not None, "the end of who waited")
        served.send(b"still here")
        await until(lambda: served.received == b"one\nSTILL HERE")

    async def test_a_stop_waits_for_them(self) -> None:
        """A director that stops gives connections of a deleted service their time as well."""
        director = await self.start()
        served = await self.client(director)
        await until(lambda: served.received == b"one\n")
        await self.do("del_service", service="web")
        stopped = director.stopService()
        served.send(b"last words")
        await until(lambda: served.received == b"one\nLAST WORDS")
        served.close()
        await stopped


class TraceTests(ConfiguringCase):
    """What is left of a host that is deleted."""

    async def test_the_same_again_is_no_change(self) -> None:
        """A change to what is there already writes nothing: the revision stays, and nobody is disturbed."""
        await self.start()
        before = await self.do("spec", service="web")
        again = await self.do("put_host", service="web", group="main", host="one", address=self.one.address)
        self.assertEqual(again.revision, before.revision)
        self.assertEqual(await self.do("spec", service="web"), before)
        turned = dict(reversed(list(before.spec.groups.items())))  # the first group is the enabled one
        groups = {name: {"hosts": {host: each.address for host, each in group.hosts.items()}}
                  for name, group in turned.items()}
        changed = await self.do("put_service", service="web", spec={"listen": list(before.spec.listen), "groups": groups})
        self.assertGreater(changed.revision, before.revision)

    async def test_a_host_of_the_same_name_begins_without_orders(self) -> None:
        """An order about a host is gone with the host, however it was removed."""
        director = await self.start()
        host = {"service": "web", "group": "other", "host": "three"}
        removals = (("del_host", host), ("del_all_hosts", {"service": "web", "group": "other"}),
                    ("del_group", {"service": "web", "group": "other"}))
        for operation, arguments in removals:
            await self.do("put_host", **host, address=self.two.address)
            await self.do("order", **host, state="down", why="broken disk")
            await self.do(operation, **arguments)
            self.assertEqual((await director.store.list(director.keys.orders())).records, (), operation)
        await self.do("new_group", service="web", group="other")
        await self.do("put_host", **host, address=self.two.address)
        self.assertEqual((await self.do("host", **host)).orders, ())

    async def test_a_hidden_registration_goes_with_its_host(self) -> None:
        """A configured host that is deleted is gone, though an agent had registered one of that name."""
        director = await self.start()
        ref = HostRef("web", "main", "one")
        record = b'{"host":{"address":"127.0.0.1:9"},"agent":"a","boot_id":"b","at":1.0,"approved":true}'
        await director.store.commit([Put(director.keys.registered(ref), record)])
        await until(lambda: director.node.inventory.registered(ref) is not None)
        await self.do("del_host", **ref._asdict())
        await until(lambda: ref not in director.node.inventory.hosts)
        self.assertIsNone(await director.store.get(director.keys.registered(ref)))

    async def test_registrations_of_a_group_go_with_it(self) -> None:
        """A group that is made again under its name is empty."""
        director = await self.start()
        for number in range(150):  # more than one transaction holds
            record = b'{"host":{"address":"127.0.0.1:9"},"agent":"a","boot_id":"b","at":1.0,"approved":true}'
            await director.store.commit([Put(director.keys.registered(HostRef("web", "other", f"g{number}")), record)])
        await until(lambda: len(director.node.inventory.registrations()) == 150)
        await self.do("del_group", service="web", group="other")
        await until(lambda: not director.node.inventory.registrations())
        await self.do("new_group", service="web", group="other")
        self.assertEqual((await self.do("group", service="web", group="other")).hosts, ())
