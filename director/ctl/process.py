"""Commands about the director's own process."""

from __future__ import annotations

import click

from director.ctl.client import Client
from director.ctl.command import as_json, confirm, print_json, yes_option


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
@click.pass_obj
def reload(client: Client, as_json: bool) -> None:
    """Have the director read its own file again, and take what needs no restart."""
    answer = client.post("process", "reload")
    if as_json:
        print_json(answer)
        return
    for place in answer["reloaded"]:
        click.echo(f"in force: {place}")
    for place in answer["restart"]:
        click.echo(f"waits for a restart: {place}")
    if any(place.startswith("services.") for place in answer["restart"]):
        click.echo("services change without a restart by `directorctl apply FILE`")
    if not (answer["reloaded"] or answer["restart"]):
        click.echo("nothing differs")


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


COMMANDS = (reopen_logs, reload, shutdown)
