"""A director that is a process of its own: started, told to stop, told once more."""

from __future__ import annotations

import gc
import os
import signal
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import ConfigError, StoreUnavailable
from cluster.model import Configuration
from cluster.store import StoreDamaged
from cluster.systemd import Notifier
from director.admin.offers import Reloaded, Stopping, Upgraded
from director.config.files import load
from director.config.reload import by_new_process, differences
from director.engine.errors import Conflict
from director.engine.turning import stuck
from director.ha.stores import Inherited
from director.handover.estate import Estate, must_restart
from director.handover.giving import Giving
from director.handover.taking import Predecessor
from director.logs.output import REOPEN_S, Output, access_log
from director.metrics.counters import LogLines
from director.operations.headline import headline
from director.ports.passing import SOCKETS
from director.service import StartError, make_service

_STOP = (signal.SIGTERM, signal.SIGINT)
#: Objects made and not yet freed before the collector looks for cycles. A connection lives in half a dozen objects
#: without cycles, so the default (700) would have it look through young connections a hundred times a second.
_COLLECT_AFTER = 50_000


#: An admin's order to stop is answered first: by then its answer is in the kernel's hands.
ANSWER_S = 0.2
#: For the connections to be cut and logged after a second signal: tens of thousands take a second.
CUT_S = 5.0


