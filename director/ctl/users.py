"""Commands about the admin's users."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import click
from click.shell_completion import CompletionItem

from director.ctl import tables
from director.ctl.client import CallFailed, Client
from director.ctl.command import COMPLETION_S, as_json, client_of, confirm, print_json, yes_option


def _new_password(file: TextIO | None) -> str:
    """The first line of *file*; without one, asked for twice on the terminal."""
    if file is not None:
        return file.readline().rstrip("\n")
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked for a password here: give --from-file FILE, or - for standard input")
    answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return answer


_from_file = click.option(
    "--from-file", "file", type=click.File(), help="Its first line is the password; - is standard input."
)
_role = click.option("--role", type=click.Choice(["readonly", "full"]), required=True, help="full may change things.")


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        users = client_of(context, timeout_s=COMPLETION_S).get("users")
        return [CompletionItem(each["name"]) for each in users if each["name"].startswith(incomplete)]
    except (CallFailed, OSError, LookupError, TypeError):
        return []


_user = click.argument("user", shell_complete=_complete)


@click.command()
@_from_file
def password(file: TextIO | None) -> None:
    """Ask for a password and print its Argon2 hash, for node.admin.users."""
    from argon2 import PasswordHasher

    click.echo(PasswordHasher().hash(_new_password(file)))


@click.group()
def users() -> None:
    """Who may call: list, add, change and delete."""


def _say(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        tables.console().print(tables.users_table(found))


@users.command("list")
@as_json
@click.pass_obj
def list_(client: Client, as_json: bool) -> None:
    """Names, roles, and where each is configured."""
    _say(client.get("users"), as_json)


@users.command()
@click.argument("user")
@_role
@_from_file
@as_json
@click.pass_obj
def add(client: Client, user: str, role: str, file: TextIO | None, as_json: bool) -> None:
    """Add USER to the store, for all directors; or give them this role and a new password."""
    _say(client.put("users", user, role=role, password=_new_password(file)), as_json)


@users.command("role")
@_user
@click.argument("role", type=click.Choice(["readonly", "full"]))
@as_json
@click.pass_obj
def change_role(client: Client, user: str, role: str, as_json: bool) -> None:
    """Change what USER may do, and not their password."""
    _say(client.put("users", user, role=role), as_json)


@users.command("del")
@_user
@yes_option("Delete")
@as_json
@click.pass_obj
def delete(client: Client, user: str, yes: bool, as_json: bool) -> None:
    """Delete USER from the store; they are out at once, at all directors."""
    confirm(f"Delete the user {user}?", yes)
    _say(client.delete("users", user), as_json)


COMMANDS = (users, password)
