"""What the commands share: options, names of things with their completion, and how to print an answer."""

from __future__ import annotations

import json
import math
import os
import ssl
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from cluster.model import HostRef
from director.ctl.client import EXIT_FAILED, TIMEOUT_S, CallFailed, Client

_F = TypeVar("_F", bound=Callable[..., Any])

#: A shell's completion must not make an operator wait for a director that is away.
COMPLETION_S = 1.0
#: Where click keeps what was read, for all commands of one line.
_PASSWORD = "txdirector.password"  # noqa: S105 - the name of a place


class Amount(click.FloatRange):
    """A number of 0 or more; what is no number (``nan``) or endless is refused as wrong usage.

    :param above_zero: 0 is refused, too.
    """

    name = "number"

    def __init__(self, *, above_zero: bool = False) -> None:
        super().__init__(min=0, min_open=above_zero)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Reports(click.Group):
    """Turns refusals into one line on standard error and the right exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except CallFailed as failure:
            click.echo(f"directorctl: {failure}", err=True)
            context.exit(failure.exit_code)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def yes_option(what: str) -> Callable[[_F], _F]:
    """``--yes``; see `confirm`."""
    return click.option("--yes", is_flag=True, help=f"{what} without asking.")


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal, unless *yes*. Where nobody can answer, nothing is done without it.

    :raises click.UsageError: standard input is no terminal.
    :raises CallFailed: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: give --yes")
    if not click.confirm(question, err=True):
        raise CallFailed("nothing was changed", EXIT_FAILED)


# --- clients ----------------------------------------------------------------------------------------------


def client_of(context: click.Context, *, timeout_s: float = TIMEOUT_S) -> Client:
    """The client that the options before the command describe. A command may ask for one of its own patience."""
    options = context.find_root().params
    file = options.get("password_file")
    if _PASSWORD not in context.meta:  # a file is read once
        context.meta[_PASSWORD] = file.readline().rstrip("\n") if file else os.environ.get("TXDIRECTOR_PASSWORD")
    password = context.meta[_PASSWORD]
    try:
        return Client(options["url"], user=options["user"], password=password, ca=options["ca"], timeout_s=timeout_s)
    except ssl.SSLError as error:
        why = f"{options['ca']} holds no certificate: {error.reason or error}"
        raise click.BadParameter(why, param_hint="--ca") from error


# --- names ------------------------------------------------------------------------------------------------


class GroupRef(NamedTuple):
    """Which group: ``service/group``."""

    service: str
    group: str

    def __str__(self) -> str:
        return "/".join(self)


def _host(context: click.Context, parameter: click.Parameter, text: str | None) -> HostRef | None:
    try:
        return HostRef.parse(text) if text is not None else None
    except ValueError:
        raise click.BadParameter("a host is named SERVICE/GROUP/HOST") from None


def _group(context: click.Context, parameter: click.Parameter, text: str) -> GroupRef:
    parts = text.split("/")
    if len(parts) != 2 or not all(parts):
        raise click.BadParameter("a group is named SERVICE/GROUP")
    return GroupRef(*parts)


def _names(of: Callable[[dict[str, Any]], Iterable[str]]) -> Callable[..., list[CompletionItem]]:
    """Completes from the running director's status; without one there is nothing to offer."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            services = client_of(context, timeout_s=COMPLETION_S).get("services")
            return [CompletionItem(name) for each in services for name in of(each) if name.startswith(incomplete)]
        except (CallFailed, OSError, LookupError, TypeError):
            return []

    return complete


def _groups_of(service: dict[str, Any]) -> list[str]:
    return [f"{service['name']}/{group['name']}" for group in service["groups"]]


def _hosts_of(service: dict[str, Any]) -> list[str]:
    return [
        f"{service['name']}/{group['name']}/{host['name']}" for group in service["groups"] for host in group["hosts"]
    ]


complete_service = _names(lambda service: [service["name"]])
service_argument = click.argument("service", shell_complete=complete_service)
group_argument = click.argument("group", callback=_group, metavar="SERVICE/GROUP", shell_complete=_names(_groups_of))
host_argument = click.argument("host", callback=_host, metavar="SERVICE/GROUP/HOST", shell_complete=_names(_hosts_of))
optional_host_argument = click.argument(
    "host", callback=_host, required=False, metavar="[SERVICE/GROUP/HOST]", shell_complete=_names(_hosts_of)
)


def group_path(ref: GroupRef) -> tuple[str, ...]:
    return ("services", ref.service, "groups", ref.group)


def host_path(ref: HostRef) -> tuple[str, ...]:
    return ("services", ref.service, "groups", ref.group, "hosts", ref.host)
