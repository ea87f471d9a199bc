"""Commands about the director's own process."""

from __future__ import annotations

import click

from director.ctl.client import Client
from director.ctl.command import as_json, client_of, confirm, print_json, yes_option

#: A director gives a new process a minute by default, and then some seconds to take over.
UPGRADE_S = 120.0


@click.command("reopen-logs")
@as_json
@click.pass_obj
def reopen_logs(client: Client, as_json: bool) -> None:
    """Close the log's file and open it again, after it was moved away."""
    answer = client.post("process", "reopen_logs")
    if as_json:
        print_json(answer)
    else:
        click.echo(f"logging to {answer['log']}")


@click.command()
@as_json
@click.pass_context
def reload(context: click.Context, as_json: bool) -> None:
    """Have the director read its own file again: in place, or by a new process where that is needed."""
    answer = client_of(context, timeout_s=UPGRADE_S).post("process", "reload")
    if as_json:
        print_json(answer)
        return
    for place in answer["reloaded"]:
        click.echo(f"in force: {place}")
    for place in answer.get("upgraded", ()):
        click.echo(f"in force, in the new process {answer['pid']}: {place}")
    for place in answer["restart"]:
        click.echo(f"waits for a restart: {place}")
    if any(place.startswith("services.") for place in answer["restart"]):
        click.echo("services change without a restart by `directorctl apply FILE`")
    if not (answer["reloaded"] or answer["restart"] or answer.get("upgraded")):
        click.echo("nothing differs")


@click.command()
@click.option("--wait", "wait_s", default=UPGRADE_S, show_default=True, type=click.FloatRange(1.0),
              help="Seconds to wait for the outcome.")
@as_json
@click.pass_context
def upgrade(context: click.Context, wait_s: float, as_json: bool) -> None:
    """Have a new process, of the program and the file as they are now, take the running one's place.

    Clients notice nothing. Where the new process cannot serve the old one serves on, and the exit code is 1.
    """
    answer = client_of(context, timeout_s=wait_s).post("process", "upgrade")
    if as_json:
        print_json(answer)
        return
    click.echo(f"process {answer['pid']} serves, version {answer['version']}")
    if answer["connections"]:
        click.echo(f"the old one waits at most {answer['at_most_s']:g} s for {answer['connections']} connections")


@click.command()
@yes_option("Stop")
@as_json
@click.pass_obj
def shutdown(client: Client, yes: bool, as_json: bool) -> None:
    """Stop the director once its open connections have ended, or their time is over."""
    confirm("Stop this director?", yes)
    answer = client.post("process", "shutdown")
    if as_json:
        print_json(answer)
    else:
        click.echo(f"stopping; waits at most {answer['at_most_s']:g} s for {answer['connections']} connections")


COMMANDS = (reopen_logs, reload, upgrade, shutdown)
