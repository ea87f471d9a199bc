"""Completion of a command's words by shells: click's own scripts, which call the command back."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


def script(command: click.Command, name: str, shell: str) -> str:
    """What a *shell* reads to complete the *command* that is called *name*."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"  # as click derives it
    return kind(command, {}, name, variable).source()
