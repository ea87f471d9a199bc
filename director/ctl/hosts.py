"""Commands about one host that runs: orders, weight, approval, a check now; and cutting a client."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from cluster.model import HostRef
from director.ctl import tables
from director.ctl.client import EXIT_FAILED, Client
from director.ctl.command import Amount, as_json, host_argument, host_path, print_json, service_argument

#: How often ``--wait`` looks.
POLL_S = 0.5

_why = click.option("--why", default="", help="The reason, kept with the order.")


_local = click.option(
    "--local", is_flag=True,
    help="For this director alone, even while the store is away; until the next order, or until the store is back.",
)


def _order(
    client: Client, ref: HostRef, state: str, why: str, local: bool, deadline_s: float | None = None
) -> Any:
    body: dict[str, object] = {"state": state, "why": why, "local": local}
    if deadline_s is not None:
        body["deadline_s"] = deadline_s
    return client.put(*host_path(ref), "state", **body)


def say(host: dict[str, Any], as_json: bool) -> None:
    """The host as it is now."""
    if as_json:
        print_json(host)
    else:
        out = tables.console()
        out.print(tables.hosts_table([host], width=out.width))


@click.command()
@host_argument
@_why
@_local
@click.option("--deadline", type=Amount(), help="Seconds after which open connections are cut.")
@click.option("--wait", is_flag=True, help="Wait until no connection is open.")
@click.option("--timeout", type=Amount(), default=300.0, show_default=True, help="Seconds to wait at most; then exit 1.")
@as_json
@click.pass_obj
def drain(client: Client, host: HostRef, why: str, local: bool, deadline: float | None, wait: bool,
          timeout: float, as_json: bool) -> None:
    """No new connections for a host; open ones go on."""
    after = _order(client, host, "drain", why, local, deadline)
    if wait:
        after = _wait_until_empty(client, host, timeout)
    say(after, as_json)
    if wait and _still_open(after):
        click.echo(f"directorctl: {_still_open(after)} after {timeout:g} s", err=True)
        raise SystemExit(EXIT_FAILED)


def _wait_until_empty(client: Client, ref: HostRef, timeout: float) -> Any:
    """Progress goes to standard error, so that the answer can be piped."""
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("")
        while True:
            now = client.get(*host_path(ref))
            progress.update(task, description=_still_open(now) or "no connection is open")
            if not _still_open(now) or time.monotonic() - began >= timeout:
                return now
            time.sleep(POLL_S)


def _still_open(host: Any) -> str:
    """What a wait waits for, over all directors; empty when every one of them says that nothing is open."""
    elsewhere = host.get("in_flight_elsewhere", {})
    unknown = sorted(name for name, count in elsewhere.items() if count is None)
    count = host["in_flight"] + sum(filter(None, elsewhere.values()))
    found = [f"{count} connections are still open"] if count else []
    return ", ".join([*found, *(f"those of {name} are not known" for name in unknown)])


def _ordering(state: str, text: str) -> click.Command:
    """A command that orders *state*."""

    @click.command(state, help=text)
    @host_argument
    @_why
    @_local
    @as_json
    @click.pass_obj
    def command(client: Client, host: HostRef, why: str, local: bool, as_json: bool) -> None:
        after = _order(client, host, state, why, local)
        say(after, as_json)
        for each in after["orders"] if state == "up" else ():
            click.echo(f"directorctl: {host} stays in {each['state']} by order of {_whose(each)}", err=True)

    return command


def _whose(order: dict[str, Any]) -> str:
    who = {"agent": "its agent", "local": "an operator, at this director alone"}.get(order["by"], "an operator")
    return f"{who}, {order['who']}" + (f": {order['why']}" if order["why"] else "")


up = _ordering("up", "Take the operator's order about a host back.")
down = _ordering("down", "Take a host out of use.")


@click.command(context_settings={"ignore_unknown_options": True})  # -1 is a bad weight, not an option
@host_argument
@click.argument("weight", type=Amount())
@as_json
@click.pass_obj
def weight(client: Client, host: HostRef, weight: float, as_json: bool) -> None:
    """Set a host's configured weight; 0 takes no new connections."""
    say(client.put(*host_path(host), "weight", weight=weight), as_json)


@click.command()
@host_argument
@as_json
@click.pass_obj
def approve(client: Client, host: HostRef, as_json: bool) -> None:
    """Let a host in that registered through its agent and waits."""
    say(client.post(*host_path(host), "approve"), as_json)


@click.command()
@host_argument
@as_json
@click.pass_obj
def retry(client: Client, host: HostRef, as_json: bool) -> None:
    """Probe a host now; it comes back if it passes."""
    say(client.post(*host_path(host), "retry"), as_json)


@click.command()
@service_argument
@click.argument("client_address", metavar="IP:PORT")
@as_json
@click.pass_obj
def cut(client: Client, service: str, client_address: str, as_json: bool) -> None:
    """End a client's connection to SERVICE now; IP:PORT as `connections` lists it."""
    answer = client.delete("services", service, "connections", client_address)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"cut: {answer['killed']}")


COMMANDS = (drain, up, down, weight, approve, retry, cut)
