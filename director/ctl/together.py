"""Commands about the directors together: who is there, what they and their operators did."""

from __future__ import annotations

import click

from cluster.model import HostRef
from director.ctl import tables
from director.ctl.client import Client
from director.ctl.command import as_json, optional_host_argument, print_json

_limit = click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1, 1000), help="Of the newest, at most."
)


@click.command()
@as_json
@click.pass_obj
def cluster(client: Client, as_json: bool) -> None:
    """The directors: who lives, who leads, who has the virtual addresses, and where they see hosts differently."""
    picture = client.get("cluster")
    if as_json:
        print_json(picture)
        return
    out = tables.console()
    out.print(tables.cluster_line(picture), markup=False)
    out.print(tables.members_table(picture["members"], last_known=picture["last_known"]))
    for vip in picture["vips"]:
        out.print(tables.vip_line(vip, picture), markup=False)
    for each in picture["disagreements"]:
        views = ", ".join(f"{state} at {director}" for director, state in each["views"].items())
        out.print(f"{each['host']}: {views}, up elsewhere{' (last known)' if picture['last_known'] else ''}", markup=False)
    for problem in picture["store_problems"]:
        out.print(f"passed over: {problem}", markup=False)


@click.command()
@optional_host_argument
@_limit
@as_json
@click.pass_obj
def history(client: Client, host: HostRef | None, limit: int, as_json: bool) -> None:
    """Changes as the store remembers them, of one host or of everything, the newest first."""
    which = {} if host is None else host._asdict()
    found = client.get("history", limit=str(limit), **which)
    if as_json:
        print_json(found)
    else:
        tables.console().print(tables.history_table(found))


@click.command()
@_limit
@as_json
@click.pass_obj
def audit(client: Client, limit: int, as_json: bool) -> None:
    """Who changed what, or tried to, at any director, the newest first."""
    found = client.get("audit", limit=str(limit))
    if as_json:
        print_json(found)
    else:
        tables.console().print(tables.audit_table(found))


COMMANDS = (cluster, history, audit)
