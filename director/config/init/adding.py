"""One more host for a cluster that `director init` made: its agent's files, and what directors must learn of it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import NamedTuple

import tomli_w

from director.config.files import load
from director.config.init.authority import NotOurs
from director.config.init.layout import agent_files, identity, new_token
from director.config.init.renewal import authority_of
from director.config.init.writing import File


class Added(NamedTuple):
    directory: Path  #: of the agent
    files: dict[str, File]  #: below it
    lines: str  #: TOML for each director's file


def added(directory: Path, name: str, port: int, *, days: int, now: datetime.datetime) -> Added:
    """The agent beside host *name*, which serves at *port*. Nothing is written.

    :raises NotOurs: something in *directory* is not what `director init` made, or it knows such a host.
    :raises OSError: a file cannot be read.
    :raises ConfigError: a director's file is not good any more.
    """
    authority = authority_of(directory, now=now)
    nodes = [load(str(path)).node for path in sorted(directory.glob("directors/*/director.toml"))]
    ports = sorted({address for node in nodes for address in node.agents.advertise})
    if not ports:
        raise NotOurs(f"{directory}: no director there has a port for agents (node.agents.advertise)")
    known = {each.lower(): each for node in nodes for each in node.agents.identities}
    if name.lower() in known:
        raise NotOurs(f"an agent is called {known[name.lower()]} already")
    here, token = directory / "agents" / name, new_token()
    proof = identity(name, token)
    table = {name: {"hosts": list(proof.hosts), "token_sha256": proof.token_sha256}}
    return Added(here, agent_files(name, port, ports, token, authority, here=str(here), days=days, now=now),
                 tomli_w.dumps({"node": {"agents": {"identities": table}}}))
