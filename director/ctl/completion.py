"""Completion for shells, by click's own scripts: they call ``directorctl`` back, which asks the running director."""

from __future__ import annotations

import click

from cluster.completion import SHELLS, script


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes directorctl in SHELL, names of hosts, groups and services included.

    \b
    bash:  directorctl completion bash > ~/.local/share/bash-completion/completions/directorctl
    zsh:   directorctl completion zsh > "${fpath[1]}/_directorctl"
    fish:  directorctl completion fish > ~/.config/fish/completions/directorctl.fish

    Names come from the director that TXDIRECTOR_URL or --url names, in a second at most.
    """
    click.echo(script(context.find_root().command, "directorctl", shell))


COMMANDS = (completion,)
