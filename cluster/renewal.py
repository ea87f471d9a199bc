"""Certificates that are renewed while a process runs: PEM files that are read again when they change.

Who needs what is made of them asks for `Renewed.current` at each new connection; established ones go on with what they
have. Files that are of no use (a certificate without its new key, half a file) change nothing: the last good ones stay,
`Renewed.broken` says why, and they are looked at again when they change again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.logger import Logger

from cluster.errors import ConfigError
from cluster.pem import PemFiles

T = TypeVar("T")
#: Between two looks at the files: soon enough for a renewal, which nobody waits for, and next to no work.
LOOK_S = 10.0
#: A certificate that is not renewed this long before its end is forgotten: whoever renews by machine does it earlier.
EXPIRY_WARNING_S = 14 * 86400.0
#: Between two lines in the log about that.
REMIND_S = 86400.0

#: Of one file: which it is, and its state. None: it cannot be looked at.
_Signature = tuple[tuple[int, int, int, int] | None, ...]


class Renewed(Generic[T]):
    """What *make* makes of some files.

    :param place: dotted key of the table that names the files.
    :param files: their paths.
    :param monotonic: seconds; :param wall: POSIX seconds.
    :raises ConfigError: the files are of no use at the start.
    :ivar expires: POSIX seconds until which our own certificate is valid; None without one.
    :ivar broken: why the files are not used as they are now; '' when they are.
    """

    _log = Logger()

    def __init__(self, place: str, files: Sequence[str | None], make: Callable[[PemFiles], T], *,
                 monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.place = place
        self.expires: float | None = None
        self.broken = ""
        self._files = [path for path in files if path is not None]
        self._make = make
        self._monotonic = monotonic
        self._wall = wall
        self._reminded = float("-inf")
        self._looked = monotonic()
        self._seen = self._signature()
        self._value = self._read()

    def current(self) -> T:
        """Made of the files as they are now, or were `LOOK_S` ago."""
        if self._monotonic() - self._looked >= LOOK_S:
            self.look()
        return self._value

    @property
    def problem(self) -> str:
        """What an operator should see to; '' when all is well."""
        return self.broken or self._expiry()

    def look(self, *, anyway: bool = False) -> bool:
        """Read the files if they changed, or *anyway*; whether something new is in use now."""
        self._looked = self._monotonic()
        seen = self._signature()
        changed, renewed = seen != self._seen, False
        if changed or anyway:
            self._seen = seen
            try:
                self._value = self._read()
            except ConfigError as error:
                self.broken = f"{'; '.join(map(str, error.problems))}; what was read before stays in use"
                self._log.error("{problem}", problem=self.broken)
            else:
                renewed = changed or bool(self.broken)
                if renewed:
                    self._log.info("{place}: the certificates were read again", place=self.place)
                    self._reminded = float("-inf")
                self.broken = ""
        self._remind()
        return renewed

    def _read(self) -> T:
        files = PemFiles(self.place)
        value = self._make(files)
        if files.problems:
            raise ConfigError(files.problems)
        self.expires = files.expires
        return value

    def _signature(self) -> _Signature:
        return tuple(map(_stated, self._files))

    def _expiry(self) -> str:
        left = float("inf") if self.expires is None else self.expires - self._wall()
        if left > EXPIRY_WARNING_S:
            return ""
        if left <= 0:
            return f"{self.place}: the certificate has expired"
        return f"{self.place}: the certificate expires in {left / 86400:.1f} days"

    def _remind(self) -> None:
        expiry, now = self._expiry(), self._monotonic()
        if expiry and now - self._reminded >= REMIND_S:
            self._reminded = now
            self._log.warn("{problem}", problem=expiry)


def _stated(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
