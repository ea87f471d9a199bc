"""What the guides tell people to write is accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from agent.cli import main as director_agent
from cluster.keys import Keys
from cluster.model import Etcd
from director.cli import main as director
from director.config.files import parse
from director.ctl import main as directorctl

DOCS = Path(__file__).parents[3] / "docs"


def blocks(page: str) -> list[str]:
    """The page's TOML, freed of the indentation that a list gives it."""
    found = re.findall(r"^( *)```toml\n(.*?)^ *```", (DOCS / page).read_text(), flags=re.M | re.S)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


class GuideTests(SynchronousTestCase):
    def test_tutorial(self) -> None:
        """The tutorial's file is a configuration with both hosts."""
        (text,) = blocks("tutorials/one-node.md")
        self.assertEqual(set(parse(text).services["web"].groups["main"].hosts), {"a", "b"})

    def test_cluster(self) -> None:
        """The cluster guide's file has no error but the files and the token, which are the reader's."""
        (text,) = blocks("operations/cluster.md")
        text = re.sub(r'"/etc/[^"]*"', f'"{__file__}"', text).replace("…", "0" * 64)
        configuration = parse(text)
        self.assertEqual((configuration.node.store, configuration.node.vips.addresses), ("etcd:", ("10.0.0.100/24",)))

    def test_next_step(self) -> None:
        """`directorctl`, the guides' next step, finds the director of each guide's file at its default address."""
        for page in ("tutorials/one-node.md", "operations/cluster.md", "../README.md"):
            (text,) = blocks(page)
            text = re.sub(r'"/etc/[^"]*"', f'"{__file__}"', text).replace("…", "0" * 64)
            (url,) = [option.default for option in directorctl.params if option.name == "url"]
            self.assertIn(url, [f"http://{endpoint.listen}" for endpoint in parse(text).node.admin.endpoints], page)


#: The commands, by what a reader types.
COMMANDS = {"director": director, "directorctl": directorctl, "director-agent": director_agent}


def commands(page: Path) -> list[str]:
    """Our commands in the page's blocks and in its text, without comments; those with placeholders are left out."""
    text = page.read_text()
    fenced = "\n".join(re.findall(r"^ *```sh\n(.*?)^ *```", text, flags=re.M | re.S))
    fenced_lines = re.sub(r"\\\n\s*", "", fenced).splitlines()  # one command over several lines
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    typed = [line.partition(" #")[0].strip() for line in [*fenced_lines, *indented]]
    written = [re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", text)]
    found = [line.partition(" > ")[0].removesuffix("&").strip() for line in [*typed, *written]
             if line.partition(" ")[0] in COMMANDS and re.match(r"\S+ [a-z-]", line)]
    return [line for line in found if not re.search(r"\b[A-Z]{2,}\b|…|\\?\|$|[|\[]", line)]


def misread(line: str) -> str:
    """Why a command would refuse to read *line*; empty when it would not. Nothing is run."""
    name, *words = shlex.split(line)
    command: click.Command = COMMANDS[name]
    try:
        with click.Context(command, info_name=name) as context:
            while isinstance(command, click.Group):
                rest = command.make_parser(context).parse_args(args=list(words))[1]
                if not rest:
                    return ""
                _, found, words = command.resolve_command(context, rest)
                assert found is not None
                command, context = found, click.Context(found, info_name=found.name, parent=context)
            command.make_parser(context).parse_args(args=list(words))
    except click.UsageError as error:
        return error.format_message()
    return ""


class CommandTests(SynchronousTestCase):
    def test_every_command_is_read(self) -> None:
        """Each command that a page prints exists, with its options."""
        seen = set()
        for page in (DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
            for line in commands(page):
                seen.add(line)
                self.assertEqual(misread(line), "", f"{page}: {line}")
        self.assertIn("directorctl drain web/main/a --why \"new disk\" --wait", seen)
        self.assertGreater(len(seen), 30)

    def test_notices(self) -> None:
        """What does not exist is noticed."""
        for line in ("directorctl nothing", "directorctl drain a/b/c --quick", "director-agent --nothing", "director start"):
            self.assertIn("No such", misread(line))

    def test_keys(self) -> None:
        """Each key of etcd that a page names is one of ours."""
        kinds = {key.split("/")[3] for key in all_keys(Keys("main"))}
        for page in DOCS.rglob("*.md"):
            for cluster, key in re.findall(r"(?<![\w~])/txdirector/(\w+)/([\w/*-]+)", page.read_text()):
                self.assertIn(cluster, ("CLUSTER", "main", "lab", "default"), page)
                self.assertIn(key.split("/")[0], kinds, page)
                if cluster == "default" and page.name != "damaged-state.md":  # that of a state file is called so
                    self.fail(f"{page}: a cluster's default name is {Etcd().cluster}: {key}")

    def test_changes_by_curl(self) -> None:
        """Each change that a page makes with curl says that it sends JSON, as the admin demands; and the reference says so."""
        seen = 0
        for page in (DOCS.parent / "README.md", *DOCS.rglob("*.md")):
            for line in re.findall(r"^ *(curl .*)$", re.sub(r"\\\n\s*", "", page.read_text()), flags=re.M):
                if re.search(r"-X (PUT|POST)\b.*/api/v1/", line):
                    seen += 1
                    self.assertIn("-H 'Content-Type: application/json'", line, page)
        self.assertGreater(seen, 2)
        self.assertRegex((DOCS / "reference/rest.md").read_text(), r"(?s)refused with 400.*`DELETE` needs none")


def all_keys(keys: Keys) -> list[str]:
    """A key or prefix of each kind."""
    return [keys.leader(), keys.services(), keys.boots(), keys.registered_hosts(), keys.orders(), keys.observations(),
            keys.loads(), keys.directors(), keys.vips(), keys.all_caps(), keys.users(), keys.audits()]
