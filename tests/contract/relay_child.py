"""Scenarios of the relay's contract that need a process of their own.

``python -m tests.contract.relay_child KIND SCENARIO`` prints JSON.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from tests.contract.relay_kit import ORDINARY, Relayed, RelayKit, pattern, receive, receive_all, wait_until
from tests.contract.tls_kit import TLSRelayKit


def rss_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def become_ordinary() -> None:
    """The quota of pipes holds for everyone but root."""
    if os.getuid() != 0:
        return
    os.setgroups([])
    os.setgid(ORDINARY)
    os.setuid(ORDINARY)


def feed(servers: list[socket.socket], each: int, piece: bytes) -> None:
    """Send *each* bytes, repeating *piece*, into every socket for as long as any of them takes some."""
    left = dict.fromkeys(servers, each)
    with selectors.DefaultSelector() as selector:
        for server in servers:
            server.setblocking(False)
            selector.register(server, selectors.EVENT_WRITE)
        while ready := selector.select(0.5):
            for key, _ in ready:
                server: Any = key.fileobj
                at = (each - left[server]) % len(piece)
                left[server] -= server.send(memoryview(piece)[at : at + left[server]])
                if not left[server]:
                    selector.unregister(server)
                    server.close()


def stalled(kit: RelayKit) -> dict[str, object]:
    """What 20 clients cost that read nothing of 100 MB each."""
    feed([kit.relayed().server], 1_000, bytes(65_536))  # the allocator's first steps
    before = rss_bytes()
    relayed = [kit.relayed() for _ in range(20)]
    feed([each.server for each in relayed], 100_000_000, bytes(65_536))
    counters = kit.on_reactor(kit.relay.counters)
    return {"stalled": counters.stalled, "rss_bytes": rss_bytes() - before}


def whole(kit: RelayKit, relayed: list[Relayed], data: bytes) -> dict[str, object]:
    """Read half of everything, then the rest: how many got all of it, how the connections ended, pipes in between."""
    halves = [receive(each.client, len(data) // 2) for each in relayed]
    wait_until(lambda: kit.on_reactor(kit.relay.counters).stalled == len(relayed))
    pipes = kit.on_reactor(kit.relay.counters).pipes
    count = 0
    for each, half in zip(relayed, halves, strict=True):
        count += half + receive_all(each.client) == data
        each.client.close()
    reasons = {kit.events.final(each.token).reason for each in relayed}
    return {
        "whole": count,
        "spliced_bytes": kit.on_reactor(kit.relay.counters).spliced_bytes,
        "pipes": pipes,
        "reasons": sorted(reason.value for reason in reasons if reason is not None),
    }


def streams(kit: RelayKit, count: int, data: bytes) -> dict[str, object]:
    """*count* bulk streams through small buffers, all stalled before the first of them is read."""
    relayed = []
    for _ in range(count):
        client, accepted = kit.client(socket.AF_UNIX)  # whose buffers do not grow by themselves
        with kit.listener(socket.AF_UNIX) as listener:
            host = kit.connecting(listener)
            server = kit.keep(listener.accept()[0])
        for fd in (accepted, server.fileno()):
            with socket.socket(fileno=os.dup(fd)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)
        relayed.append(Relayed(*kit.hand_over(accepted, host), client, server))
    feeding = kit.run(feed, [each.server for each in relayed], len(data), data)
    wait_until(lambda: kit.on_reactor(kit.relay.counters).stalled == count)
    found = whole(kit, relayed, data)
    feeding.result()
    return found


def no_pipes(kit: RelayKit) -> dict[str, object]:
    """The quota is used up by others before the first stream."""
    become_ordinary()
    pipes = [os.pipe() for _ in range(1_100)]
    try:
        return streams(kit, 100, pattern(400_000, "no pipes"))
    finally:
        for pipe in pipes:
            for fd in pipe:
                os.close(fd)


def many_streams(kit: RelayKit) -> dict[str, object]:
    """More streams than the pool has pipes."""
    become_ordinary()
    return streams(kit, 600, pattern(400_000, "many"))


def run(kind: str, scenario: Callable[[RelayKit], dict[str, object]]) -> None:
    """Run *scenario* beside a reactor with a relay of that *kind*, and print what it found."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kit = (TLSRelayKit if kind == "tls" else RelayKit)(kind)

    def body() -> None:
        print(json.dumps(scenario(kit)))

    def finish(result: Any) -> None:
        kit.stop()
        reactor.stop()  # type: ignore[attr-defined]
        if result is not None:
            sys.stderr.write(result.getTraceback())
            sys.stderr.flush()
            os._exit(1)

    kit.start()
    deferToThread(body).addBoth(finish)
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    run(sys.argv[1], {"stalled": stalled, "no_pipes": no_pipes, "many_streams": many_streams}[sys.argv[2]])
