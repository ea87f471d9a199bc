"""``director-agent``: a backend host's agent in the foreground."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import click
from twisted.logger import (
    FilteringLogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEventAsClassicLogText,
    globalLogBeginner,
)

from agent.config import as_typed, configure
from agent.process import AgentProcess
from cluster.completion import SHELLS, script
from cluster.errors import ConfigError
from cluster.log.channel import standard
from cluster.log.storms import Storms
from cluster.log.writer import LineWriter
from cluster.shortage import raise_descriptors

#: The exit code for a configuration that does not do.
EXIT_CONFIG = 2
#: The options, by the keys of the configuration that they stand for.
OPTIONS = {
    "name": "--name", "directors": "--director", "hosts": "--host", "port": "--port", "max_in_flight": "--max-in-flight",
    "utilisation": "--utilisation", "cgroup": "--cgroup", "agent_check": "--agent-check",
    "agent_check.listen": "--agent-check",
    "interval_s": "--interval", "register": "--register", "weight": "--weight", "leave_deadline_s": "--leave-deadline",
    "token_file": "--token-file", "tls": "--cert and --key", "tls.ca": "--ca", "tls.certificate": "--cert",
    "tls.key": "--key", "tls.server_name": "--server-name", "insecure": "--insecure",
}


@click.command(context_settings={"auto_envvar_prefix": "DIRECTOR_AGENT", "help_option_names": ["-h", "--help"]})
@click.version_option(version("txdirector"), message="director-agent %(version)s")
@click.option("--completion", type=click.Choice(SHELLS), is_eager=True, expose_value=False,
              callback=lambda context, _, shell: _complete(context, shell), help="Print a script for that shell, and end.")
@click.option("--config", type=click.Path(dir_okay=False), help="TOML file; the other options replace what it says.")
@click.option("--name", help="This agent's name.  [default: the machine's name and the hosts]")
@click.option("--director", "directors", multiple=True, metavar="HOST:PORT", help="A director; may be repeated.")
@click.option("--host", "hosts", multiple=True, metavar="SERVICE/GROUP/HOST",
              help="For whom this agent speaks; may be repeated.")
@click.option("--port", type=click.IntRange(1, 65535), help="The service's port: its connections are counted.")
@click.option("--max-in-flight", type=click.IntRange(0), help="What the service can serve at once.")
@click.option("--utilisation", type=click.Choice(["cgroup", "process", "machine"]),
              help="Whose CPU counts.  [default: cgroup]")
@click.option("--cgroup", metavar="PATH", help="The service's cgroup.  [default: that of who listens on the port]")
@click.option("--agent-check", metavar="[ADDRESS:]PORT", help="Answer HAProxy's agent-check there.")
@click.option("--interval", "interval_s", type=float, metavar="SECONDS",
              help="Between reports, until a director says.  [default: 1]")
@click.option("--register", metavar="ADDRESS", help="Join the group at ADDRESS; :PORT means as directors see us.")
@click.option("--weight", type=float, help="The weight to join with.")
@click.option("--leave-deadline", "leave_deadline_s", type=float, metavar="SECONDS",
              help="How long a stop waits for open connections.  [default: 30, or 0 without a port]")
@click.option("--token-file", type=click.Path(dir_okay=False), help="File with the token that proves who we are.")
@click.option("--tls/--no-tls", default=None, help="Speak TLS; implied by the next four.")
@click.option("--ca", type=click.Path(dir_okay=False), help="PEM file of the authorities that sign directors.")
@click.option("--cert", "certificate", type=click.Path(dir_okay=False), help="PEM file of our certificate.")
@click.option("--key", type=click.Path(dir_okay=False), help="PEM file of its key.")
@click.option("--server-name", help="The name in the directors' certificates.")
@click.option("--insecure", is_flag=True, default=None, help="Allow plaintext beyond this machine.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warn", "error"]), default="info", show_default=True)
def main(config: str | None, log_level: str, tls: bool | None, **options: Any) -> None:
    """Report the load of this host's services to every director, until stopped.

    SIGTERM or ^C: announce the leaving, wait for open connections, stop. A second one: stop at once.
    """
    given = {key: value for key, value in options.items() if value is not None and value != ()}
    files = {key: given.pop(key) for key in ("ca", "certificate", "key", "server_name") if key in given}
    if files or tls:
        given["tls"] = files
    if "agent_check" in given:
        given["agent_check"] = {"listen": given["agent_check"]}
    from twisted.internet import reactor

    try:
        service = AgentProcess(configure(config, given), reactor=reactor)
    except ConfigError as error:
        click.echo(str(as_typed(error, OPTIONS, given, config)), err=True)
        sys.exit(EXIT_CONFIG)
    level = LogLevelFilterPredicate(LogLevel.levelWithName(log_level))
    level.setLogLevelForNamespace("twisted.application._client_service", LogLevel.warn)  # tells of every single try
    writer = LineWriter(standard(sys.stderr), _dropped, reactor=reactor)
    storms = Storms(lambda event: writer.write(_line(event)), reactor=reactor)
    globalLogBeginner.beginLoggingTo([FilteringLogObserver(storms, [level])])
    before, now = raise_descriptors()
    Logger(namespace="agent").info("at most {now} descriptors, the soft limit was {before}", now=now, before=before)
    run(service, reactor)
    storms.finish()
    writer.close()


def _complete(context: click.Context, shell: str | None) -> None:
    if shell is not None and not context.resilient_parsing:
        click.echo(script(context.command, "director-agent", shell))
        context.exit()


def _line(event: LogEvent) -> bytes:
    return (formatEventAsClassicLogText(event) or "").encode(errors="backslashreplace")


def _dropped(count: int) -> bytes:
    return f"-- {count} lines were dropped here: the log was not read, or its disk was full or too slow\n".encode()


def run(service: AgentProcess, reactor: Any) -> None:
    """Run *service* until the reactor is stopped and the service with it."""
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
