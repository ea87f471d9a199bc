"""What the commands share: a client is made as often as it takes, from options that can be read once."""

from __future__ import annotations

import io

import click
from twisted.trial.unittest import SynchronousTestCase

from director.ctl import main
from director.ctl.command import client_of


class ClientOfTests(SynchronousTestCase):
    def test_the_password_file_is_read_once(self) -> None:
        """A command that waits longer makes a second client, which knows the password as the first one does."""
        context = click.Context(main)
        context.params = {"url": "http://127.0.0.1:1", "user": "admin", "password_file": io.StringIO("s3cret\n"), "ca": None}
        below = click.Context(main.commands["upgrade"], parent=context)
        first, second = client_of(context), client_of(below, timeout_s=99.0)
        self.assertEqual(vars(first)["_headers"]["Authorization"], "Basic YWRtaW46czNjcmV0")
        self.assertEqual(vars(second)["_headers"], vars(first)["_headers"])
