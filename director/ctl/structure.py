"""Commands that make and delete services, groups and hosts, one at a time. For many at once: `apply`."""

from __future__ import annotations

import json
from typing import Any

import click

from cluster.model import HostRef
from director.ctl.client import Client
from director.ctl.command import (
    Amount,
    GroupRef,
    as_json,
    confirm,
    group_argument,
    group_path,
    host_argument,
    host_path,
    print_json,
    service_argument,
    yes_option,
)


def _done(what: str, answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{what}, revision {answer['revision']}")


def _parameters(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """``KEY=VALUE``; a value is a number, true, false, or else text."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r}: expected KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


_set = click.option("--set", "parameters", multiple=True, metavar="KEY=VALUE", callback=_parameters,
                    help="A parameter of the scheduler; may be given again.")


# --- services


@click.group()
def service() -> None:
    """Make and delete services."""


@service.command("new")
@click.argument("service")
@click.option("--listen", multiple=True, metavar="ADDRESS", help="Where clients connect; may be given again.")
@as_json
@click.pass_obj
def new_service(client: Client, service: str, listen: tuple[str, ...], as_json: bool) -> None:
    """Make SERVICE, without groups, and listen."""
    _done(f"{service} is there", client.post("services", service, spec={"listen": list(listen)}), as_json)


@service.command("del")
@service_argument
@yes_option("Delete")
@as_json
@click.pass_obj
def del_service(client: Client, service: str, yes: bool, as_json: bool) -> None:
    """Delete SERVICE with its groups and hosts; open connections go on, and are listed and cut as before."""
    confirm(f"Delete {service} with all its groups and hosts? Its open connections go on.", yes)
    _done(f"{service} is deleted", client.delete("services", service), as_json)


# --- groups


@click.group()
def group() -> None:
    """Make, enable and delete groups; change their scheduler."""


@group.command("new")
@group_argument
@click.option("--scheduler", help="How it chooses among its hosts; the default's name: auto.")
@_set
@as_json
@click.pass_obj
def new_group(client: Client, group: GroupRef, scheduler: str | None, parameters: dict[str, Any], as_json: bool) -> None:
    """Make a group without hosts. It answers once it is enabled, or if it is the service's first."""
    spec: dict[str, Any] = {"parameters": parameters} if parameters else {}
    if scheduler is not None:
        spec["scheduler"] = scheduler
    _done(f"{group} is there", client.post(*group_path(group), spec=spec), as_json)


@group.command("del")
@group_argument
@yes_option("Delete")
@as_json
@click.pass_obj
def del_group(client: Client, group: GroupRef, yes: bool, as_json: bool) -> None:
    """Delete a group that is not the enabled one; open connections go on."""
    confirm(f"Delete {group} with all its hosts?", yes)
    _done(f"{group} is deleted", client.delete(*group_path(group)), as_json)


@group.command()
@group_argument
@as_json
@click.pass_obj
def enable(client: Client, group: GroupRef, as_json: bool) -> None:
    """Let a group answer alone, which ends a split; open connections go on where they are."""
    _done(f"{group} is enabled", client.put(*group_path(group), "enable"), as_json)


@group.command()
@group_argument
@click.argument("scheduler")
@_set
@as_json
@click.pass_obj
def scheduler(client: Client, group: GroupRef, scheduler: str, parameters: dict[str, Any], as_json: bool) -> None:
    """Choose a group's hosts by SCHEDULER from the next client on."""
    answer = client.put(*group_path(group), "scheduler", scheduler=scheduler, parameters=parameters)
    _done(f"{group} is scheduled by {scheduler}", answer, as_json)


@group.command()
@group_argument
@yes_option("Delete")
@as_json
@click.pass_obj
def empty(client: Client, group: GroupRef, yes: bool, as_json: bool) -> None:
    """Delete all configured hosts of a group that is not the enabled one."""
    confirm(f"Delete every host of {group}?", yes)
    _done(f"{group} is empty", client.delete(*group_path(group), "hosts"), as_json)


# --- shares of clients


def _shares(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, float]:
    """``GROUP=SHARE``, a group once."""
    found: dict[str, float] = {}
    for text in texts:
        name, equals, share = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r}: expected GROUP=SHARE")
        if name in found:
            raise click.BadParameter(f"{name} is given twice")
        found[name] = Amount().convert(share, parameter, context)
    return found


@click.command()
@service_argument
@click.argument("shares", nargs=-1, metavar="[GROUP=SHARE]...", callback=_shares)
@click.option("--off", is_flag=True, help="All new clients to the enabled group again.")
@as_json
@click.pass_obj
def split(client: Client, service: str, shares: dict[str, float], off: bool, as_json: bool) -> None:
    """Send groups their shares of SERVICE's new clients, live; the enabled group is one of them.

    Shares are parts of their sum: blue=95 green=5. Open connections go on where they are.
    """
    if off == bool(shares):
        raise click.UsageError("give shares, or --off")
    total = sum(shares.values()) or 1.0
    told = ", ".join(f"{name} {100 * share / total:.4g} %" for name, share in shares.items())
    _done(f"new clients of {service}: {told or 'all to the enabled group'}",
          client.put("services", service, "split", shares=shares), as_json)


# --- hosts


@click.group()
def host() -> None:
    """Add and delete hosts."""


@host.command("new")
@host_argument
@click.argument("address")
@click.option("--weight", type=Amount(), default=1.0, show_default=True)
@click.option("--max-connections", type=click.IntRange(min=0), default=0, help="0: no maximum.")
@click.option("--backup", is_flag=True, help="Used only while no other host of the group can be.")
@click.option("--probe-port", type=click.IntRange(1, 65535), help="Where to probe it, when not at its own port.")
@as_json
@click.pass_obj
def new_host(client: Client, host: HostRef, address: str, weight: float, max_connections: int, backup: bool,
             probe_port: int | None, as_json: bool) -> None:
    """Add a host at ADDRESS, or replace its configuration."""
    more = {} if probe_port is None else {"probe_port": probe_port}
    answer = client.put(*host_path(host), address=address, weight=weight, max_connections=max_connections, backup=backup,
                        **more)
    _done(f"{host} is there", answer, as_json)


@host.command("del")
@host_argument
@yes_option("Delete")
@as_json
@click.pass_obj
def del_host(client: Client, host: HostRef, yes: bool, as_json: bool) -> None:
    """Take a host out of its group for good; open connections go on."""
    confirm(f"Delete {host}?", yes)
    _done(f"{host} is deleted", client.delete(*host_path(host)), as_json)


COMMANDS = (service, group, split, host)
