"""Commands about the admin's users."""

from __future__ import annotations

import click


def ask() -> str:
    """A new password, asked for twice, as its Argon2 hash."""
    from argon2 import PasswordHasher

    return PasswordHasher().hash(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


@click.command()
def password() -> None:
    """Ask for a password and print its Argon2 hash, for node.admin.users."""
    click.echo(ask())


COMMANDS = (password,)
