"""The commands' pages tell of every command and option, and Markdown leaves their words alone."""

from __future__ import annotations

import re
from pathlib import Path

import click
from markdown_it import MarkdownIt
from twisted.trial.unittest import SynchronousTestCase

from director.ctl import client
from docs._ext.commands import PROGRAMS, program_page


def leaves(command: click.Command, path: str) -> dict[str, click.Command]:
    """What can be typed below *command*, by its words."""
    if not isinstance(command, click.Group):
        return {path: command}
    found: dict[str, click.Command] = {}
    for name, below in command.commands.items():
        found |= leaves(below, f"{path} {name}")
    return found


class ProgramPageTests(SynchronousTestCase):
    def test_every_command_has_its_part(self) -> None:
        """A heading for each, and below it each of its options."""
        for name, program in PROGRAMS.items():
            parts = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", program_page(name), flags=re.M | re.S))
            wanted = {path: command for path, command in leaves(program, name).items() if path != name}
            self.assertEqual(set(wanted), set(parts) - {"Synopsis", "Description", "Options"})
            for path, command in {**wanted, "Options": program}.items():
                for parameter in command.params:
                    if isinstance(parameter, click.Option) and not parameter.hidden and path in parts:
                        self.assertIn(parameter.opts[0], parts[path])

    def test_words_are_taken_literally(self) -> None:
        """Nothing that an option says becomes a tag, a link or emphasis."""
        for name in PROGRAMS:
            for token in MarkdownIt().parse(program_page(name)):
                kinds = {child.type for child in token.children or ()}
                self.assertLessEqual(kinds, {"text", "code_inline", "softbreak"}, token.content)

    def test_environment(self) -> None:
        """Options that the environment may give say so."""
        self.assertIn("Environment: `TXDIRECTOR_URL`.", program_page("directorctl"))
        self.assertIn("Environment: `DIRECTOR_AGENT_TOKEN_FILE`.", program_page("director-agent"))
        self.assertNotIn("Environment", program_page("director"))

    def test_exit_codes(self) -> None:
        """directorctl's own help and its page tell of all that it ends with."""
        codes = {0, 1, 2} | {code for name, code in vars(client).items() if name.startswith("EXIT_")}
        told = re.findall(r"(?:codes:|;)\s+(\d) ", PROGRAMS["directorctl"].help or "")
        page = (Path(__file__).parents[3] / "docs/reference/directorctl.md").read_text()
        self.assertEqual([int(code) for code in told], sorted(codes))
        self.assertEqual([int(code) for code in re.findall(r"^\| (\d) \|", page, re.M)], sorted(codes))
