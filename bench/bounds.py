"""What floods and storms cost a director: ``python -m bench.bounds [--seconds N] [--only storm,bodies,hellos]``.

- *storm*: 200 hosts that are up for 5 s and down for 5 s: lines of the log a second.
- *bodies*: strangers with bodies of 1 MiB at the admin, more of them than it takes connections: what the director's memory
  grows by while they stay, and after they have gone.
- *hellos*: hundreds of connections with hellos that are not believed, from one address, again and again: how long an honest
  agent of another address waits for its welcome, when an agent was welcome there before and when none was.

Each has a director of its own, with the settings that it has by default. Nothing here is compared with a peer: the figures
are bounds, and their order is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import resource
import secrets
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.machine import HERE, LOAD_CORE, PROXY_CORE, Running, free_ports

HOSTS = 200
UP_S = 5.0
STRANGERS = 600
BODY_BYTES = 1 << 20
#: Connections at once, each with a hello that is not believed.
FLOODERS = 300
#: Twice what the director shakes hands with; far more would only fill the kernel's queue, before which all are equal.
FLOOD_PER_S = 1000.0
HELLO = ('{{"type":"hello","version":1,"agent":"{name}","boot_id":"{boot}","token":"{token}",'
         '"hosts":[{{"host":"web/main/{host}"}}]}}\n')
#: Honest agents, one after the other, for each kind of address.
WELCOMES = 10
DEADLINE_S = 20.0


def flap(ports: list[int]) -> None:
    """Listen on all of *ports*, then on none, for `UP_S` each, for good."""
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def forever() -> None:
        while True:
            servers = [await asyncio.start_server(serve, "127.0.0.1", port, reuse_address=True) for port in ports]
            await asyncio.sleep(UP_S)
            for server in servers:
                server.close()
            await asyncio.sleep(UP_S)

    asyncio.run(forever())


@contextlib.contextmanager
def director(directory: Path, text: str, port: int) -> Iterator[Running]:
    config = directory / "director.toml"
    config.write_text(text)
    running = Running([sys.executable, "-m", "director", "run", str(config)], core=PROXY_CORE, cwd=HERE.parent)
    try:
        running.await_port(port)
        yield running
    finally:
        running.stop()


def storm(directory: Path, seconds: float) -> None:
    (listen, *ports) = free_ports(1 + HOSTS)
    log = directory / "log"
    text = f'[node.log]\ntarget = "{log}"\n[services.web]\nlisten = ["127.0.0.1:{listen}"]\n'
    text += '[services.web.groups.main.health]\nprobe = { kind = "tcp" }\n[services.web.groups.main.hosts]\n'
    text += "".join(f'h{number} = "127.0.0.1:{port}"\n' for number, port in enumerate(ports))
    words = [sys.executable, "-m", "bench.bounds", "--flap", ",".join(map(str, ports))]
    hosts = Running(words, core=LOAD_CORE, cwd=HERE.parent)
    try:
        hosts.await_port(ports[-1])
        with director(directory, text, listen):
            time.sleep(2 * UP_S)
            before = len(log.read_text().splitlines())
            each = []
            for _ in range(int(seconds)):
                time.sleep(1.0)
                now = len(log.read_text().splitlines())
                each.append(now - before)
                before = now
    finally:
        hosts.stop()
    print(f"storm: {HOSTS} hosts, {UP_S:g} s up, {UP_S:g} s down: {statistics.mean(each):.1f} lines a second on average, "
          f"{max(each)} in the worst")


def rss_kb(running: Running) -> int:
    lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def bodies(directory: Path, seconds: float) -> None:
    listen, admin = free_ports(2)
    text = f'[node.admin]\nendpoints = [{{ listen = "127.0.0.1:{admin}" }}]\n'
    text += f'[node.admin.users.ada]\npassword = "{password()}"\nrole = "full"\n'
    text += f'[services.web]\nlisten = ["127.0.0.1:{listen}"]\n'
    body = b"x" * BODY_BYTES
    head = ("PUT /api/v1/services/x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            f"Content-Length: {BODY_BYTES}\r\n\r\n")
    with director(directory, text, admin) as running, contextlib.ExitStack() as stack:
        time.sleep(2.0)
        before = rss_kb(running)
        strangers = []
        for number in range(STRANGERS):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(1.0)
            sock.bind((f"127.0.0.{2 + number % 200}", 0))
            with contextlib.suppress(OSError):
                sock.connect(("127.0.0.1", admin))
                sock.sendall(head.encode())
            sock.setblocking(False)
            strangers.append((sock, memoryview(body)))
        most, answers, end = before, Counter[str](), time.monotonic() + seconds
        while time.monotonic() < end:
            going = []
            for sock, rest in strangers:
                try:
                    sent = sock.send(rest[:65536]) if rest else 0
                    going.append((sock, rest[sent:]))
                except BlockingIOError:
                    going.append((sock, rest))
                except OSError:
                    answers[answer(sock)] += 1
            strangers = going
            most = max(most, rss_kb(running))
            time.sleep(0.01)
        for sock, _ in strangers:
            answers[answer(sock)] += 1
        stack.close()
        time.sleep(1.0)
        after = rss_kb(running)
    told = ", ".join(f"{count} {what}" for what, count in sorted(answers.items()))
    print(f"bodies: {STRANGERS} strangers with {BODY_BYTES >> 10} KiB each: RSS {before / 1024:.1f} MB before, "
          f"{most / 1024:.1f} at most, {after / 1024:.1f} after; {told}")


def answer(sock: socket.socket) -> str:
    try:
        first = sock.recv(64)
    except BlockingIOError:
        return "still open"
    except OSError:
        return "reset"
    return f"answered {first.split()[1].decode()}" if first.startswith(b"HTTP/") else "closed"


def password() -> str:
    from argon2 import PasswordHasher

    return PasswordHasher().hash("a secret of the bench")


def hellos(directory: Path, seconds: float) -> None:
    listen, agents = free_ports(2)
    token = secrets.token_urlsafe(32)  # as `director token` makes them
    text = f'[node.agents]\nlisten = ["127.0.0.1:{agents}"]\n'
    digest = hashlib.sha256(token.encode()).hexdigest()
    text += f'[node.agents.identities.web]\ntoken_sha256 = "{digest}"\nhosts = ["web/main/*"]\n'
    text += f'[services.web]\nlisten = ["127.0.0.1:{listen}"]\n[services.web.groups.main.hosts]\n'
    text += "".join(f'h{number} = "127.0.0.1:1"\n' for number in range(WELCOMES + 1))

    def welcome(address: str, host: int) -> float:
        began = time.monotonic()
        with socket.socket() as sock:
            sock.settimeout(DEADLINE_S)
            sock.bind((address, 0))
            sock.connect(("127.0.0.1", agents))
            sock.sendall(HELLO.format(name=f"a{host}", boot=time.time_ns(), token=token, host=f"h{host}").encode())
            said = sock.recv(65536)
        if b'"welcome"' not in said:
            raise SystemExit(f"an honest agent is not welcome: {said!r}")
        return time.monotonic() - began

    over = threading.Event()
    tried = Counter[str]()

    def flood() -> None:
        while not over.is_set():
            with contextlib.ExitStack() as stack:
                for number in range(FLOODERS):
                    sock = stack.enter_context(socket.socket())
                    sock.bind(("127.0.0.9", 0))
                    sock.setblocking(False)
                    sock.connect_ex(("127.0.0.1", agents))
                    with contextlib.suppress(OSError):
                        sock.send(HELLO.format(name=f"f{number}", boot=number, token="x" * 43, host="h0").encode())
                    tried["hellos"] += 1
                over.wait(FLOODERS / FLOOD_PER_S)

    with director(directory, text, agents):
        time.sleep(1.0)
        idle = welcome("127.0.0.1", 0)
        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        try:
            began = time.monotonic()
            time.sleep(2.0)
            known = [welcome("127.0.0.1", 1 + number) for number in range(WELCOMES)]
            strange = [welcome(f"127.0.1.{1 + number}", 1 + number) for number in range(WELCOMES)]
        finally:
            over.set()
            thread.join()
        rate = tried["hellos"] / (time.monotonic() - began)
    for name, waits in (("known", known), ("new", strange)):
        print(f"hellos: {rate:.0f} a second that are not believed; an agent at a {name} address waits "
              f"{1000 * statistics.median(waits):.0f} ms (median of {WELCOMES}), {1000 * max(waits):.0f} at most; "
              f"{1000 * idle:.0f} without them")


MEASURES: dict[str, Callable[[Path, float], None]] = {"storm": storm, "bodies": bodies, "hellos": hellos}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the storm; bodies take a sixth")
    parser.add_argument("--only", default=",".join(MEASURES), help="these measures")
    parser.add_argument("--flap", metavar="PORTS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(20_000, hard), hard))
    if options.flap:
        flap([int(port) for port in options.flap.split(",")])
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as directory:
            MEASURES[name](Path(directory), options.seconds / (6 if name == "bodies" else 1))


if __name__ == "__main__":
    main()
