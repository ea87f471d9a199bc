"""An agent's configuration: a file, options, and everything that is wrong with them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from click.testing import CliRunner
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from agent import tap
from agent.cli import main
from agent.config import AgentConfig, AgentTLS, configure
from agent.service import LoadReporter
from cluster.errors import ConfigError

FILE = """
name = "app1"
directors = ["10.0.0.1:7946", "[fd00::1]:7946"]
hosts = ["web/blue/app1"]
port = 8080

[tls]
ca = "/etc/ca.pem"
"""


class Configuring(SynchronousTestCase):
    def file(self, text: str) -> str:
        path = Path(tempfile.mkdtemp()) / "agent.toml"
        path.write_text(text)
        return str(path)

    def problems(self, path: str | None, **options: object) -> list[str]:
        with self.assertRaises(ConfigError) as raised:
            configure(path, options)
        return [problem.place for problem in raised.exception.problems]

    def test_options_replace_what_the_file_says(self) -> None:
        """Tables are merged key by key."""
        config = configure(self.file(FILE), {"port": 9090, "tls": {"server_name": "directors.example"}})
        self.assertEqual(config, AgentConfig(
            name="app1", directors=("10.0.0.1:7946", "[fd00::1]:7946"), hosts=("web/blue/app1",), port=9090,
            tls=AgentTLS(ca="/etc/ca.pem", server_name="directors.example"),
        ))

    def test_two_agents_of_one_machine_have_two_names(self) -> None:
        """The default name tells the hosts, too; however many there are, it is a name."""
        def name(*hosts: str) -> str:
            return configure(None, {"directors": ["127.0.0.1:1"], "hosts": hosts}).name

        self.assertRegex(name("a/b/c"), r"^[A-Za-z0-9_-]+-a-b-c$")
        long = [f"service/group/host{number}" for number in range(60)]
        names = {name("a/b/c"), name("a/b/d"), name("a/b/c", "a/b/d"), name(*long), name(*long[:-1])}
        self.assertEqual(len(names), 5)
        self.assertEqual(name(*long), name(*long))
        self.assertEqual([each for each in names if len(each) > 63], [])

    def test_every_mistake_at_once(self) -> None:
        """Unknown keys, wrong types, then what does not fit together."""
        self.assertEqual(self.problems(self.file('nam = "x"\nport = "80"')), ["nam", "port"])
        self.assertEqual(self.problems(None), ["directors", "hosts"])
        self.assertEqual(self.problems(None, directors=["1.2.3.4:5"], hosts=["a/b/c"], port=70000,
                                       insecure=True, tls={"key": "k"}), ["tls", "port"])
        self.assertEqual(self.problems("/nonexistent"), [""])
        self.assertEqual(self.problems(self.file("name = ")), [""])

    def test_whose_load(self) -> None:
        """A cgroup is a path below its hierarchy's top, and is of use only where cgroups are looked at."""
        wanted: dict[str, object] = {"directors": ["127.0.0.1:1"], "hosts": ["a/b/c"]}
        self.assertEqual(configure(None, wanted | {"cgroup": "/system.slice/web.service"}).utilisation, "cgroup")
        wrong: dict[str, object]
        for wrong in ({"cgroup": "web.service"}, {"cgroup": "/a/../b"}, {"cgroup": ""},
                      {"cgroup": "/web", "utilisation": "machine"}):
            self.assertEqual(self.problems(None, **wanted, **wrong), ["cgroup"], wrong)
        self.assertEqual(self.problems(None, **wanted, utilisation="pod"), ["utilisation"])

    def test_prometheus(self) -> None:
        """A URL and selectors; sum and count of latencies only together."""
        base = {"directors": ["127.0.0.1:1"], "hosts": ["a/b/c"]}
        good = {"url": "http://127.0.0.1:1/m", "requests": "a{b=\"c\"}", "errors": ["d"], "latency_sum": "e", "latency_count": "f"}
        configure(None, base | {"prometheus": good})
        for key, value, place in (
            ("url", "127.0.0.1:1", "prometheus.url"), ("url", "ftp://x/", "prometheus.url"), ("url", "http:///m", "prometheus.url"),
            ("url", "http://x/a b", "prometheus.url"), ("url", "http://x:1\r\n", "prometheus.url"),
            ("url", "http://x:99999/", "prometheus.url"), ("url", "http://[::1/", "prometheus.url"),
            ("requests", "a{", "prometheus.requests"), ("errors", ["a", ""], "prometheus.errors[1]"),
            ("latency_sum", "1", "prometheus.latency_sum"), ("latency_count", None, "prometheus"),
        ):
            wrong = {name: text for name, text in (good | {key: value}).items() if text is not None}
            self.assertEqual(self.problems(None, **base, prometheus=wrong), [place], (key, value))

    def test_agent_check(self) -> None:
        """A port, or an IP address and a port; then directors may be missing, but not half of what they need."""
        def listen(text: str) -> dict[str, object]:
            return {"agent_check": {"listen": text}}

        for text in ("9000", "127.0.0.1:9000", "[::1]:9000"):
            configure(None, listen(text))
        for text in ("x", "", "localhost:9000", "unix:/x", "1.2.3.4:99999", "99999"):
            self.assertEqual(self.problems(None, **listen(text)), ["agent_check.listen"], text)
        self.assertEqual(self.problems(None, **listen("9000"), directors=["127.0.0.1:1"]), ["hosts"])
        result = CliRunner().invoke(main, ["--agent-check", "x"])
        self.assertTrue(result.output.startswith("--agent-check: "), result.output)

    def test_unreadable_files_are_mistakes_too(self) -> None:
        """The token's, and those of TLS."""
        base = AgentConfig(name="a", directors=("127.0.0.1:1",), hosts=("a/b/c",))
        for fields, places in (
            ({"token_file": "/none"}, ["token_file"]),
            ({"tls": AgentTLS(ca="/none", certificate="/none", key="/none")}, ["tls.ca", "tls.certificate", "tls.key"]),
        ):
            with self.assertRaises(ConfigError) as raised:
                LoadReporter(AgentConfig(**({name: getattr(base, name) for name in ("name", "directors", "hosts")}
                                            | fields)), reactor=None)
            self.assertEqual([problem.place for problem in raised.exception.problems], places)


