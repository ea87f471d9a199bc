"""Commands about the cluster's configuration as a whole: compare it with a file, make it a file's, write it out."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click
import msgspec

from cluster.errors import ConfigError
from cluster.model import Configuration, Service
from director.config.files import dump_json, dump_toml, load_services
from director.core.plan import Step, plan
from director.ctl import differences
from director.ctl.client import EXIT_DIFFERS, CallFailed, Client
from director.ctl.command import as_json, confirm, print_json

#: The exit code for a file with errors; the same as `director check`'s.
EXIT_CONFIG = 2

_COLOURS = {"add": "green", "remove": "red", "change": "yellow", "order": "yellow"}

_file = click.argument("file", type=click.Path(exists=True, dir_okay=False))
_keep = click.option("--keep", is_flag=True, help="Leave services alone that FILE does not name.")
_format = click.option("--format", "kind", type=click.Choice(["toml", "json"]), default="toml", show_default=True)


class _Stored(msgspec.Struct):
    revision: int
    spec: Service


def _running(client: Client) -> dict[str, _Stored]:
    """Every service as the director's store has it."""
    answer = client.get("configuration", "running")
    try:
        return msgspec.convert(answer, dict[str, _Stored])
    except msgspec.ValidationError as error:  # a newer director's fields
        raise CallFailed(f"the director's configuration is not understood here: {error}", 1) from error


def _wanted(file: str) -> dict[str, Service]:
    try:
        return load_services(file)
    except ConfigError as error:
        _refuse(error)


def _refuse(error: ConfigError) -> NoReturn:
    for problem in error.problems:
        click.echo(str(problem), err=True)
    sys.exit(EXIT_CONFIG)


def _steps(running: dict[str, _Stored], wanted: dict[str, Service], keep: bool) -> tuple[Step, ...]:
    """The plan; a file without any service is taken for a mistake rather than for an order to delete all."""
    if not wanted and running and not keep:
        raise CallFailed(f"the file names no service; `directorctl service del` deletes the {len(running)} there are", 1)
    before = {name: each.spec for name, each in running.items() if not keep or name in wanted}
    return plan(before, wanted)


def _show(steps: tuple[Step, ...], as_json: bool) -> None:
    if as_json:
        print_json(differences.as_data(steps))
        return
    for line in differences.lines(steps):
        click.secho(line.text, fg=_COLOURS[line.kind])


@click.command()
@_file
@_keep
@as_json
@click.pass_obj
def diff(client: Client, file: str, keep: bool, as_json: bool) -> None:
    """What `apply FILE` would change: differences between FILE's services and the running ones.

    Exit code 6 when there are any. What FILE says of its node is not looked at.
    """
    steps = _steps(_running(client), _wanted(file), keep)
    _show(steps, as_json)
    sys.exit(EXIT_DIFFERS if steps else 0)


@click.command()
@_file
@_keep
@click.option("--dry-run", is_flag=True, help="Show what would change, as `diff` does, and change nothing.")
@click.option("--yes", is_flag=True, help="Apply without asking.")
@as_json
@click.pass_obj
def apply(client: Client, file: str, keep: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make the running services what FILE says: change what differs, and nothing else.

    Services that FILE does not name are deleted (but for --keep). Shows the differences and asks first. Each service
    changes wholly or not at all, and only if nobody else has changed it since. If one cannot be changed, the rest is
    left as it is and told; applying FILE again does the rest. What FILE says of its node is not looked at.
    """
    running = _running(client)
    steps = _steps(running, _wanted(file), keep)
    if dry_run:
        _show(steps, as_json)
        sys.exit(EXIT_DIFFERS if steps else 0)
    if not as_json:
        _show(steps, as_json)
    if steps:
        confirm(f"Change {len(steps)} service{'s' if len(steps) > 1 else ''}?", yes)
    _perform(client, steps, running, as_json)


def _perform(client: Client, steps: tuple[Step, ...], running: dict[str, _Stored], as_json: bool) -> None:
    """Step after step, until one fails."""
    changed: dict[str, int] = {}
    failure: CallFailed | None = None
    try:
        for step in steps:
            revision = running[step.service].revision if step.before is not None else 0
            changed[step.service] = _put(client, step, revision)
            if not as_json:
                click.echo(f"{step.service}: done, revision {changed[step.service]}")
    except CallFailed as error:
        failure = error
    except KeyboardInterrupt:
        failure = CallFailed("interrupted", 1)
    left = [step.service for step in steps if step.service not in changed]
    if as_json:
        print_json({"differences": differences.as_data(steps), "changed": changed, "left": left,
                    "why": str(failure) if failure else None})
    elif not steps:
        click.echo("nothing differs")
    if failure is not None:
        told = f"{left[0]}: {failure}\ndirectorctl: changed: {', '.join(changed) or 'nothing'}; left: {', '.join(left)}; "
        raise CallFailed(told + "applying the file again does the rest", failure.exit_code)


def _put(client: Client, step: Step, revision: int) -> int:
    """Make one service what it shall be if it still has *revision*; answers the new one."""
    if step.after is None:
        answer = client.delete("services", step.service, revision=revision)
    else:
        answer = client.put("services", step.service, spec=msgspec.to_builtins(step.after), revision=revision)
    return int(answer["revision"])


@click.command()
@_format
@click.pass_obj
def export(client: Client, kind: str) -> None:
    """The running services as a file that `apply` takes."""
    running = Configuration(services={name: each.spec for name, each in _running(client).items()})
    click.echo((dump_toml if kind == "toml" else dump_json)(running).rstrip("\n"))


@click.command()
@click.argument("which", type=click.Choice(["boot", "running"]))
@_format
@click.pass_context
def config(context: click.Context, which: str, kind: str) -> None:
    """The director's own file as it was at its start, without its secrets (boot); or the running services, as `export`."""
    if which == "running":
        context.invoke(export, kind=kind)
        return
    boot: dict[str, Any] = context.obj.get("configuration", "boot")
    if kind == "json":
        print_json(boot)
    else:
        click.echo(msgspec.toml.encode(boot).decode().rstrip("\n"))


@click.command("import-xml")
@_file
def import_xml(file: str) -> None:
    """Print the TOML for a config.xml of PythonDirector or txLoadBalancer.

    What cannot be carried over is told on standard error. Exit code 2 when FILE makes no configuration.
    """
    from director.config import legacy_xml

    with open(file, "rb") as source:
        text = source.read()
    try:
        configuration, notes = legacy_xml.import_xml(text, file=file)
    except ConfigError as error:
        _refuse(error)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(dump_toml(configuration).rstrip("\n"))


COMMANDS = (diff, apply, export, config, import_xml)
