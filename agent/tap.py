"""``twist director-agent``."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.python import usage

from agent.cli import OPTIONS
from agent.config import as_typed, configure
from agent.process import AgentProcess
from cluster.errors import ConfigError
from cluster.shortage import raise_descriptors


class Options(usage.Options):
    synopsis = "[options]"
    longdesc = "Reports the load of this host's services to every director. All of it may stand in the TOML file."
    optParameters: ClassVar[list[list[Any]]] = [
        ["config", "c", None, "TOML file; the other options replace what it says"],
        ["name", "n", None, "this agent's name (default: the machine's and the hosts)"],
        ["port", "p", None, "the service's port, whose connections are counted", int],
        ["interval", "i", None, "seconds between reports, until a director says", float],
        ["register", None, None, "join the group at this address; :PORT means as directors see us"],
        ["leave-deadline", None, None, "seconds that a stop waits for open connections", float],
        ["token-file", None, None, "file with the token that proves who we are"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["directors"] = []
        self["hosts"] = []

    def opt_director(self, address: str) -> None:
        """HOST:PORT of a director; may be repeated."""
        self["directors"].append(address)

    def opt_host(self, ref: str) -> None:
        """SERVICE/GROUP/HOST that this agent speaks for; may be repeated."""
        self["hosts"].append(ref)

    opt_d = opt_director

    def given(self) -> dict[str, object]:
        """What was given, under the configuration's names."""
        names = {"interval": "interval_s", "leave-deadline": "leave_deadline_s", "token-file": "token_file"}
        given = {key: value for key, value in self.items() if key != "config" and value not in (None, [])}
        return {names.get(key, key): value for key, value in given.items()}


def makeService(options: Options) -> AgentProcess:
    """The plugin's service. Raises UsageError with everything that is wrong."""
    from twisted.internet import reactor

    raise_descriptors()
    try:
        return AgentProcess(configure(options["config"], options.given()), reactor=reactor)
    except ConfigError as error:
        told = as_typed(error, OPTIONS, options.given(), options["config"])
        raise usage.UsageError(str(told)) from error
