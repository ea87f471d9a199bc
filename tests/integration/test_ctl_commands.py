"""``directorctl``, command by command, against a whole director."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tomllib

from argon2 import PasswordHasher

from cluster.model import AdminState, HostRef, Order
from director.config.files import parse
from tests.integration.ctl_kit import CtlTestCase
from tests.integration.kit import closed_port, service, until
from tests.unit.config.test_legacy_xml import PYTHON_DIRECTOR


class StructureTests(CtlTestCase):
    async def test_service_from_nothing(self) -> None:
        """A service, groups and hosts are made, changed, enabled and deleted one by one, and serve meanwhile."""
        site = await self.backend("a")
        await self.start({})
        await self.ok("service", "new", "web", "--listen", "127.0.0.1:0")
        await self.ok("group", "new", "web/blue", "--scheduler", "p2c", "--set", "choices=3")
        await self.ok("host", "new", "web/blue/a", site.address, "--weight", "2", "--max-connections", "10")
        self.assertEqual(await self.served_by(self.running), "a")
        await self.ok("group", "new", "web/green")
        await self.ok("host", "new", "web/green/b", "127.0.0.1:9", "--backup")
        await self.ok("group", "scheduler", "web/green", "maglev", "--set", "table_size=257")
        await self.ok("group", "enable", "web/green")
        spec = parse(await self.ok("export")).services["web"]
        self.assertEqual(spec.enabled_group, "green")
        self.assertEqual((spec.groups["blue"].parameters, spec.groups["green"].parameters),
                         ({"choices": 3}, {"table_size": 257}))
        self.assertEqual((spec.groups["blue"].hosts["a"].weight, spec.groups["green"].hosts["b"].backup), (2.0, True))
        await self.ok("group", "empty", "web/blue", "--yes")
        await self.ok("host", "del", "web/green/b", "--yes")
        await self.ok("group", "del", "web/blue", "--yes")
        self.assertEqual(list(parse(await self.ok("export")).services["web"].groups), ["green"])
        self.assertIn("revision", await self.json("service", "del", "web", "--yes"))
        self.assertEqual(self.running.node.frontends, {})

    async def test_refusals(self) -> None:
        """What the director refuses is one line and exit code 1; what is not there 5; wrong usage 2."""
        await self.start(service({"a": "127.0.0.1:9"}))
        for words, code, told in (
            (("group", "del", "web/main", "--yes"), 1, "is the enabled group"),
            (("group", "empty", "web/main", "--yes"), 1, "is the enabled group"),
            (("service", "new", "web"), 1, "already"),
            (("group", "scheduler", "web/main", "psychic"), 1, "psychic"),
            (("host", "del", "web/main/ghost", "--yes"), 5, "no host is called 'ghost'"),
            (("group", "enable", "web/ghost"), 5, "no group is called 'ghost'"),
            (("group", "enable", "web"), 2, "SERVICE/GROUP"),
            (("group", "new", "web/x", "--set", "choices"), 2, "KEY=VALUE"),
            (("service", "del", "web"), 2, "give --yes"),
            (("group", "del", "web/main"), 2, "give --yes"),
            (("host", "del", "web/main/a"), 2, "give --yes"),
            (("weight", "web/main/a", "nan"), 2, "not a finite number"),
            (("weight", "web/main/a", "-1"), 2, "not in the range"),
            (("drain", "web/main/a", "--wait", "--timeout", "nan"), 2, "not a finite number"),
            (("drain", "web/main/a", "--deadline", "inf"), 2, "not a finite number"),
            (("top", "--interval", "0"), 2, "0"),
            (("users", "add", "ann", "--role", "full"), 2, "--from-file"),
            (("--user", "ann", "status"), 0, ""),
        ):
            done = await self.ctl(*words)
            self.assertEqual(done.returncode, code, (words, done.stderr))
            self.assertIn(told, done.stderr)


class ReachingTests(CtlTestCase):
    """What an operator who mistyped something is told to look at."""

    async def test_wrong_doors(self) -> None:
        """A client's port, https where http is spoken, a file without certificates: one line, with a hint."""
        site = await self.backend("a")
        running = await self.start(service({"a": site.address}))
        clients = running.node.listeners.addresses("web")[0]
        for words, code, told in (
            (("--url", f"http://{clients}", "status"), 3, "admin endpoint"),
            (("--url", self.url.replace("http:", "https:"), "status"), 3, "http"),
            (("--ca", self.write("no certificate", "key.pem"), "--url", "https://127.0.0.1:1", "status"), 2, "--ca"),
        ):
            done = await self.ctl(*words)
            self.assertEqual(done.returncode, code, (words, done.stderr))
            self.assertIn(told, done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    async def test_wrong_password(self) -> None:
        """Who gave a name is told that it or the password is wrong, not that one is needed."""
        users = {"ann": {"password": PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right"), "role": "full"}}
        await self.start({"node": {"admin": {"users": users}}})
        self.environment["TXDIRECTOR_PASSWORD"] = "wrong"
        done = await self.ctl("--user", "ann", "status")
        self.assertEqual(done.returncode, 4)
        self.assertIn("is wrong", done.stderr)

    async def test_poor_terminal(self) -> None:
        """An encoding without the tables' lines gets other characters, not a traceback."""
        running = await self.start(service({"a": "127.0.0.1:9"}))
        order = Order(state=AdminState.DRAIN, who="ada", why="Pr\u00fcfung", at=0.0)
        running.node.set_order(HostRef("web", "main", "a"), "operator", order)
        self.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
        shown = await self.ok("hosts")
        self.assertIn("web/main/a", shown)
        self.assertIn("Pr?fung", shown)

    async def test_version(self) -> None:
        await self.start({})
        self.assertIn("directorctl", await self.ok("--version"))


class LookingTests(CtlTestCase):
    async def test_connections(self) -> None:
        """A client is listed with its host and bytes, and can be cut."""
        site = await self.backend("a")
        await self.start(service({"a": site.address}))
        client = await self.client(self.running)
        await until(lambda: client.received.endswith(b"\n"), "the banner")
        local = client.transport.getHost()  # type: ignore[union-attr]
        name = f"127.0.0.1:{local.port}"
        self.assertIn(name, await self.ok("connections", "web"))
        (listed,) = (await self.json("connections", "web"))["connections"]
        self.assertEqual((listed["client"], listed["host"], listed["to_client"]), (name, "a", len(client.received)))
        self.assertIn("cut: 1", await self.ok("cut", "web", name))
        await until(lambda: client.lost, "being cut")
        self.assertEqual((await self.ctl("cut", "web", name)).returncode, 5)

    async def test_bad(self) -> None:
        """A host that went down is told with the reason, now and in the past."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
        health = {"fall": 1, "interval_s": 0.05, "suspect_interval_s": 0.05, "suspect_after_s": 0.1, "timeout_s": 0.2}
        await self.start(service({"a": address}, group={"health": health}))
        host = self.running.node.inventory.hosts[HostRef("web", "main", "a")]
        await until(lambda: host.health.state.value == "down", "the host down")
        told = await self.ok("bad")
        self.assertIn("web/main/a", told)
        self.assertIn("refused", told)
        found = await self.json("bad")
        self.assertEqual([each["name"] for each in found["current"]], ["a"])
        self.assertEqual(found["historic"][0]["host"], "a")

    async def test_audit(self) -> None:
        """Who changed what, and what was refused, is in the audit."""
        await self.start(service({"a": "127.0.0.1:9"}))
        await self.ok("weight", "web/main/a", "3")
        await self.ctl("group", "del", "web/main", "--yes")
        refused, done = await self.json("audit")
        self.assertEqual((done["operation"], done["outcome"], done["arguments"]["weight"]), ("weight", "ok", 3.0))
        self.assertEqual(refused["operation"], "del_group")
        self.assertIn("enabled group", refused["outcome"])
        self.assertIn("enabled group", await self.ok("audit", "--limit", "1"))

    async def test_together(self) -> None:
        """The cluster of one, and what its store remembers of a host."""
        await self.start(service({"a": "127.0.0.1:9"}))
        self.assertEqual((await self.json("cluster"))["director"], "director")
        self.assertIn("as director sees it", await self.ok("cluster"))
        await self.ok("drain", "web/main/a", "--why", "new [kernel]")
        self.assertIn("new [kernel]", await self.ok("hosts"))
        past = await self.json("history", "web/main/a")
        self.assertIn("drain", past[0]["what"])
        self.assertIn("drain", await self.ok("history"))

    async def test_config(self) -> None:
        """The director's own file is shown as TOML and as JSON, its secrets struck out; `config running` is export."""
        data = service({"a": "127.0.0.1:9"})
        data["node"] = {"name": "lb1", "admin": {"refresh_s": 9}}
        data["node"]["agents"] = {"identities": {"x": {"hosts": ["*/*/*"], "token_sha256": "0" * 64}}}
        await self.start(data)
        boot = tomllib.loads(await self.ok("config", "boot"))
        self.assertEqual((boot["node"]["name"], boot["node"]["admin"]["refresh_s"]), ("lb1", 9.0))
        self.assertEqual(json.loads(await self.ok("config", "boot", "--format", "json")), boot)
        self.assertNotIn("0" * 64, json.dumps(boot))
        self.assertEqual(await self.ok("config", "running"), await self.ok("export"))


class UserTests(CtlTestCase):
    async def test_users(self) -> None:
        """Users are added, changed and deleted, and are in and out at once; a password comes from a file."""
        secret = "correct horse"
        boss = {"password": PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(secret), "role": "full"}
        await self.start({"node": {"admin": {"users": {"boss": boss}}}})
        self.environment |= {"TXDIRECTOR_USER": "boss", "TXDIRECTOR_PASSWORD": secret}
        password = self.write("battery staple\n", "password")
        added = await self.json("users", "add", "ann", "--role", "readonly", "--from-file", password)
        self.assertIn({"name": "ann", "role": "readonly", "source": "store"}, added)
        ann = ("--user", "ann", "--password-file", password)
        self.assertEqual((await self.ctl(*ann, "status")).returncode, 0)
        self.assertEqual((await self.ctl(*ann, "service", "new", "web")).returncode, 4)
        self.assertIn("full", await self.ok("users", "role", "ann", "full"))
        self.assertEqual((await self.ctl(*ann, "service", "new", "web")).returncode, 0)
        self.assertNotIn("ann", await self.ok("users", "del", "ann", "--yes"))
        self.assertEqual((await self.ctl(*ann, "status")).returncode, 4)
        self.assertEqual([each["name"] for each in await self.json("users", "list")], ["boss"])
        self.assertNotIn("battery", await self.ok("audit"))


class ProcessTests(CtlTestCase):
    async def test_within_another_program(self) -> None:
        """A director inside another program refuses what concerns the process."""
        await self.start({})
        for words in (("reopen-logs",), ("reload",), ("shutdown", "--yes")):
            done = await self.ctl(*words)
            self.assertEqual((done.returncode, "another program" in done.stderr), (1, True), done.stderr)
        self.assertEqual((await self.ctl("shutdown")).returncode, 2)

    async def test_own_process(self) -> None:
        """A director's log is reopened after a move, its file read again, and the process stopped."""
        port, log = closed_port(), self.directory / "log"
        text = f'node.admin.endpoints = [{{ listen = "127.0.0.1:{port}" }}]\nnode.log.target = "{log}"\n'
        file, self.url = self.write(text), f"http://127.0.0.1:{port}"
        process = subprocess.Popen([sys.executable, "-m", "director", "run", file])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        await until(lambda: log.exists() and "ready" in log.read_text(), "the director")
        log.rename(self.directory / "log.1")
        self.assertEqual(await self.ok("reopen-logs"), f"logging to {log}\n")
        self.assertTrue(log.exists())
        self.assertEqual(await self.ok("reload"), "nothing differs\n")
        self.write(text + 'node.log.level = "debug"\nnode.name = "other"\n')
        told = await self.ok("reload")
        self.assertNotIn("directorctl apply", told)
        self.assertIn("node.log.level", told)
        self.assertIn("waits for a restart: node.name", told)
        self.write(text + 'services.extra.listen = ["127.0.0.1:1"]\n')
        self.assertIn("services change without a restart by `directorctl apply FILE`", await self.ok("reload"))
        self.assertIn("stopping", await self.ok("shutdown", "--yes"))
        await until(lambda: process.poll() is not None, "the end")
        self.assertEqual(process.returncode, 0)


class FileTests(CtlTestCase):
    """Commands that need no director."""

    url = "http://127.0.0.1:1"

    async def test_import_xml(self) -> None:
        """The ancestors' file becomes TOML on standard output; what is left out is told beside it."""
        path = self.directory / "config.xml"
        path.write_bytes(PYTHON_DIRECTOR)
        done = await self.ctl("import-xml", str(path))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(list(parse(done.stdout).services), ["shop-http"])
        self.assertIn("config.xml:18: node.admin.users: user 'anthony'", done.stderr)
        path.write_text("<pdconfig><service/>")
        done = await self.ctl("import-xml", str(path))
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("config.xml:1: not XML", done.stderr)

    async def test_password(self) -> None:
        """The hash is of the password that the file's first line is."""
        hashed = (await self.ok("password", "--from-file", self.write("sesame\nsecond", "password"))).strip()
        self.assertTrue(PasswordHasher().verify(hashed, "sesame"))

    async def test_help(self) -> None:
        """Every command and every option says what it does."""
        import click

        from director.ctl.main import main

        def every(command: click.Command, path: str) -> None:
            self.assertTrue(command.help, path)
            for parameter in command.params:
                if isinstance(parameter, click.Option) and parameter.name not in ("weight", "kind"):
                    self.assertTrue(parameter.help, f"{path} {parameter.opts}")
            if isinstance(command, click.Group):
                for name, inner in command.commands.items():
                    every(inner, f"{path} {name}")

        every(main, "directorctl")
