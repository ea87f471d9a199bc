"""Commands about virtual addresses: where each is, and where it shall be."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from director.ctl import tables
from director.ctl.client import CallFailed, Client
from director.ctl.command import COMPLETION_S, as_json, client_of, confirm, print_json, yes_option


def _complete_address(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        found = client_of(context, timeout_s=COMPLETION_S).get("vips")
        return [CompletionItem(each["address"]) for each in found if each["address"].startswith(incomplete)]
    except (CallFailed, OSError, LookupError, TypeError):
        return []


def _complete_director(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        found = client_of(context, timeout_s=COMPLETION_S).get("vips")
        able = {name for each in found if each["address"] == context.params.get("address") for name in each["able"]}
        return [CompletionItem(name) for name in sorted(able) if name.startswith(incomplete)]
    except (CallFailed, OSError, LookupError, TypeError):
        return []


_address = click.argument("address", shell_complete=_complete_address)
_director = click.argument("director", shell_complete=_complete_director)


def _say(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        tables.console().print(tables.vips_table(found))


@click.group()
def vips() -> None:
    """Virtual addresses: list, move, pin, spread evenly."""


@vips.command("list")
@as_json
@click.pass_obj
def list_(client: Client, as_json: bool) -> None:
    """Where each address is, who may have it, and where it is pinned."""
    _say(client.get("vips"), as_json)


@vips.command()
@_address
@_director
@yes_option("End the connections through it")
@as_json
@click.pass_obj
def move(client: Client, address: str, director: str, yes: bool, as_json: bool) -> None:
    """Have DIRECTOR own ADDRESS now.

    Connections through the address end. It stays there until it is moved again, or rebalanced.
    """
    confirm(f"Move {address} to {director}, and end the connections through it?", yes)
    _say([client.post("vips", address, "move", director=director)], as_json)


@vips.command()
@_address
@_director
@as_json
@click.pass_obj
def pin(client: Client, address: str, director: str, as_json: bool) -> None:
    """Have DIRECTOR own ADDRESS whenever it can.

    The address goes there as soon as nobody has a connection to it; `move` makes it go at once.
    """
    _say([client.put("vips", address, "pin", director=director)], as_json)


@vips.command()
@_address
@as_json
@click.pass_obj
def unpin(client: Client, address: str, as_json: bool) -> None:
    """Let ADDRESS be wherever it keeps the directors even."""
    _say([client.delete("vips", address, "pin")], as_json)


@vips.command()
@yes_option("End the connections through what moves")
@as_json
@click.pass_obj
def rebalance(client: Client, yes: bool, as_json: bool) -> None:
    """Spread the addresses evenly now.

    Connections through those that move end. What is pinned stays.
    """
    confirm("Spread the addresses evenly, and end the connections through those that move?", yes)
    _say(client.post("vips", "rebalance"), as_json)


COMMANDS = (vips,)
