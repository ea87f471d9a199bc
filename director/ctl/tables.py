"""What the command line shows: tables on a terminal, aligned plain text elsewhere. State is a word, colour only helps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

#: Columns of a terminal that have room for everything.
NARROW = 100

_COLOURS = {"up": "green", "suspect": "yellow", "drain": "yellow", "down": "red"}


def console() -> Console:
    """Standard output; wide enough that a pipe never wraps a row."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=240)


def _state(host: dict[str, Any]) -> str:
    state = host["state"]
    text = f"[{_COLOURS[state]}]{state}[/]"
    if host["admin"] != "up":
        text += f" [{_COLOURS[host['admin']]}]({host['admin']})[/]"
    return text


def _number(value: float | None, form: str = "{:.2f}") -> str:
    return "-" if value is None else form.format(value)


def _rate(host: dict[str, Any]) -> str:
    """How many in a second, and how long each took."""
    if host["rate"] is None:
        return "-"
    took = host["turnaround_s"]
    return f"{host['rate']:,.{1 if host['rate'] < 100 else 0}f}/s" + ("" if took is None else f" {took * 1000:.3g} ms")


def hosts_table(hosts: list[dict[str, Any]], *, title: str = "", width: int = NARROW) -> Table:
    """One row a host, with why it takes no connections; names stay whole on 80 columns.

    :param width: of the terminal; on a narrow one addresses and ages are left out.
    """
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    left_out = ("address", "answers", "heard") if width < NARROW else ()
    cells: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
        "host": ("left", lambda host: f"{host['service']}/{host['group']}/{host['name']}"),
        "address": ("left", lambda host: str(host["address"])),
        "state": ("left", _state),
        "weight": ("right", lambda host: _number(host["weight"])),
        "share": ("right", _share),
        "open": ("right", lambda host: str(host["in_flight"]) + (f"/{most}" if (most := host["max_connections"]) else "")),
        "load": ("right", lambda host: _number((host["report"] or {}).get("utilisation"), "{:.0%}")),
        "answers": ("right", _rate),
        "heard": ("right", lambda host: _number(host["heartbeat_age_s"], "{:.1f} s")),
        "why not": ("left", lambda host: escape(host["why_not"])),
    }
    shown = {name: cell for name, cell in cells.items() if name not in left_out}
    for name, (justify, _) in shown.items():
        table.add_column(name, justify=justify, no_wrap=name not in ("state", "why not"))  # type: ignore[arg-type]
    for host in hosts:
        table.add_row(*(cell(host) for _, cell in shown.values()))
    return table


def _groups(groups: list[dict[str, Any]]) -> str:
    """The one that answers, or those that clients are split among."""
    return ", ".join(each["name"] + ("" if each["share"] == 1 else f" {100 * each['share']:.4g} %") for each in groups)


def services_table(status: dict[str, Any]) -> Table:
    """One row a service."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("service", "listens on", "group", "scheduler", "hosts", "open", "queued", "notes"):
        table.add_column(name, justify="right" if name in ("hosts", "open", "queued") else "left")
    for service in status["services"]:
        groups = [each for each in service["groups"] if each["enabled"] or each["share"]]
        notes = []
        for group in groups:
            whose = f"{group['name']} " if len(groups) > 1 else ""
            if group["failing_open"]:
                notes.append(f"{whose}FAILING OPEN: every host is bad")
            if group["backups_in_use"]:
                notes.append(f"{whose}on backups")
            if whose and group["share"] and not group["available"]:
                notes.append(f"{whose}HAS NO HOST: its clients are sent to others")
        table.add_row(
            service["name"], " ".join(service["listen"]), _groups(groups) or "-",
            " ".join(dict.fromkeys(each["scheduler"] for each in groups)) or "-",
            " ".join(f"{each['available']}/{len(each['hosts'])}" for each in groups) or "0/0",
            str(service["connections"]), str(service["queued"]), ", ".join(notes),
        )
    return table


def clock(at: float | None) -> str:
    """Local time, of today or with its date."""
    if at is None:
        return "-"
    return time.strftime("%H:%M:%S" if time.time() - at < 12 * 3600 else "%Y-%m-%d %H:%M:%S", time.localtime(at))


def bad_table(hosts: list[dict[str, Any]]) -> Table:
    """Hosts that are not up: since when, why, and when they are looked at again."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="now", title_justify="left")
    for name in ("host", "state", "since", "why", "last check", "next check"):
        table.add_column(name, no_wrap=name not in ("why", "last check"))
    for host in hosts:
        check = host["check"]
        table.add_row(f"{host['service']}/{host['group']}/{host['name']}", _state(host), clock(host["since"]),
                      escape(host["why"]), escape(check["detail"]) or "-", clock(check["next_at"]))
    return table


