"""The command ``directorctl``: options for all, and the commands by topic."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from director.ctl import completion, configuring, hosts, looking, process, structure, together, users, vips
from director.ctl.command import Reports, client_of
from director.version import VERSION


@click.group(cls=Reports, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "TXDIRECTOR"})
@click.option("--url", default="http://127.0.0.1:7401", show_default=True, help="The director's admin endpoint.")
@click.option("--user", help="Who you are; the password comes from --password-file or TXDIRECTOR_PASSWORD.")
@click.option("--password-file", type=click.File(), help="A file whose first line is the password.")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="PEM authorities to verify https with.")
@click.version_option(VERSION, message="directorctl %(version)s")
@click.pass_context
def main(context: click.Context, url: str, user: str | None, password_file: Any, ca: str | None) -> None:
    """See and steer a running director.

    Every option here may come from the environment: TXDIRECTOR_URL, TXDIRECTOR_USER, TXDIRECTOR_PASSWORD_FILE,
    TXDIRECTOR_CA. A host is named SERVICE/GROUP/HOST, a group SERVICE/GROUP.

    Exit codes: 0 done; 1 refused or not in time; 2 wrong usage, or errors in a file; 3 no director answers; 4 not
    signed in, or not allowed; 5 no such thing; 6 there are differences; 7 it is not known whether the change was made.
    """
    for stream in (sys.stdout, sys.stderr):  # what a terminal's encoding lacks is replaced, not a traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if not url.startswith(("http://", "https://")):
        raise click.BadParameter("expected http://host:port or https://host:port", param_hint="--url")
    context.obj = client_of(context)


for _topic in (looking, hosts, structure, configuring, together, vips, users, process, completion):
    for _command in _topic.COMMANDS:
        main.add_command(_command)
