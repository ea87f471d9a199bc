"""The commands' pages, HTML and man, from the commands themselves: what click would print for ``--help``, as Markdown.

Pure. `generated.py` puts the pages into the site; Sphinx makes manual pages of the same text (``make man``).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from agent.cli import main as director_agent
from director.cli import main as director
from director.ctl import main as directorctl

#: Every program, by the name that a reader types.
PROGRAMS: dict[str, click.Command] = {"director": director, "directorctl": directorctl, "director-agent": director_agent}


def program_page(name: str) -> str:
    """All that *name* does, as Markdown from its second heading on: synopsis, description, options, a part for each command.

    :raises KeyError: there is no such program.
    """
    command = PROGRAMS[name]
    with click.Context(command, info_name=name, **command.context_settings) as context:
        parts = ["## Synopsis", _synopsis(context), "## Description", _prose(command.help or "")]
        if options := _options(context):
            parts += ["## Options", *options]
        for below in _below(context):
            parts += [f"## {below.command_path}", _synopsis(below), _prose(below.command.help or ""), *_options(below)]
        return "\n\n".join(parts) + "\n"


def _below(context: click.Context) -> Iterator[click.Context]:
    """Each command that does something, those of groups too, in the order of ``--help``."""
    group = context.command
    for name in group.list_commands(context) if isinstance(group, click.Group) else ():
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, **command.context_settings)
        if isinstance(command, click.Group):
            yield from _below(inner)
        elif not command.hidden:
            yield inner


def _synopsis(context: click.Context) -> str:
    return f"`{context.command_path} {' '.join(context.command.collect_usage_pieces(context))}`"


def _options(context: click.Context) -> list[str]:
    """A definition list of the options, if there are any but ``--help``."""
    found = []
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts:
            continue
        names, told = record
        if isinstance(parameter, click.Argument) and not told:
            continue  # the synopsis has it
        variable = _variable(parameter, context)
        text = _prose(told) + (f" Environment: `{variable}`." if variable else "")
        found.append(f"`{names}`\n: {text or '–'}")
    return found


def _variable(parameter: click.Parameter, context: click.Context) -> str:
    """The environment's variable for an option of the program itself. Nobody uses those of its commands."""
    if context.parent is not None or not context.auto_envvar_prefix or not parameter.expose_value:
        return ""
    return f"{context.auto_envvar_prefix}_{(parameter.name or '').upper()}"


def _prose(text: str) -> str:
    """A docstring or an option's help as Markdown: what is not code is taken literally."""
    paragraphs = inspect.cleandoc(text).replace("\b\n", "").split("\n\n")
    joined = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    joined = re.sub(r"(?<![\w`-])--[a-z][a-z-]*(?!`)", r"`\g<0>`", joined)
    pieces = re.split(r"(``.+?``|`.+?`)", joined)
    return "".join(piece if piece.startswith("`") else re.sub(r"([\\*_\[\]<>|#{}$])", r"\\\1", piece) for piece in pieces)
