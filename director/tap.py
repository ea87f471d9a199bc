"""``twist director --config FILE``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from twisted.python import usage

from cluster.errors import ConfigError
from director.config import extra

if TYPE_CHECKING:
    from cluster.model import Configuration
    from director.service import DirectorService


class Options(usage.Options):
    """What the plugin takes from the command line; ``configuration`` is there once it was parsed."""

    synopsis = "--config FILE"
    longdesc = "A TCP balancer of a director cluster. `director check FILE` tells what is wrong with a file."
    optParameters: ClassVar[list[list[Any]]] = [["config", "c", None, "the configuration, a TOML file"]]

    def postOptions(self) -> None:
        """Read the file. Raises UsageError with everything that is wrong."""
        if why := extra.missing():
            raise usage.UsageError(why)
        if self["config"] is None:
            raise usage.UsageError("--config is missing")
        from director.config.files import load

        try:
            self["configuration"] = load(self["config"])
        except ConfigError as error:
            raise usage.UsageError(f"errors in the configuration:\n{error}") from error


def makeService(options: Options) -> DirectorService:
    """The plugin's service."""
    from twisted.internet import reactor

    from cluster.shortage import raise_descriptors
    from director.logs.output import access_log
    from director.service import make_service

    raise_descriptors()
    configuration: Configuration = options["configuration"]
    return make_service(configuration, reactor=reactor, on_closed=access_log(configuration.node.log))
