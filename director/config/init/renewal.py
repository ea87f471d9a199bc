"""New dates for the certificates of a cluster that `director init` made. Keys stay as they are.

So only certificates, which are nobody's secret, have to reach the machines, in any order and at any time before the old ones
end: whoever has the old one and whoever has the new one fit together, and no file and its key are ever apart.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from director.config.init.authority import Authority, NotOurs, Signed
from director.config.init.layout import CA, CA_KEY, CERTIFICATE_SUFFIX

T = TypeVar("T")


def renewed(directory: Path, *, days: int, now: datetime.datetime) -> tuple[dict[Path, bytes], Authority]:
    """Every certificate below *directory*, valid from *now* on, and who signed it. Nothing is written.

    :raises NotOurs: something there is not what `director init` made, or the authority itself has ended.
    :raises OSError: a file cannot be read.
    """
    authority = authority_of(directory, now=now)
    files = {path: _of(path, lambda content: authority.renew(content, days=days, now=now))
             for path in sorted(directory.rglob(f"*{CERTIFICATE_SUFFIX}"))}
    if not files:
        raise NotOurs(f"{directory}: there is no certificate (*{CERTIFICATE_SUFFIX})")
    return files, authority


def authority_of(directory: Path, *, now: datetime.datetime) -> Authority:
    """Who signs for the cluster whose files are in *directory*; raises as `renewed` does."""
    authority = _of(directory / CA, lambda content: Authority.read(Signed(content, (directory / CA_KEY).read_bytes())))
    if authority.ends <= now:
        raise NotOurs(f"{directory / CA}: the authority itself ended at {authority.ends:%Y-%m-%d}: make a new cluster's "
                      "files in another directory")
    return authority


def _of(path: Path, read: Callable[[bytes], T]) -> T:
    try:
        return read(path.read_bytes())
    except NotOurs as error:
        raise NotOurs(f"{path}: {error}") from error