class Process:
    """Makes a service tree, and runs it until it is told to stop.

    SIGTERM or SIGINT stops the reactor, and the tree lets its connections finish. A second one cuts them (reset, and in
    the access log) and ends the process; so does a third, whatever the process is busy with. SIGUSR1 reopens the log,
    SIGHUP reads the file again. The admin can order the same, and that a new process takes this one's place. systemd is
    told of all that, if it started the process.

    :param file: the configuration was read from it.
    :param predecessor: the process that this one replaces.
    :raises ConfigError: the configuration asks for what there is not.
    """

    log = Logger()

    _output: Output  #: while it runs

    def __init__(self, configuration: Configuration, file: str, *, reactor: Any,
                 predecessor: Predecessor | None = None) -> None:
        offer = None if predecessor is None else predecessor.offer
        if offer is not None and (problems := must_restart(offer, configuration.node)):
            raise ConfigError(problems)
        self._tree = make_service(
            configuration, reactor=reactor, on_closed=access_log(configuration.node.log), own_process=self,
            inherits=None if offer is None else Inherited(offer.store, offer.boot_id),
        )
        self._predecessor = predecessor
        self._estate = Estate(self._tree, reactor=reactor)
        self._file = file
        self._effective = configuration
        self._reactor = reactor
        self._systemd = Notifier(os.environ, reactor=reactor, status=self._in_a_line,
                                 stuck=lambda: stuck(self._tree.node.relays))
        self._why_not_reloaded = ""
        self._giving = Giving(
            self._estate, reactor=reactor, environment=self._systemd.environment,
            ready_s=configuration.node.upgrade_ready_s, on_over=self._handed_over,
        )
        self._stopping = False
        self._retired = False  # another process serves, and this one was not told to stop since
        self._why_stopping = "stopping"
        self._cutting = False
        self.why_failed = ""  #: why the director could not start

    def run(self, output: Output) -> bool:
        """Returns when all is over, with whether it ever started (`why_failed` says why not).

        :param output: where the log goes.
        """
        self._output = output
        self._tree.registry.register(LogLines(lambda: output.dropped))
        self._reactor.callWhenRunning(self._start)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._reactor.run()
        return not self.why_failed

    def _start(self) -> None:
        for number in _STOP:
            signal.signal(number, self._told_to_stop)
        signal.signal(signal.SIGUSR1, lambda *_: self._reactor.callFromThread(self._output.reopen))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._told_to_reload))
        if self._predecessor is None:
            self._systemd.start()
        else:
            self._predecessor.follow(self._estate, reactor=self._reactor, on_serving=self._is_main,
                                     on_abandoned=self._abandoned)
        try:
            self._tree.startService()
        except Exception:
            self._failed(Failure())
        else:
            self._tree.ready.addCallbacks(self._is_ready, self._failed)

    def _is_ready(self, _: None) -> None:
        gc.collect()
        gc.freeze()  # what is there now stays for good
        gc.set_threshold(_COLLECT_AFTER)
        if self._predecessor is not None:
            Deferred.fromCoroutine(self._estate.verified()).addCallbacks(
                lambda _: self._may_take_over(), self._failed
            )
            return
        self.log.info("ready")
        for name in SOCKETS.unused():
            self.log.warn("systemd has a socket at {name}, where nothing here listens", name=name)
        if not self._stopping:
            self._systemd.ready()

    def _may_take_over(self) -> None:
        if not self._tree.connected:
            self._failed(Failure(StartError("the store does not answer the new process")))
            return
        self.log.info("ready to take over")
        if self._predecessor is not None:
            self._predecessor.ready()

    def _is_main(self) -> None:
        """The process before this one has gone from systemd's sight."""
        self.log.info("ready: this process has taken over")
        if not self._stopping:
            self._systemd.start()
            self._systemd.ready()

    def _abandoned(self, why: str) -> None:
        self._failed(Failure(StartError(f"there is nothing to take over: {why}")))

    def _failed(self, failure: Failure) -> None:
        if self._stopping:
            return  # told to stop before it was ready
        self._stopping = True
        self.why_failed = failure.getErrorMessage() or repr(failure.value)
        if failure.check(StartError, StoreUnavailable, StoreDamaged):
            for why in self.why_failed.splitlines():
                self.log.critical("cannot start: {why}", why=why)
        else:
            self.log.failure("cannot start", failure)
        if self._predecessor is not None:
            self._predecessor.failed(self.why_failed)
        self._reactor.stop()

    def _stop(self) -> Deferred[None] | None:
        return self._tree.stopService().addBoth(self._stopped) if self._tree.running else None

    def _stopped(self, _: object) -> Deferred[None]:
        return Deferred.fromCoroutine(self._giving.close())

    def _in_a_line(self) -> str:
        """What `systemctl status` shows."""
        tree = self._tree
        if self._stopping:
            return f"{self._why_stopping}: waiting for {tree.node.open_connections} connections"
        clustering = tree.clustering
        if not tree.ready.called:
            return "starting" if clustering.available else "starting; waiting for etcd"
        line = headline(tree.operations.totals(), leads=clustering.shared and clustering.leading.leads,
                        store_available=clustering.available, isolated=tree.node.inventory.isolation.isolated)
        return f"{line}; {self._why_not_reloaded}" if self._why_not_reloaded else line

    # --- what the admin may order (`director.admin.offers.Process`)

    def reopen_logs(self) -> str:
        if why := self._output.reopen():
            raise Conflict(f"cannot reopen {self._output.target}, which is tried again every {REOPEN_S:g} s; until then "
                           f"the old file is written to: {why}")
        return self._output.target

    def reload(self) -> Deferred[Reloaded]:
        if not self._serving:
            return Deferred.fromCoroutine(self._reload())
        self._systemd.reloading()

        def over(result: Any) -> Any:
            self._why_not_reloaded = result.getErrorMessage() if isinstance(result, Failure) else ""
            if self._serving:
                self._systemd.ready()
            return result

        return Deferred.fromCoroutine(self._reload()).addBoth(over)

    @property
    def _serving(self) -> bool:
        return self._tree.ready.called and not self._stopping

    async def _reload(self) -> Reloaded:
        try:
            read = await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), load, self._file)
        except ConfigError as error:
            raise Conflict(f"nothing was reloaded: {'; '.join(map(str, error.problems))}") from error
        renewed, broken = self._tree.certificates.again()
        if broken:
            raise Conflict(f"nothing else was reloaded: {'; '.join(broken)}")
        found = differences(self._effective, read)
        self._output.set_level(read.node.log.level)
        self._tree.users.replace("configuration", read.node.admin.users)
        self._effective = found.effective
        for place in found.reloaded:
            self.log.info("{place} was reloaded from {file}", place=place, file=self._file)
        anew = by_new_process(found.restart)
        if anew and self._serving:
            return await self._reload_anew(anew, (*found.reloaded, *dict.fromkeys(renewed)))
        for place in found.restart:
            how = f", or for `directorctl apply {self._file}`" if place.startswith("services.") else ""
            self.log.info("{place} differs in {file}, and waits for a restart{how}", place=place, file=self._file, how=how)
        return Reloaded(reloaded=(*found.reloaded, *dict.fromkeys(renewed)), restart=found.restart)

    async def _reload_anew(self, anew: tuple[str, ...], reloaded: tuple[str, ...]) -> Reloaded:
        """What cannot be taken in place is, by a new process."""
        places = ", ".join(anew)
        self.log.info("{places}: a new process takes what this one cannot", places=places)
        try:
            upgraded = await self.upgrade("a reload")
        except Conflict as error:
            raise Conflict(f"{places}: only a new process can take that, and {error}") from error
        return Reloaded(reloaded=reloaded, restart=(), upgraded=anew, pid=upgraded.pid)

    def _told_to_reload(self) -> None:
        def refused(failure: Failure) -> None:
            failure.trap(Conflict)
            self.log.error("{why}", why=str(failure.value))

        self.reload().addErrback(refused).addErrback(
            lambda failure: self.log.failure("the file could not be reloaded", failure)
        )

    def upgrade(self, who: str) -> Deferred[Upgraded]:
        if not self._serving:
            raise Conflict("this process is starting, or ends")
        if self._predecessor is not None and not self._predecessor.alone:
            raise Conflict("the process before this one still serves its last clients, and there are never more than two")
        if not self._tree.clustering.available:
            raise Conflict("the store does not answer: nothing could be handed over")
        self.log.info("{who} orders an upgrade", who=who)
        return Deferred.fromCoroutine(self._giving.upgrade(who))

    def _handed_over(self, pid: int) -> None:
        self._systemd.hand_over(pid)
        self._stopping = self._retired = True
        self._reactor.callLater(ANSWER_S, self._begin_to_stop, f"process {pid} serves")

    def shutdown(self, who: str) -> Stopping:
        if not self._stopping:
            self._stopping = True
            self._reactor.callLater(ANSWER_S, self._begin_to_stop, f"ordered by {who}")
        node = self._tree.node
        at_most_s = self._tree.configuration.node.leave_s + node.longest_drain_s
        return Stopping(connections=node.open_connections, at_most_s=at_most_s)

    # --- stopping

    def _told_to_stop(self, number: int, _frame: object) -> None:
        if self._cutting:
            os._exit(128 + number)  # whatever the reactor is busy with
        if self._retired:  # it ends already, and is told as one of its unit's processes
            self._retired = False
            return
        if self._stopping:
            self._cutting = True
            signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + number))
            signal.setitimer(signal.ITIMER_REAL, CUT_S)
            self._reactor.callFromThread(self._cut, 128 + number)
            return
        self._stopping = True
        self._reactor.callFromThread(self._begin_to_stop, signal.Signals(number).name)

    def _cut(self, code: int) -> None:
        try:
            self._tree.node.cut()
            self._output.close()
        finally:
            os._exit(code)

    def _begin_to_stop(self, why: str) -> None:
        self.log.info("{why}: stopping; a signal more to stop without waiting for connections", why=why)
        node = self._tree.node
        self._why_stopping = why
        self._systemd.stopping(within_s=node.longest_drain_s)
        self._reactor.stop()
