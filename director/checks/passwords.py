"""Passwords that probes sign in with: files of one directory, which the machine's administrators say.

A probe names the file alone, so that whoever may change services cannot have a director read, and send somewhere, what else
it may read.
"""

from __future__ import annotations

import os

from twisted.logger import Logger

from director.timing.seldom import Seldom, more
from director.tls.dialling import COMPLAIN_S, Unfit

#: More is no password.
MAX_BYTES = 1024


class Passwords:
    """:param directory: None: there is none, and no probe signs in."""

    _log = Logger()

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self._seldom = Seldom(every_s=COMPLAIN_S)

    def missing(self, name: str) -> str:
        """Why there is none; empty: there is."""
        try:
            self._read(name)
        except Unfit as error:
            return str(error)
        return ""

    def of(self, name: str) -> str:
        """The one in the file *name*, without the end of its line. It is read each time: a changed one counts at once.

        :raises Unfit: there is none, which the log says.
        """
        try:
            return self._read(name)
        except Unfit as error:
            if (held := self._seldom.due(name)) is not None:
                self._log.warn("hosts are not probed: {why}{more}", why=str(error), more=more(held))
            raise

    def _read(self, name: str) -> str:
        if self._directory is None:
            raise Unfit("node.probe_passwords is not set")
        if name in (".", ".."):
            raise Unfit(f"{name} is no file's name")
        path = os.path.join(self._directory, name)
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                password = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise Unfit(f"{path}: {error.strerror}") from error
        if not password.strip() or len(password) > MAX_BYTES:
            raise Unfit(f"{path}: that is no password")
        try:
            return password.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise Unfit(f"{path}: that is no UTF-8") from error
