"""Groups whose hosts are found by DNS: their names are watched, and what comes of it goes to the inventory.

Times to live, and what is believed while servers fail, are the resolver's (`director.checks.resolver`). SRV records have one
of their own, with the same rules. The targets that they name are hosts' names like any others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as AnswerTimeout
from twisted.logger import Logger

from cluster.address import parse_address
from cluster.model import Discover, Service
from cluster.model import Node as NodeConfiguration
from director.checks.nameservers import NameServers
from director.checks.resolver import Known, Resolver, Watch
from director.core.discovered import hosts_of
from director.core.inventory import Inventory
from director.resources.shortages import Shortages

#: What a start waits for DNS: a server's first time to answer, and some. Who takes over from another process should have
#: hosts by then.
FIRST_ANSWER_S = 3.0


class _Watched(NamedTuple):
    discover: Discover
    watch: Watch


class Discovering(MultiService):
    """Child: the resolver of SRV records.

    :param addresses: knows A and AAAA records.
    :param settle: called after each input to the inventory.
    """

    log = Logger()

    def __init__(self, inventory: Inventory, addresses: Resolver, settle: Callable[[], None], node: NodeConfiguration, *,
                 reactor: Any, monotonic: Callable[[], float], shortages: Shortages) -> None:
        super().__init__()
        self.setName("discovering")
        self._inventory = inventory
        self._addresses = addresses
        self._settle = settle
        self._reactor = reactor
        self._monotonic = monotonic
        lookup = NameServers(reactor=reactor, servers=node.resolvers).services
        self.records = Resolver(reactor=reactor, lookup=lookup, hold_s=node.resolver_hold_s, shortages=shortages)
        self.records.setServiceParent(self)
        self._watched: dict[tuple[str, str], _Watched] = {}

    def apply(self, name: str, spec: Service | None) -> None:
        """Watch what the service's groups say, and nothing else of it."""
        wanted = {} if spec is None else {
            (name, key): group.discover for key, group in spec.groups.items() if group.discover is not None}
        for key, watched in list(self._watched.items()):
            if key[0] == name and wanted.get(key) != watched.discover:
                watched.watch.stop()
                del self._watched[key]
                if key not in wanted:  # else its hosts stay until the new question is answered
                    self._inventory.set_discovered(*key, {}, self._monotonic())
        for key, discover in wanted.items():
            if key not in self._watched:
                resolver = self.records if discover.port is None else self._addresses
                watch = resolver.watch(discover.name, partial(self._answered, key, discover))
                self._watched[key] = _Watched(discover, watch)

    async def known_after(self, synced: Awaitable[object]) -> None:
        """Once *synced* is there, wait for the first answer about each name, and about the targets that these have,
        `FIRST_ANSWER_S` at most."""
        await synced
        answered = Deferred.fromCoroutine(self._first_answers()).addTimeout(FIRST_ANSWER_S, self._reactor)
        answered.addErrback(lambda late: late.trap(AnswerTimeout))
        await answered

    async def _first_answers(self) -> None:
        await DeferredList([(self.records if discover.port is None else self._addresses).resolve(discover.name)
                            for discover, _ in self._watched.values()], consumeErrors=True)
        await DeferredList([self._addresses.resolve(parse_address(entry.spec.address).host)
                            for entry in self._inventory.hosts.values() if entry.origin == "discovered"], consumeErrors=True)

    def _answered(self, key: tuple[str, str], discover: Discover, known: Known) -> None:
        """Without an address the group has no hosts by this name, which the resolver's log tells."""
        records = () if isinstance(known, str) else known
        hosts = hosts_of(discover, records)
        if len(records) > len(hosts):
            self.log.warn("{group} has {count} of the {records} hosts that {name} leads to (max_hosts)",
                          group="/".join(key), count=len(hosts), records=len(records), name=discover.name)
        now = self._monotonic()
        self._inventory.set_discovered(*key, hosts, now)
        self._inventory.set_observed({}, now)  # whose "down" is believed depends on how many hosts there are
        self._settle()