def failures_table(failures: list[dict[str, Any]]) -> Table:
    """When hosts went down, and why."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="before", title_justify="left")
    for name in ("at", "host", "why"):
        table.add_column(name, no_wrap=name != "why")
    for each in failures:
        table.add_row(clock(each["transition"]["at"]), f"{each['service']}/{each['group']}/{each['host']}",
                      escape(each["transition"]["why"]))
    return table


def connections_table(connections: list[dict[str, Any]]) -> Table:
    """One row a client."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("client", "host", "open", "idle", "to host", "to client"):
        table.add_column(name, justify="left" if name in ("client", "host") else "right", no_wrap=True)
    for each in connections:
        host = f"{each['group']}/{each['host']}" if each["host"] else "waits in the queue"
        if each.get("previous"):
            host += " (the process before the upgrade)"
        table.add_row(each["client"], host, _number(each["age_s"], "{:.1f} s"), _number(each["idle_s"], "{:.1f} s"),
                      str(each["to_host"]), str(each["to_client"]))
    return table


def cluster_line(cluster: dict[str, Any]) -> str:
    """The cluster in a sentence."""
    if cluster["leads"] or not cluster["last_known"]:
        leader = f"{cluster['leader']} leads, term {cluster['term']}" if cluster["leader"] else "nobody leads"
    else:
        leader = f"{cluster['director']} does not lead"
        leader += f"; last known: {cluster['leader']} leads, term {cluster['term']}" if cluster["leader"] else ""
    if cluster.get("takeover") == "promises":
        leader += f" (by promises; {', '.join(cluster['electors']) or 'nobody'} may follow)"
    modes = [name for name, on in (("STORE UNAVAILABLE", not cluster["store_available"]),
                                   ("STORE TAKES NO CHANGES", cluster["store_available"] and not cluster["store_writable"]),
                                   ("started from a snapshot", cluster["cold_start"])) if on]
    return "; ".join([f"cluster {cluster['cluster']} as {cluster['director']} sees it, store {cluster['store']}", leader,
                      *modes, *cluster["problems"]])


def vip_line(vip: dict[str, Any], cluster: dict[str, Any]) -> str:
    """Where a virtual address is."""
    if vip["owner"] is None:
        return f"{vip['address']} is not at {cluster['director']} any more"
    unsure = cluster["last_known"] and vip["owner"] != cluster["director"]
    return f"{vip['address']} is at {vip['owner']} since {clock(vip['since'])}{' (last known)' if unsure else ''}"


def vips_table(vips: list[dict[str, Any]]) -> Table:
    """One row a virtual address."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("address", "owner", "since", "term", "may have it", "pinned to"):
        table.add_column(name, no_wrap=name in ("address", "owner", "since"), overflow="fold")
    for each in vips:
        since = clock(each["since"]) if each["since"] else "-"
        table.add_row(each["address"], each["owner"] or "-", since, str(each["term"]), " ".join(each["able"]) or "-",
                      each["pinned"] or "-")
    return table


def members_table(members: list[dict[str, Any]], *, last_known: bool = False) -> Table:
    """One row a director that lives."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="last known" if last_known else None, title_justify="left")
    for name in ("director", "leads", "version", "since", "admin", "agents", "peers", "roles"):
        table.add_column(name, no_wrap=name in ("director", "leads", "since"), overflow="fold")
    for each in members:
        table.add_row(each["name"], _standing(each), each["version"], clock(each["started"]),
                      " ".join(each["admin"]), " ".join(each["agents"]), each["peers"] or "-", " ".join(each["roles"]))
    return table


