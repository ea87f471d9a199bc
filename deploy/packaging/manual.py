"""Manual pages of the commands, from what click knows of them: one page for each command, in man(7)'s macros.

click-man makes a page for each of the forty parts of our commands, and passes text on that troff takes for requests; so
this.
"""

from __future__ import annotations

import datetime
import inspect
import re
from collections.abc import Iterator

import click

from agent.cli import main as director_agent
from director.cli import main as director
from director.ctl import main as directorctl

COMMANDS: dict[str, click.Command] = {"director": director, "directorctl": directorctl, "director-agent": director_agent}
SEE_ALSO = {
    "director": ("directorctl", "director-agent"), "directorctl": ("director",),
    "director-agent": ("director", "directorctl"),
}
#: What troff would take for something else; a full stop is that only where a line begins.
_LITERALLY = str.maketrans({"\\": r"\e", "-": r"\-", "`": r"\(ga", "'": r"\(aq", "^": r"\(ha", "~": r"\(ti"})


def page(name: str, version: str, date: datetime.date) -> str:
    """The page of the command *name*, as of a day.

    :raises KeyError: there is no such command.
    """
    command = COMMANDS[name]
    with click.Context(command, info_name=name, **command.context_settings) as context:
        lines = [
            f'.TH {name.upper()} 1 {date.isoformat()} "txdirector {literal(version)}" "txdirector"',
            ".SH NAME", rf"{literal(name)} \- {literal(summary(command))}",
            ".SH SYNOPSIS", synopsis(context), ".SH DESCRIPTION", *prose(command.help or ""),
            ".SH OPTIONS", *options(context),
        ]
        below = [*parts(context)]
        if below:
            lines.append(".SH COMMANDS")
        for part in below:
            lines += [".SS " + literal(part.command_path), synopsis(part), *prose(part.command.help or ""), *options(part)]
        others = [rf"\fB{literal(each)}\fR(1)" for each in SEE_ALSO[name]]
        lines += [".SH SEE ALSO", ", ".join(others)]
    return "\n".join(lines) + "\n"


def summary(command: click.Command) -> str:
    """The first sentence of its help, without the full stop, as the line NAME has it."""
    first = re.split(r"[.:;](?:\s|$)", inspect.cleandoc(command.help or ""), maxsplit=1)[0]
    return " ".join(first.split())


def parts(context: click.Context) -> Iterator[click.Context]:
    """Each command below that does something, those of groups too, in the order of ``--help``."""
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context, **command.context_settings)
        if isinstance(command, click.Group):
            yield from parts(inner)
        else:
            yield inner


def synopsis(context: click.Context) -> str:
    words = " ".join(context.command.collect_usage_pieces(context))
    return rf"\fB{literal(context.command_path)}\fR {literal(words)}".rstrip()


def options(context: click.Context) -> list[str]:
    """A tagged paragraph for each, its variable of the environment with it; those of ``--help`` everybody knows."""
    lines: list[str] = []
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or not record[1] or "--help" in parameter.opts:  # of arguments there is nothing to tell
            continue
        names, told = record
        lines += [".TP", rf"\fB{literal(names)}\fR", literal(" ".join(told.split()))]
        if context.parent is None and context.auto_envvar_prefix and parameter.expose_value:
            variable = f"{context.auto_envvar_prefix}_{(parameter.name or '').upper()}"
            lines.append(f"Environment: {literal(variable)}.")
    return lines


def prose(text: str) -> list[str]:
    r"""Paragraphs of a docstring; one that begins with ``\b`` keeps its lines, as click does it."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            lines += [".PP", ".nf", *map(literal, paragraph.removeprefix("\b\n").splitlines()), ".fi"]
        else:
            lines += [".PP", literal(" ".join(paragraph.replace("``", "").split()))]
    return lines


def literal(text: str) -> str:
    """As text that troff does not read anything into."""
    return re.sub(r"(?m)^\.", r"\\&.", text.translate(_LITERALLY))
