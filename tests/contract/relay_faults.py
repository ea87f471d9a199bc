"""What the native relay does when the kernel or the allocator refuses something, in a process of its own.

``python -m tests.contract.relay_faults SCENARIO`` prints JSON. The extension must be a build with ``RELAY_FAULTS``.
"""

from __future__ import annotations

import errno
import gc
import importlib
import resource
import socket
import sys
from typing import Any

from cluster.model import Reason
from tests.contract.relay_child import run
from tests.contract.relay_kit import (
    Relayed,
    RelayKit,
    descriptors,
    pattern,
    receive,
    receive_all,
    receive_until_reset,
    wait_until,
)

relay: Any = importlib.import_module("director.relay._relay")

#: `enum site` of _relay_sys.h.
RECV, SEND, SPLICE, PIPE, EPOLL_ADD, EPOLL_MOD, ALLOCATION = range(7)


def works(relayed: Relayed) -> bool:
    relayed.client.sendall(b"ping")
    relayed.server.sendall(b"pong")
    return (receive(relayed.server, 4), receive(relayed.client, 4)) == (b"ping", b"pong")


def outcome(kit: RelayKit, victim: Relayed, bystander: Relayed, server_knows: bool = False) -> dict[str, object]:
    """How the victim ended, whether both of its peers were reset, and whether others live and come."""
    reason = kit.events.final(victim.token).reason
    return {
        "reason": reason.value if reason else None,
        "reset": [receive_until_reset(victim.client)[1], server_knows or receive_until_reset(victim.server)[1]],
        "bystander": works(bystander),
        "next": works(kit.relayed()),
    }


def pair(kit: RelayKit) -> tuple[Relayed, Relayed]:
    bystander, victim = kit.relayed(), kit.relayed()
    assert works(bystander) and works(victim)
    return victim, bystander


def read_refused(kit: RelayKit) -> dict[str, object]:
    victim, bystander = pair(kit)
    relay.fault(RECV, errno.ENOMEM, 0, 1)
    victim.client.sendall(b"x")
    return outcome(kit, victim, bystander)


def write_refused(kit: RelayKit) -> dict[str, object]:
    victim, bystander = pair(kit)
    relay.fault(SEND, errno.ENOBUFS, 0, 1)
    victim.server.sendall(b"x")
    return outcome(kit, victim, bystander)


def stalled(kit: RelayKit, victim: Relayed, bystander: Relayed) -> dict[str, object]:
    """The outcome of filling all there is between the host and a client that does not read."""
    try:
        victim.server.sendall(bytes(100_000_000))
    except ConnectionError:
        return outcome(kit, victim, bystander, server_knows=True)
    raise AssertionError("the client's side took everything")


def splice_in_refused(kit: RelayKit) -> dict[str, object]:
    victim, bystander = pair(kit)
    relay.fault(SPLICE, errno.ENOMEM, 0, 1)
    return stalled(kit, victim, bystander)


def splice_out_refused(kit: RelayKit) -> dict[str, object]:
    victim, bystander = pair(kit)
    relay.fault(SPLICE, errno.ENOBUFS, 1, 1)
    return stalled(kit, victim, bystander)


def waiting_refused(kit: RelayKit) -> dict[str, object]:
    """Epoll will not watch for writability."""
    victim, bystander = pair(kit)
    relay.fault(EPOLL_MOD, errno.ENOMEM, 0, 1)
    return stalled(kit, victim, bystander)


def no_buffer(kit: RelayKit) -> dict[str, object]:
    """No memory for what the client did not take; nor for a pipe, so that it was copied."""
    victim, bystander = pair(kit)
    relay.fault(ALLOCATION, 0, 0, 2)
    return stalled(kit, victim, bystander)


