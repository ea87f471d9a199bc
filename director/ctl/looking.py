"""Commands that look and change nothing."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.live import Live

from director.ctl import tables
from director.ctl.client import Client
from director.ctl.command import Amount, as_json, complete_service, print_json, service_argument


@click.command()
@as_json
@click.pass_obj
def status(client: Client, as_json: bool) -> None:
    """The director and its services."""
    picture = client.get("status")
    if as_json:
        print_json(picture)
        return
    out = tables.console()
    out.print(tables.director_line(picture), markup=False)
    out.print(tables.services_table(picture))


@click.command()
@click.argument("service", required=False, shell_complete=complete_service)
@as_json
@click.pass_obj
def hosts(client: Client, service: str | None, as_json: bool) -> None:
    """Every host, or those of SERVICE: state, weight, share, load, and why one is not in rotation."""
    found = client.get("hosts", **({"service": service} if service else {}))
    if as_json:
        print_json(found)
    else:
        out = tables.console()
        out.print(tables.hosts_table(found, width=out.width))


@click.command()
@click.option("--interval", type=Amount(above_zero=True), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Look once and end.")
@click.pass_obj
def top(client: Client, interval: float, once: bool) -> None:
    """The hosts, live, until ^C."""

    def table() -> Any:
        picture = client.get("status")
        return tables.hosts_table(tables.all_hosts(picture), title=tables.director_line(picture), width=out.width)

    out = tables.console()
    if once:
        out.print(table())
        return
    try:
        with Live(table(), console=out, screen=out.is_terminal, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(table(), refresh=True)
    except KeyboardInterrupt:
        pass


@click.command()
@click.argument("client_ip")
@service_argument
@click.option("--server-name", metavar="NAME", help="That the client asks for, where services share a listener.")
@as_json
@click.pass_obj
def explain(client: Client, client_ip: str, service: str, server_name: str | None, as_json: bool) -> None:
    """Which host CLIENT_IP would get from SERVICE now, and why."""
    named = {} if server_name is None else {"server_name": server_name}
    explanation = client.get("services", service, "explain", client=client_ip, **named)
    if as_json:
        print_json(explanation)
        return
    out = tables.console()
    for line in tables.explain_lines(explanation):
        out.print(line, markup=False)
    out.print(tables.candidates_table(explanation))
    for line in tables.candidate_lines(explanation):
        out.print(line, markup=False)


@click.command()
@as_json
@click.pass_obj
def bad(client: Client, as_json: bool) -> None:
    """Hosts that are suspect or down, since when and why; and which went down before."""
    found = client.get("bad_hosts")
    if as_json:
        print_json(found)
        return
    out = tables.console()
    out.print(tables.bad_table(found["current"]))
    out.print(tables.failures_table(found["historic"]))


@click.command()
@service_argument
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000), help="Of the oldest, at most.")
@as_json
@click.pass_obj
def connections(client: Client, service: str, limit: int, as_json: bool) -> None:
    """The clients of SERVICE, the oldest first."""
    found = client.get("services", service, "connections", limit=str(limit))
    if as_json:
        print_json(found)
        return
    out = tables.console()
    out.print(tables.connections_table(found["connections"]))
    out.print(f"{len(found['connections'])} of {found['total']}", markup=False)


COMMANDS = (status, hosts, top, explain, bad, connections)
