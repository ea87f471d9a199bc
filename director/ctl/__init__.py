"""``directorctl``: see and steer a running director. Exit codes: docs/reference/directorctl.md."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from director.ctl.client import EXIT_FAILED, CallFailed, Client

try:
    from rich.live import Live
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from director.ctl import tables
except ImportError as error:  # pragma: no cover - the base installation is the agent's
    raise SystemExit(f"{error}; directorctl needs: pip install 'txdirector[director]'") from error

#: How often ``--wait`` and ``top`` look.
POLL_S = 0.5


class _Reports(click.Group):
    """Turns refusals into one line on standard error and the right exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except CallFailed as failure:
            click.echo(f"directorctl: {failure}", err=True)
            context.exit(failure.exit_code)


_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def _ref(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, str, str]:
    parts = text.split("/")
    if len(parts) != 3 or not all(parts):
        raise click.BadParameter("a host is named SERVICE/GROUP/HOST")
    return parts[0], parts[1], parts[2]


_HOST = click.argument("host", callback=_ref, metavar="SERVICE/GROUP/HOST")


def _path(ref: tuple[str, str, str]) -> tuple[str, ...]:
    service, group, host = ref
    return ("services", service, "groups", group, "hosts", host)


@click.group(cls=_Reports, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "TXDIRECTOR"})
@click.option("--url", default="http://127.0.0.1:7401", show_default=True, help="The director's admin endpoint.")
@click.option("--user", help="Who you are; the password comes from --password-file or TXDIRECTOR_PASSWORD.")
@click.option("--password-file", type=click.File(), help="A file whose first line is the password.")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="PEM authorities to verify https with.")
@click.pass_context
def main(context: click.Context, url: str, user: str | None, password_file: Any, ca: str | None) -> None:
    """See and steer a running director."""
    import os

    if not url.startswith(("http://", "https://")):
        raise click.BadParameter("expected http://host:port or https://host:port", param_hint="--url")
    password = password_file.readline().rstrip("\n") if password_file else os.environ.get("TXDIRECTOR_PASSWORD")
    context.obj = Client(url, user=user, password=password, ca=ca)


@main.command()
@_JSON
@click.pass_obj
def status(client: Client, as_json: bool) -> None:
    """The director and its services."""
    picture = client.get("status")
    if as_json:
        _print_json(picture)
        return
    out = tables.console()
    out.print(tables.director_line(picture), markup=False)
    out.print(tables.services_table(picture))


@main.command()
@click.argument("service", required=False)
@_JSON
@click.pass_obj
def hosts(client: Client, service: str | None, as_json: bool) -> None:
    """Every host, or those of SERVICE: state, weight, load, and why one is not in rotation."""
    found = client.get("hosts", **({"service": service} if service else {}))
    if as_json:
        _print_json(found)
    else:
        tables.console().print(tables.hosts_table(found))


@main.command()
@click.option("--interval", default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Look once and end.")
@click.pass_obj
def top(client: Client, interval: float, once: bool) -> None:
    """The hosts, live, until ^C."""

    def table() -> Any:
        picture = client.get("status")
        return tables.hosts_table(tables.all_hosts(picture), title=tables.director_line(picture))

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


def _order(
    client: Client, ref: tuple[str, str, str], state: str, why: str, local: bool, deadline_s: float | None = None
) -> Any:
    body: dict[str, object] = {"state": state, "why": why, "local": local}
    if deadline_s is not None:
        body["deadline_s"] = deadline_s
    return client.put(*_path(ref), "state", **body)


def _say(host: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(host)
    else:
        tables.console().print(tables.hosts_table([host]))


_WHY = click.option("--why", default="", help="The reason, kept with the order.")
_LOCAL = click.option(
    "--local", is_flag=True,
    help="For this director alone, even while the store is away; until the next order, or until the store is back.",
)


@main.command()
@_HOST
@_WHY
@_LOCAL
@click.option("--deadline", type=click.FloatRange(min=0), help="Seconds after which open connections are cut.")
@click.option("--wait", is_flag=True, help="Wait until no connection is open.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait at most; then exit 1.")
@_JSON
@click.pass_obj
def drain(client: Client, host: tuple[str, str, str], why: str, local: bool, deadline: float | None, wait: bool,
          timeout: float, as_json: bool) -> None:
    """No new connections for a host; open ones go on."""
    after = _order(client, host, "drain", why, local, deadline)
    if wait:
        after = _wait_until_empty(client, host, timeout)
    _say(after, as_json)
    if wait and after["in_flight"]:
        click.echo(f"directorctl: {after['in_flight']} connections are still open after {timeout:g} s", err=True)
        raise SystemExit(EXIT_FAILED)


def _wait_until_empty(client: Client, ref: tuple[str, str, str], timeout: float) -> Any:
    """Progress goes to standard error, so that the answer can be piped."""
    from rich.console import Console

    began = time.monotonic()
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("")
        while True:
            now = client.get(*_path(ref))
            progress.update(task, description=f"{now['in_flight']} connections open")
            if not now["in_flight"] or time.monotonic() - began >= timeout:
                return now
            time.sleep(POLL_S)


@main.command()
@_HOST
@_WHY
@_LOCAL
@_JSON
@click.pass_obj
def up(client: Client, host: tuple[str, str, str], why: str, local: bool, as_json: bool) -> None:
    """Take the operator's order about a host back."""
    _say(_order(client, host, "up", why, local), as_json)


@main.command()
@_HOST
@_WHY
@_LOCAL
@_JSON
@click.pass_obj
def down(client: Client, host: tuple[str, str, str], why: str, local: bool, as_json: bool) -> None:
    """Take a host out of use."""
    _say(_order(client, host, "down", why, local), as_json)


@main.command()
@_HOST
@click.argument("weight", type=click.FloatRange(min=0))
@_JSON
@click.pass_obj
def weight(client: Client, host: tuple[str, str, str], weight: float, as_json: bool) -> None:
    """Set a host's configured weight; 0 takes no new connections."""
    _say(client.put(*_path(host), "weight", weight=weight), as_json)


@main.command()
@_HOST
@_JSON
@click.pass_obj
def approve(client: Client, host: tuple[str, str, str], as_json: bool) -> None:
    """Let a host in that registered through its agent and waits."""
    _say(client.post(*_path(host), "approve"), as_json)


@main.command()
@_HOST
@_JSON
@click.pass_obj
def retry(client: Client, host: tuple[str, str, str], as_json: bool) -> None:
    """Probe a host now; it comes back if it passes."""
    _say(client.post(*_path(host), "retry"), as_json)


@main.command()
@click.argument("client_ip")
@click.argument("service")
@_JSON
@click.pass_obj
def explain(client: Client, client_ip: str, service: str, as_json: bool) -> None:
    """Which host CLIENT_IP would get from SERVICE now, and why."""
    explanation = client.get("services", service, "explain", client=client_ip)
    if as_json:
        _print_json(explanation)
        return
    out = tables.console()
    for line in tables.explain_lines(explanation):
        out.print(line, markup=False)
    out.print(tables.candidates_table(explanation))


@main.command()
def password() -> None:
    """Ask for a password and print its Argon2 hash, for node.admin.users."""
    from argon2 import PasswordHasher

    click.echo(PasswordHasher().hash(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)))