def _standing(member: dict[str, Any]) -> str:
    """What must not be overlooked, in the column that stays whole."""
    return ", ".join([*(["leads"] if member["leads"] else []), *(["NO LINK"] if member.get("linked") is False else [])])


def history_table(past: list[dict[str, Any]]) -> Table:
    """One row a change in the store."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("revision", justify="right")
    table.add_column("at", no_wrap=True)
    table.add_column("what")
    for each in past:
        table.add_row(str(each["revision"]), clock(each["at"]), escape(each["what"]))
    return table


def audit_table(entries: list[dict[str, Any]]) -> Table:
    """One row an attempted change."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("at", "who", "from", "director", "what", "arguments", "outcome"):
        table.add_column(name, no_wrap=name not in ("arguments", "outcome"))
    for each in entries:
        arguments = " ".join(f"{key}={json.dumps(value)}" for key, value in each["arguments"].items())
        table.add_row(clock(each["at"]), escape(each["who"]), each["origin"] or "here", each["director"],
                      each["operation"], escape(arguments), escape(each["outcome"]))
    return table


def users_table(users: list[dict[str, Any]]) -> Table:
    """One row a user."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("user", "role", "configured in"):
        table.add_column(name, no_wrap=True)
    for each in users:
        table.add_row(each["name"], each["role"], each["source"])
    return table


def director_line(status: dict[str, Any]) -> str:
    """The director itself, and the modes that an operator must not overlook."""
    modes = [name for name, on in (("ISOLATED: agents fell silent in bulk", status["isolated"]),
                                   ("just started, or another leader: nothing is evicted yet", status["grace"]),
                                   ("STORE UNAVAILABLE", not status["store_available"]),
                                   ("STORE TAKES NO CHANGES", status["store_available"] and not status["store_writable"]))
             if on]
    minutes = (status["at"] - status["started"]) / 60
    line = f"director {status['name']}, {status['version']}, up {minutes:.0f} min, store {status['store']}"
    return "; ".join([line, *modes, *status.get("problems", ())])


def explain_lines(explanation: dict[str, Any]) -> list[str]:
    """The decision in sentences."""
    if explanation["host"]:
        head = f"{explanation['client']} would get {explanation['host']}"
    elif explanation["random"]:
        head = f"{explanation['client']} would get a host drawn by chance"
    else:
        head = f"{explanation['client']} would be refused"
    return [head, *(f"  {number}. {step}" for number, step in enumerate(explanation["steps"], 1))]


def candidates_table(explanation: dict[str, Any]) -> Table:
    """Every host's part in the decision; where its numbers come from, `candidate_lines` tell."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("host", "share", "weight", "open", "score", "why not"):
        table.add_column(name, justify="left" if name in ("host", "why not") else "right", no_wrap=name != "why not")
    for each in explanation["candidates"]:
        factors = each["factors"]
        table.add_row(("> " if each["host"] == explanation["host"] else "  ") + _candidate(explanation, each),
                      _share(each), _number(each["weight"], "{:.4g}"), _number(factors.get("in_flight"), "{:g}"),
                      _number(factors.get("load"), "{:.4g}"), escape(each["why_not"]))
    return table


def candidate_lines(explanation: dict[str, Any]) -> Iterator[str]:
    """Where each host's numbers come from."""
    for each in explanation["candidates"]:
        yield f"{_candidate(explanation, each)}:"
        yield from (f"  {line}" for line in each["words"])


def _candidate(explanation: dict[str, Any], candidate: dict[str, Any]) -> str:
    return str(candidate["host"]) if explanation["group"] else f"{candidate['group']}/{candidate['host']}"


def _share(host: dict[str, Any]) -> str:
    """Of new connections; a host that takes none has none."""
    share = host["share"]
    return _number(share or None, "{:.0%}") if share >= 0.095 else _number(100 * share or None, "{:.2g}%")


def all_hosts(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [host for service in status["services"] for group in service["groups"] for host in group["hosts"]]
