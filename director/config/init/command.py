"""``director init``: its options, its questions, and what it says."""

from __future__ import annotations

import datetime
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from director.config import extra

T = TypeVar("T")
#: The exit code of bad answers, and of a directory that is there already: nothing was written.
_EXIT_REFUSED = 2
#: The exit code of a disk that does not take it: nothing is left.
_EXIT_FAILED = 1
#: Bytes of a password that nobody chose; 16 characters.
_PASSWORD_BYTES = 12
#: Machines that a line names: a screen has room for so many.
_NAMED = 8
#: The first user of the admin.
_USER = "admin"


def _read(read: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[Any, ...]]:
    """What a repeated option's texts say, as `director.config.init.wanted` reads them."""
    def callback(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[Any, ...]:
        from director.config.init import wanted

        try:
            return tuple(getattr(wanted, read)(text) for text in texts)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--director", "directors", multiple=True, metavar="NAME=ADDRESS", callback=_read("director"),
              help="A director, and where others reach it; may be repeated.")
@click.option("--vip", "vips", multiple=True, metavar="ADDRESS/PREFIX", callback=_read("vip"),
              help="A virtual address of the leading director; may be repeated.")
@click.option("--interface", metavar="IF", help="The network interface of the directors that takes virtual addresses.")
@click.option("--etcd", multiple=True, metavar="HOST:PORT", callback=_read("endpoint"),
              help="A member of etcd; may be repeated. Several directors need it.")
@click.option("--host", "hosts", multiple=True, metavar="NAME=ADDRESS:PORT", callback=_read("host"),
              help="A backend host, and where it serves; may be repeated.")
@click.option("--listen", multiple=True, metavar="ADDRESS:PORT", callback=_read("listener"),
              help="Where clients connect; may be repeated.  [default: every address, port 8080]")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650),
              help="How long certificates are valid.")
@click.option("--renew", is_flag=True, help="New dates for all certificates of DIRECTORY, which `director init` made.")
@click.option("--add", is_flag=True, help="Write one more --host's agent into DIRECTORY, which `director init` made.")
def init(directory: Path, renew: bool, add: bool, days: int, **answers: Any) -> None:
    """Write all that a new cluster needs into DIRECTORY: an authority and certificates, secrets and tokens, a file for each
    director and each agent, the first service, the admin's first user. Asks on a terminal when no option is given.

    Each machine gets its part of DIRECTORY, at the same path. Nothing is overwritten: DIRECTORY must not be there, or be
    empty. Exit codes: 2, something is there, or the answers do not do; 1, it cannot be written. Either way nothing was.
    """
    if why := extra.missing():
        _fail(why)
    now = datetime.datetime.now(datetime.UTC)
    directory = Path(os.path.abspath(directory))
    if renew and add:
        raise click.UsageError("--renew or --add, not both")
    if renew:
        if any(answers.values()):
            raise click.UsageError("--renew takes --days only: names and addresses stay as they are")
        _renew(directory, days, now)
        return
    if add:
        hosts = answers.pop("hosts")
        if len(hosts) != 1 or any(answers.values()):
            raise click.UsageError("--add takes one --host, and --days")
        [(name, address)] = hosts
        _add(directory, name, address, days, now)
        return
    _make(directory, days, now, answers)


def _make(directory: Path, days: int, now: datetime.datetime, answers: dict[str, Any]) -> None:
    import secrets

    from argon2 import PasswordHasher

    from cluster.errors import ConfigError
    from director.config.init.layout import Terms, layout
    from director.config.init.wanted import Wanted, whole
    from director.config.init.writing import AlreadyThere, refuse_if_there, write_tree

    try:
        refuse_if_there(directory)
        chosen = ""
        if not any(answers.values()):
            if not _on_terminal():
                raise click.UsageError("give --director NAME=ADDRESS, once for each; on a terminal you would be asked")
            answers, chosen = _asked()
        for which in ("directors", "hosts"):
            answers[which] = _by_name(which, answers[which])
        wanted = Wanted(**answers)
        whole(wanted)
        password = chosen or secrets.token_urlsafe(_PASSWORD_BYTES)
        terms = Terms(str(directory), _USER, PasswordHasher().hash(password), days, now)
        write_tree(directory, layout(wanted, terms))
    except (AlreadyThere, ValueError) as error:
        _fail(str(error), _EXIT_REFUSED)
    except ConfigError as error:
        _refuse(error)
    except OSError as error:
        _fail(f"cannot write {directory}: {error.strerror}")
    _tell(directory, wanted, "" if chosen else password)


def _add(directory: Path, name: str, address: Any, days: int, now: datetime.datetime) -> None:
    from cluster.errors import ConfigError
    from director.config.init.adding import added
    from director.config.init.authority import NotOurs
    from director.config.init.layout import GROUP, SERVICE
    from director.config.init.writing import AlreadyThere, write_tree

    try:
        agent = added(directory, name, address.port, days=days, now=now)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}", _EXIT_REFUSED)
    except NotOurs as error:
        _fail(str(error), _EXIT_REFUSED)
    except ConfigError as error:
        _refuse(error)
    try:
        agent.directory.parent.mkdir(mode=0o711, exist_ok=True)
        write_tree(agent.directory, agent.files)
    except AlreadyThere as error:
        _fail(str(error), _EXIT_REFUSED)
    except OSError as error:
        _fail(f"cannot write {agent.directory}: {error.strerror}")
    click.echo(f"The agent's files are in {agent.directory}: copy it to the host, to the same path. Append to director.toml "
               "of each director, here and on its machine, and restart one after the other:")
    click.echo(f"\n{agent.lines}")
    click.echo("Next:")
    click.echo(f"  directorctl host new {SERVICE}/{GROUP}/{name} {address}    # with its --url, --user and --ca")
    click.echo(f"  director-agent --config {shlex.quote(str(agent.directory))}/agent.toml    # on {name}")