def no_pipe(kit: RelayKit) -> dict[str, object]:
    """Without a descriptor for a pipe bulk is copied."""
    relayed, bystander = pair(kit)
    relay.fault(PIPE, errno.EMFILE, 0, 1)
    data = pattern(5_000_000, "no pipe")
    sending = kit.run(lambda: (relayed.server.sendall(data), relayed.server.close()))
    whole = receive_all(relayed.client) == data
    sending.result()
    counters = kit.on_reactor(kit.relay.counters)
    return {"whole": whole, "spliced": counters.spliced_bytes, "pipes": counters.pipes, "bystander": works(bystander)}


def hand_over_refused(kit: RelayKit, site: int, skip: int = 0, preface: bytes = b"") -> dict[str, object]:
    bystander = kit.relayed()
    client, accepted = kit.client()
    with kit.listener() as listener:
        host = kit.connecting(listener)
        server = kit.keep(listener.accept()[0])
    relay.fault(site, errno.ENOSPC, skip, 1)
    token, handle = kit.hand_over(accepted, host, preface=preface)
    found = outcome(kit, Relayed(token, handle, client, server), bystander)
    kit.on_reactor(kit.relay.kill, handle, Reason.KILLED)
    return {**found, "connected": kit.events.was_connected(token)}


def client_refused(kit: RelayKit) -> dict[str, object]:
    return hand_over_refused(kit, EPOLL_ADD)


def host_refused(kit: RelayKit) -> dict[str, object]:
    return hand_over_refused(kit, EPOLL_ADD, skip=1)


def no_preface(kit: RelayKit) -> dict[str, object]:
    return hand_over_refused(kit, ALLOCATION, preface=b"PROXY UNKNOWN\r\n")


def no_slot(kit: RelayKit) -> dict[str, object]:
    """The table of connections cannot grow."""
    many = [kit.relayed() for _ in range(511)]  # with the bystander, all of the first slab
    found = hand_over_refused(kit, ALLOCATION)
    return {**found, "many": all(works(each) for each in many)}


def cannot_start(kit: RelayKit) -> dict[str, object]:
    """However many descriptors there are, starting either works or leaves nothing behind."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = socket.socket()  # the lowest free number
    lowest = first.fileno()
    first.close()
    before, failures = descriptors(), 0
    for room in range(10):
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, hard))
        try:
            relay.start(3, tuple(Reason)).stop()
        except OSError as error:
            assert error.errno == errno.EMFILE
            failures += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert descriptors() == before
    return {"failures": failures, "bystander": works(kit.relayed())}


def held(kit: RelayKit) -> dict[str, object]:
    """The worker's thread stands still: what it owes grows until it goes on."""
    def owed_s() -> float:
        return kit.on_reactor(kit.relay.owes_s)  # type: ignore[no-any-return]

    relayed = kit.relayed()
    relay.hold(True)
    wait_until(lambda: owed_s() > 0.3)
    grown = owed_s() > 0.3
    relay.hold(False)
    wait_until(lambda: owed_s() == 0)
    return {"grown": grown, "bystander": works(relayed)}


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        read_refused, write_refused, splice_in_refused, splice_out_refused, waiting_refused, no_buffer, no_pipe,
        client_refused, host_refused, no_preface, no_slot, cannot_start, held,
    )
}


def counted(kit: RelayKit) -> dict[str, object]:
    """The scenario, and what must hold after each."""
    before = descriptors() - len(kit.open_sockets())
    found = SCENARIOS[sys.argv[1]](kit)
    kit.on_reactor(restart, kit)
    gc.collect()
    return {
        **found,
        "violations": kit.events.violations,
        "unfinished": [token for token in kit.tokens if not kit.events.has_final(token)],
        "leaked": descriptors() - len(kit.open_sockets()) - before,
    }


def restart(kit: RelayKit) -> None:
    """End everything; the relay is then as it was before the scenario."""
    kit.events.calling = False  # stop is the one call that delivers
    kit.relay.stop()
    kit.relay.start(kit.events)


if __name__ == "__main__":
    run("native", counted)
