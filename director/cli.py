"""``director``: run a node, check its configuration, make what it needs."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click
import twisted

from cluster.completion import SHELLS, script
from cluster.errors import ConfigError, Problem, StoreUnavailable
from cluster.file import salvage as salvage_file
from cluster.store import StoreDamaged
from director.config import extra
from director.config.init.command import init
from director.relay.choice import choose, native_missing
from director.version import VERSION

#: The exit code of a director that could not start.
EXIT_FAILED = 1
#: The exit code for a configuration with errors; nothing was started.
EXIT_CONFIG = 2

#: Bytes of an agent's token: 256 bits, so that its plain SHA-256 needs no salt.
TOKEN_BYTES = 32

_FILE = click.argument("file", type=click.Path(dir_okay=False))


def _version() -> str:
    relay = choose("auto", native_missing())
    return (
        f"txdirector {VERSION}\nPython {platform.python_version()}, Twisted {twisted.__version__}\n"
        f"relay {relay.name} ({relay.why})"
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message=_version())
def main() -> None:
    """A TCP balancer of a director cluster."""


main.add_command(init)


@main.command()
@_FILE
def run(file: str) -> None:
    """Run the director that FILE configures, in the foreground.

    SIGTERM or ^C stops it once open connections have ended (drain_s at most); a second one at once. SIGUSR1 reopens
    the log, SIGHUP reads FILE again. Exit codes: 2, errors in FILE, all of them told; 1, it could not start; 0, stopped.
    """
    if why := extra.missing():
        _fail(why)
    from director.ports.activation import activated

    passed = activated(os.environ)  # first: twisted.internet.endpoints takes the variables out when it is imported
    from twisted.internet import reactor
    from twisted.logger import Logger, globalLogBeginner

    from cluster.shortage import raise_descriptors
    from director.config.files import examine
    from director.config.summary import start_lines
    from director.handover.taking import OfferFailed, predecessor
    from director.logs.output import Output
    from director.ports.passing import SOCKETS
    from director.process import Process

    descriptors = raise_descriptors()
    SOCKETS.inherit(passed.listening)
    try:
        before = predecessor(os.environ)
    except OfferFailed as error:
        _fail(str(error))
    try:
        configuration, warnings, at_present = examine(file, here=True)
        process = Process(configuration, file, reactor=reactor, predecessor=before)
    except ConfigError as error:
        if before is not None:
            before.refuse("; ".join(map(str, error.problems)))
        _refuse(error)
    try:
        output = Output(configuration.node.log, reactor=reactor)
    except OSError as error:
        why = f"cannot write the log to {configuration.node.log.target}: {error.strerror}"
        if before is not None:
            before.refuse(why)
        _fail(why)
    globalLogBeginner.beginLoggingTo([output], redirectStandardIO=False)
    log = Logger(namespace="director")
    log.info("txdirector {version}, node {node}", version=VERSION, node=configuration.node.name)
    if at_present:
        _cannot_start(at_present, log, configuration.node.log.target)
        if before is not None:
            before.refuse("; ".join(map(str, at_present)))
        output.close()
        sys.exit(EXIT_FAILED)
    log.info("at most {now} descriptors, the soft limit was {before}", now=descriptors[1], before=descriptors[0])
    for line in start_lines(configuration, native_missing=native_missing()):
        log.info("{line}", line=line, log_each=True)
    for problem in warnings:
        log.warn("{problem}", problem=str(problem), log_each=True)
    for why in passed.problems:
        log.warn("{why}", why=why, log_each=True)
    started = process.run(output)
    output.close()
    if not started and configuration.node.log.target != "stderr":
        click.echo(f"director: cannot start: {process.why_failed}", err=True)
    sys.exit(0 if started else EXIT_FAILED)


@main.command()
@_FILE
def check(file: str) -> None:
    """Check FILE and tell every error, or what it would run here. Exit code 2 on errors.

    Errors are what `run` would refuse on this machine too: certificates, secrets, directories, interfaces, users. What
    only this moment is in the way of, as a port that is taken, is a warning.
    """
    if why := extra.missing():
        _fail(why)
    from director.config.files import examine
    from director.config.summary import start_lines
    from director.ha.fence import FENCES, best

    try:
        configuration, warnings, at_present = examine(file, here=True)
    except ConfigError as error:
        _refuse(error)
    for problem in warnings:
        click.echo(f"warning: {problem}", err=True)
    for problem in at_present:
        click.echo(f"warning: it could not start now: {problem}", err=True)
    click.echo("OK")
    for line in start_lines(configuration, native_missing=native_missing()):
        click.echo(line)
    if configuration.node.vips.addresses and "manage" in configuration.node.roles:
        kind, why = best()
        click.echo(f"the kernel ends virtual addresses by {FENCES[kind]}{f' ({why})' if why else ''}")


@main.command()
@click.option("--config", required=True, type=click.Path(dir_okay=False), help="The node's file: says where etcd is.")
@click.option("--leader", is_flag=True, help="Only the record of who leads by promises, for a cluster that is there.")
@_FILE
def bootstrap(config: str, leader: bool, file: str) -> None:
    """Put the services of FILE into an empty cluster, all or none.

    With ``takeover = "promises"`` the node of ``--config`` is named the first leader, too. No director may lead then while
    that is done, nor be about to.

    Nothing else ever fills etcd by itself: an emptied one is not refilled from a stale file. Afterwards
    ``directorctl apply`` changes what is there.
    """
    if why := extra.missing():
        _fail(why)
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    from cluster.clock import run_on_monotonic
    from cluster.errors import Misuse, StoreUnavailable
    from cluster.keys import Keys
    from cluster.store import StoreDamaged
    from cluster.takeover import Timing
    from director.config.bootstrap import AlreadyThere, first_record
    from director.config.bootstrap import bootstrap as fill
    from director.config.files import load
    from director.ha.stores import make_store
    from director.service import ETCD

    try:
        node, services = load(config).node, load(file).services
    except ConfigError as error:
        _refuse(error)
    if node.store != ETCD:
        _fail(f"{config}: an embedded store takes its services from the node's own file")
    if not services and not leader:
        _fail(f"{file}: there is no service")
    if leader and node.takeover != "promises":
        _fail(f'{config}: --leader is for node.takeover = "promises"')
    run_on_monotonic(reactor)
    outcome: list[str | None] = []

    async def run() -> None:
        store = make_store(node, reactor=reactor)
        try:
            await store.start()
            keys = Keys(node.etcd.cluster)
            if not leader:
                await fill(store, keys, services)
            if node.takeover == "promises":
                await first_record(store, keys, node.name, Timing.of(node.takeover_s), time.time())
            outcome.append(None)
        except (AlreadyThere, Misuse, StoreUnavailable, StoreDamaged) as error:
            outcome.append(str(error))
        await store.stop()

    started: Deferred[None] = Deferred()
    started.addCallback(lambda _: Deferred.fromCoroutine(run())).addBoth(_ended, reactor, outcome)
    reactor.callWhenRunning(started.callback, None)
    reactor.run()
    if outcome[0] is not None:
        _fail(outcome[0])
    if node.takeover == "promises":
        click.echo(f"{node.name} leads cluster {node.etcd.cluster} once it runs")
    if not leader:
        click.echo(f"{len(services)} services are in cluster {node.etcd.cluster}: {', '.join(services)}")


def _ended(result: object, reactor: Any, outcome: list[str | None]) -> None:
    if not outcome:
        outcome.append(f"failed: {result}")
    reactor.stop()


@main.command()
@_FILE
@click.option("--into", type=click.Path(dir_okay=False), help="The new file; FILE.salvaged by default.")
def salvage(file: str, into: str | None) -> None:
    """Save what can be read of FILE, a damaged state file (store = "file:FILE"), into a new one.

    FILE stays as it is. Exit codes: 0, also for a file without damage; 1, nothing could be saved.
    """
    try:
        done = salvage_file(file, into or f"{file}.salvaged", at=time.time())
    except (StoreDamaged, StoreUnavailable) as error:
        _fail(str(error))
    if done.into is None:
        click.echo(f"{file} is sound: {len(done.keys)} records at revision {done.revision}; nothing was written")
        return
    for damage in done.damages:
        click.echo(f"left out: from byte {damage.offset} on, {damage.what}")
    for key in done.keys:
        click.echo(f"saved: {key}")
    click.echo(f"{len(done.keys)} records at revision {done.revision} are in {done.into}; {file} is as it was. Compare, "
               "then put the new file in its place")


@main.command()
def token() -> None:
    """Make a token for an agent: the agent keeps the first line, the director's configuration gets the second."""
    made = secrets.token_urlsafe(TOKEN_BYTES)
    click.echo(made)
    click.echo(f'token_sha256 = "{hashlib.sha256(made.encode()).hexdigest()}"')


