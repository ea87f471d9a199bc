"""What attackers do to honest clients: ``python -m bench.attack [--rounds N] [--seconds N] [--only KIND,…]``.

The director, the victim, has one core; honest clients, the backend and the attacker have the other, where the attacker gives
way (nice 19). For each attack, in turn: p99 of small messages on two connections that stay, and of new connections with one
exchange, one after the other, on the listener that is attacked (or on a plain one, where it is not clients' that is), first
alone and then while the attack goes on, in the same process. An honest client that is refused or cut off ends the bench.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from bench.machine import HERE, LOAD_CORE, PROXY_CORE, Load, Running, facts, free_ports
from tests.integration.pki import Authority

#: Another address than the honest ones'.
STRANGER = "127.0.0.66"
STRANGERS = [f"127.0.0.{number}" for number in range(66, 70)]
#: With a limit of 20,000 descriptors a director has some 9,100 places for clients; beyond them everybody waits, honest or
#: not, which is what limits of a client are for.
IDLE = 9_000 if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 20_000 else 8_000
#: Of one client, at the limited listener: the honest ones stay far below.
LIMITS = "limits = { max_connections_per_client = 100, new_per_client_per_s = 10000.0 }"


class Attack(NamedTuple):
    """:ivar at: the listener or port that is attacked; :ivar seen: the listener whose honest clients are asked how it is."""

    name: str
    kind: str
    at: str
    seen: str
    addresses: list[str]


ATTACKS = (
    Attack("slow ClientHellos", "slow-hellos", "shared", "shared", [STRANGER]),
    Attack("handshake flood, plain clients beside it", "handshakes", "secure", "plain", [STRANGER]),
    Attack("handshake flood, clients of TLS", "handshakes", "secure", "secure", [STRANGER]),
    Attack("accept burst", "accept-burst", "plain", "plain", [STRANGER]),
    Attack("accept burst, 100 to a client", "accept-burst", "limited", "limited", [STRANGER]),
    Attack("PROXY header drip", "header-drip", "proxied", "proxied", [STRANGER]),
    Attack("RST storm", "resets", "plain", "plain", [STRANGER]),
    Attack(f"{IDLE:,} idle connections", "idle", "plain", "plain", []),
    Attack("agents' hello flood", "agent-hellos", "agents", "plain", [STRANGER]),
    Attack("slow bodies at the admin", "slow-bodies", "admin", "plain", STRANGERS),
)


class Victim:
    """A director with a service for each kind of listener."""

    def __init__(self, directory: Path, backend: int, relay: str) -> None:
        names = ("plain", "shared", "secure", "limited", "proxied", "agents", "admin")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        certificate, key = Authority(directory).issue("secure.example")
        digest = "0" * 64
        text = f'[node]\nlog.level = "error"\nadmin.endpoints = [{{ listen = "127.0.0.1:{self.ports["admin"]}" }}]\n'
        text += f'agents.listen = ["127.0.0.1:{self.ports["agents"]}"]\n'
        text += f'[node.agents.identities.web]\ntoken_sha256 = "{digest}"\nhosts = ["plain/main/*"]\n'
        for name, more in (
            ("plain", ""), ("shared", ""), ("named", 'sni.names = ["*.example"]'), ("limited", LIMITS),
            ("proxied", f'proxy.accept_from = ["{STRANGER}"]'),
            ("secure", f'tls.certificates = [{{ certificate = "{certificate}", key = "{key}" }}]'),
        ):
            port = self.ports["shared" if name == "named" else name]
            text += f'[services.{name}]\nlisten = ["127.0.0.1:{port}"]\n{more}\n'
            text += "" if name == "secure" else f'relay = "{relay}"\n'
            text += f'[services.{name}.groups.main]\nhealth.probe.kind = "none"\nhosts.s = "127.0.0.1:{backend}"\n'
        (directory / "director.toml").write_text(text)
        self.running = Running([sys.executable, "-m", "director", "run", str(directory / "director.toml")], core=PROXY_CORE,
                               cwd=HERE.parent)
        for port in self.ports.values():
            self.running.await_port(port)


def honest(load: Load, attack: Attack, port: int, seconds: float) -> dict[str, float]:
    """p99, in microseconds."""
    if attack.seen == "secure":
        words = [sys.executable, "-m", "bench.attackers", "honest-tls", str(port), str(2 * seconds)]
        done = subprocess.run(["taskset", "-c", LOAD_CORE, *words], capture_output=True, text=True, check=True,
                              cwd=HERE.parent)
        return {"new": json.loads(done.stdout)["p99_us"]}
    return {"kept": load.run("messages", port, 2, 64, seconds)["p99_us"],
            "new": load.run("connections", port, 1, seconds)["p99_us"]}


@contextlib.contextmanager
def under(attack: Attack, load: Load, port: int) -> Iterator[None]:
    """While it goes on."""
    words = ([load.program, "idle", str(port), str(IDLE)] if attack.kind == "idle" else
             [sys.executable, "-m", "bench.attackers", attack.kind, str(port), *attack.addresses])
    with subprocess.Popen(["taskset", "-c", LOAD_CORE, "nice", "-n", "19", *words], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, cwd=HERE.parent) as attacker:
        assert attacker.stdout is not None and attacker.stdin is not None
        if not attacker.stdout.readline():
            raise SystemExit(f"the attacker is away: {attack.name}")
        yield
        if attacker.poll() is not None:
            raise SystemExit(f"the attacker gave up: {attack.name}")
        attacker.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--relay", default="auto")
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true", help="one short round; writes nothing and measures nothing")
    options = parser.parse_args()
    rounds, seconds = (1, 0.3) if options.quick else (options.rounds, options.seconds)
    chosen = [each for each in ATTACKS if not options.only or each.kind in options.only.split(",")]
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        load = Load(Path(name))
        try:
            for turn in range(rounds):
                for number, attack in enumerate(chosen):
                    directory = Path(name) / f"{turn}-{number}"
                    directory.mkdir()
                    victim = Victim(directory, load.port, options.relay)
                    kept = found.setdefault(attack.name, {})
                    try:
                        seen, at = victim.ports[attack.seen], victim.ports[attack.at]
                        honest(load, attack, seen, 0.3)  # the start's own work is over
                        for key, value in honest(load, attack, seen, seconds).items():
                            kept.setdefault(f"{key} idle", []).append(value)
                        with under(attack, load, at):
                            before = victim.running.cpu_s()
                            for key, value in honest(load, attack, seen, seconds).items():
                                kept.setdefault(f"{key} attacked", []).append(value)
                            kept.setdefault("cpu", []).append((victim.running.cpu_s() - before) / (2 * seconds))
                    finally:
                        victim.running.stop()
                    print(".", end="", file=sys.stderr, flush=True)
        finally:
            load.stop()
    print(file=sys.stderr)
    print("| attack | messages, idle | attacked | ratio | new connections, idle | attacked | ratio | of the core |")
    print("|---|---|---|---|---|---|---|---|")
    for name, kept in found.items():
        medians = {key: statistics.median(values) for key, values in kept.items()}
        cells = []
        for key in ("kept", "new"):
            idle, attacked = medians.get(f"{key} idle"), medians.get(f"{key} attacked")
            if idle and attacked:
                cells += [f"{idle / 1000:.2f} ms", f"{attacked / 1000:.2f} ms", f"{attacked / idle:.2f}"]
            else:
                cells += ["–"] * 3
        print(f"| {name} | {' | '.join(cells)} | {medians['cpu']:.2f} |")
    if not options.quick:
        path = HERE / "results" / f"attack-{datetime.now(UTC):%Y%m%d}.json"
        path.write_text(json.dumps({"rounds": found} | facts(), indent=1) + "\n")
        print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