class Commands(SynchronousTestCase):
    def test_the_command_names_every_mistake(self) -> None:
        """Exit code 2, nothing started."""
        result = CliRunner().invoke(main, ["--director", "x", "--host", "a/b", "--cert", "c.pem"])
        self.assertEqual(result.exit_code, 2)
        for place in ("--director (no. 1): ", "--host (no. 1): ", "--cert and --key: "):
            self.assertIn(place, result.output)

    def test_mistakes_are_told_where_they_were_made(self) -> None:
        """What was typed by its option, what stands in the file by its key and the file; what is missing by what to type."""
        file = Path(self.mktemp())
        file.write_text('directors = ["x"]\nhosts = ["a/b/c"]\n[tls]\nca = "/none"\n')
        for words, places in (
            ((), ["--director: at least", "--host: at least"]),
            (("--config", str(file), "--port", "1"), [f"{file}: directors[0]: "]),
            (("--config", str(file), "--director", "127.0.0.1:1", "--host", "q"), ["--host (no. 1): "]),
            (("--config", str(file), "--director", "127.0.0.1:1", "--cert", "/no", "--key", "/no"),
             ["tls.ca: ", "--cert: ", "--key: "]),
            (("--director", "10.0.0.1:1", "--host", "a/b/c"),
             ["--director (no. 1): 10.0.0.1:1 is beyond this machine: it takes TLS (--tls"]),
            (("--director", "127.0.0.1:1", "--host", "a/b/c", "--token-file", "/none"), ["--token-file: "]),
        ):
            result = CliRunner().invoke(main, words)
            told = result.output.splitlines()
            self.assertEqual((result.exit_code, len(told)), (2, len(places)), result.output)
            for line, place in zip(told, places, strict=True):
                self.assertTrue(line.startswith(place), line)

    def test_the_plugin_has_the_same_options(self) -> None:
        """Given ones only; mistakes are usage errors."""
        options = tap.Options()
        options.parseOptions(["--director", "127.0.0.1:1", "-d", "127.0.0.1:2", "--host", "a/b/c", "--port", "80",
                              "--leave-deadline", "5"])
        self.assertEqual(options.given(), {"directors": ["127.0.0.1:1", "127.0.0.1:2"], "hosts": ["a/b/c"],
                                           "port": 80, "leave_deadline_s": 5.0})
        config = tap.makeService(options).reporter.config
        self.assertEqual((config.directors, config.leave_deadline_s), (("127.0.0.1:1", "127.0.0.1:2"), 5.0))
        wrong = tap.Options()
        wrong.parseOptions(["--director", "x"])
        self.assertRaises(UsageError, tap.makeService, wrong)
