"""Files with secrets: who may read them, and what the one by which directors know each other must be."""

from __future__ import annotations

import stat
from pathlib import Path

from cluster.errors import ConfigError, Problem
from cluster.peer_wire import LEAST_SECRET_BYTES


def read_secret(path: str) -> bytes:
    """The cluster's secret: a file's content without white space around it.

    :raises ConfigError: it cannot be read, is too short, or is there for everyone to read.
    """
    place = "node.peers.secret_file"
    try:
        secret = Path(path).read_bytes().strip()
        open_to_all = exposed(path)
    except OSError as error:
        raise ConfigError([Problem(place, f"{path}: {error.strerror}")]) from error
    if len(secret) < LEAST_SECRET_BYTES:
        raise ConfigError([Problem(place, f"{path}: a secret has at least {LEAST_SECRET_BYTES} bytes",
                                   "openssl rand -hex 32 makes a good one")])
    if open_to_all:
        raise ConfigError([Problem(place, f"{path}: {open_to_all}", "chmod 640")])
    return secret


def exposed(path: str) -> str:
    """Why a secret should not be in this file; empty when that is all right.

    :raises OSError: it cannot be looked at.
    """
    mode = Path(path).stat().st_mode
    return "everybody on this machine can read or change it" if mode & (stat.S_IROTH | stat.S_IWOTH) else ""