def _renew(directory: Path, days: int, now: datetime.datetime) -> None:
    from director.config.init.authority import NotOurs
    from director.config.init.renewal import renewed
    from director.config.init.writing import replace

    try:
        files, authority = renewed(directory, days=days, now=now)
    except NotOurs as error:
        _fail(str(error), _EXIT_REFUSED)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}", _EXIT_REFUSED)
    try:
        replace(files)
    except OSError as error:
        _fail(f"cannot write below {directory}: {error.strerror}")
    ends = min(now + datetime.timedelta(days=days), authority.ends)
    click.echo(f"{len(files)} certificates are valid until {ends:%Y-%m-%d}, the authority until {authority.ends:%Y-%m-%d}. "
               "Copy them to their machines, where directors take them within 10 seconds and agents when they connect:")
    for path in files:
        click.echo(f"  {path}")


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _asked() -> tuple[dict[str, Any], str]:
    """Ask for everything; the answers by their options, and the password, empty if one shall be made."""
    from director.config.init import wanted

    def several(what: str, read: Callable[[str], T], *, least: int = 0) -> tuple[T, ...]:
        found: list[T] = []
        while True:
            text = click.prompt(f"{what}{', or nothing' if len(found) >= least else ''}", default="", show_default=False)
            if not text.strip() and len(found) >= least:
                return tuple(found)
            try:
                found.append(read(text.strip()))  # nothing, too, where something is needed
            except ValueError as error:
                click.echo(f"Error: {error}", err=True)

    directors = several("A director (NAME=ADDRESS)", wanted.director, least=1)
    etcd = several("A member of etcd (HOST:PORT)", wanted.endpoint, least=1 if len(directors) > 1 else 0)
    vips = several("A virtual address (ADDRESS/PREFIX)", wanted.vip)
    interface = click.prompt("The network interface that takes it") if vips else None
    hosts = several("A backend host (NAME=ADDRESS:PORT)", wanted.host)
    listen = several("Where clients connect (ADDRESS:PORT, every address and port 8080 if not said)", wanted.listener)
    return {"directors": directors, "etcd": etcd, "vips": vips, "interface": interface, "hosts": hosts,
            "listen": listen}, _password_asked()


def _password_asked() -> str:
    """Empty if one shall be made."""
    while True:
        chosen: str = click.prompt(f"A password for {_USER} (nothing: one is made)", default="", show_default=False,
                                   hide_input=True)
        if not chosen or click.prompt("The same again", hide_input=True) == chosen:
            return chosen
        click.echo("Error: the two were not the same", err=True)


def _by_name(which: str, pairs: tuple[tuple[str, T], ...]) -> dict[str, T]:
    """:raises ValueError: two of a name. Case does not tell them apart: in certificates' DNS names it means nothing."""
    seen: dict[str, str] = {}
    for name, _ in pairs:
        if name.lower() in seen:
            raise ValueError(f"two {which} cannot be called {seen[name.lower()]} and {name}")
        seen[name.lower()] = name
    return dict(pairs)


def _tell(directory: Path, wanted: Any, password: str) -> None:
    from cluster.address import Address
    from director.config.init.layout import ADMIN_PORT, CA

    first, first_address = next(iter(wanted.directors.items()))
    where = shlex.quote(str(directory))
    click.echo(f"All that the cluster needs is in {directory}. Copy directors/NAME to that director's machine and "
               "agents/NAME to that host's, to the same path; authority/ signs certificates and goes nowhere.")
    told = f", with the password {password} (it is told only now)" if password else ""
    click.echo(f"The admin's first user is {_USER}{told}.")
    click.echo("Next:")
    if wanted.etcd:
        click.echo(f"  director bootstrap --config {where}/directors/{first}/director.toml {where}/services.toml")
    click.echo(f"  director run {where}/directors/{first}/director.toml" + _also(first, list(wanted.directors)[1:]))
    if wanted.hosts:
        name, *others = wanted.hosts
        click.echo(f"  director-agent --config {where}/agents/{name}/agent.toml" + _also(name, others))
    if not wanted.etcd or not wanted.hosts:
        url = f"https://{Address(first_address, ADMIN_PORT)}"
        click.echo(f"  directorctl --url {url} --user {_USER} --ca {where}/{CA} status")


def _also(first: str, others: list[str]) -> str:
    """Where a command is run, and where its likes are."""
    named = others if len(others) <= _NAMED else [*others[:_NAMED], f"{len(others) - _NAMED} more"]
    return f"    # on {first}" + (f"; likewise {', '.join(named)}" if named else "")


def _refuse(error: Any) -> NoReturn:
    for problem in error.problems:
        click.echo(f"director: {problem}", err=True)
    sys.exit(_EXIT_REFUSED)


def _fail(why: str, code: int = _EXIT_FAILED) -> NoReturn:
    click.echo(f"director: {why}", err=True)
    sys.exit(code)
