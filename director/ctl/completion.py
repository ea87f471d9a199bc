"""Completion for shells, by click's own scripts: they call ``directorctl`` back, which asks the running director."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

#: As click derives it from the command's name.
_VARIABLE = "_DIRECTORCTL_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes directorctl in SHELL, names of hosts, groups and services included.

    \b
    bash:  directorctl completion bash > ~/.local/share/bash-completion/completions/directorctl
    zsh:   directorctl completion zsh > "${fpath[1]}/_directorctl"
    fish:  directorctl completion fish > ~/.config/fish/completions/directorctl.fish

    Names come from the director that TXDIRECTOR_URL or --url names, in a second at most.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    click.echo(kind(context.find_root().command, {}, "directorctl", _VARIABLE).source())


COMMANDS = (completion,)