@main.command("self-signed")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--certificate", default="admin.crt.pem", show_default=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--key", default="admin.key.pem", show_default=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="How long it is valid.")
def self_signed_(names: tuple[str, ...], certificate: Path, key: Path, days: int) -> None:
    """Make a self-signed certificate for the NAMEs and addresses of an https endpoint, and its key.

    Browsers warn of it; directorctl trusts it with --ca. The key's file is readable by its owner only. Files that are
    there already are left alone.
    """
    from director.config.self_signed import self_signed, write_new

    if there := next((path for path in (key, certificate) if path.exists()), None):
        _fail(f"{there} is there already")
    try:
        public, private = self_signed(names, days=days, now=datetime.datetime.now(datetime.UTC))
    except ValueError as error:
        _fail(str(error))
    for path, content, mode in ((key, private, 0o600), (certificate, public, 0o644)):
        try:
            write_new(path, content, mode=mode)
        except OSError as error:
            _fail(f"cannot write {path}: {error.strerror}")
    files = {"certificate": str(certificate.absolute()), "key": str(key.absolute())}
    click.echo("tls = { " + ", ".join(f"{name} = {json.dumps(path)}" for name, path in files.items()) + " }")


@main.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that completes this command in SHELL; `directorctl completion --help` says where it belongs."""
    click.echo(script(main, "director", shell))


def _cannot_start(problems: Iterable[Problem], log: Any, target: str) -> None:
    """Tell the log, and whoever typed the command where that is somewhere else."""
    for problem in problems:
        log.critical("cannot start: {why}", why=str(problem), log_each=True)
        if target != "stderr":
            click.echo(f"director: cannot start: {problem}", err=True)


def _refuse(error: ConfigError) -> NoReturn:
    for problem in error.problems:
        click.echo(str(problem), err=True)
    sys.exit(EXIT_CONFIG)


def _fail(why: str) -> NoReturn:
    click.echo(f"director: {why}", err=True)
    sys.exit(EXIT_FAILED)
