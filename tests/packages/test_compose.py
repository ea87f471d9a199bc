"""The compose file's cluster as it runs: images built as the Containerfile says, started by podman-compose.

Part of `make soak`, with ``COMPOSE_CLUSTER=1``, since images take minutes. No registry is asked: what both files name there is
made of Debian's own packages, debian:bookworm-slim by mmdebstrap, etcd and Prometheus from theirs. Grafana, which Debian has not,
is left out.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from twisted.trial.unittest import SynchronousTestCase

from deploy.packaging.deb import ROOT
from tests.packages.chroot import Failed, command, own_sources, require, sources

#: What is not there by then never will be: etcd elects, directors and agents find each other.
PATIENCE_S = 90.0
#: Images that come from registries, by ours.
STAND_INS = {
    "quay.io/coreos/etcd": """FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends etcd-server etcd-client
CMD ["etcd"]
""",
    "docker.io/prom/prometheus": """FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends prometheus && mkdir /prometheus && chown nobody /prometheus
USER nobody
VOLUME /prometheus
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
""",
}
#: Between podman-compose and podman, of which Debian's starts nothing whose requirements have some of their own, while the other
#: has waited for all of them; and which knows no service, only its container.
BETWEEN = """#!/bin/sh
for word; do
    shift
    case $word in
    --requires=*) ;;
    service:*) set -- "$@" "container:txdirector_${word#service:}_1" ;;
    *) set -- "$@" "$word" ;;
    esac
done
exec podman "$@"
"""
#: More than containers get here: some machines let nobody have podman's own millions.
LIMIT = 20_000


class Engine:
    """podman with images and volumes of its own, on a machine of its own: namespaces in which nothing but loopback is."""

    def __init__(self, folder: Path) -> None:
        self._files = folder
        for name, text in {
            "storage.conf": f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/run"\n',
            "containers.conf": f"""[containers]
default_ulimits = ["nofile={LIMIT}:{LIMIT}", "nproc={LIMIT}:{LIMIT}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/tmp"
[network]
network_config_dir = "{folder}/networks"
""",
            "between": BETWEEN,
        }.items():
            (folder / name).write_text(text)
        (folder / "between").chmod(0o755)
        self._env = {"CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf", "CONTAINERS_CONF": f"{folder}/containers.conf"}
        self._machine: subprocess.Popen[bytes] | None = None

    def build(self, *words: str | Path) -> None:
        """What needs the network: this machine's, with mounts of its own."""
        command("unshare", "--mount", *words, **self._env)

    def image(self, name: str, text: str) -> None:
        """Build it from a Containerfile."""
        (self._files / "Containerfile").write_text(text)
        self.build("podman", "build", "--quiet", "--network=host", f"--tag={name}", f"--file={self._files}/Containerfile", self._files)

    def switch_on(self) -> None:
        self._machine = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-euc",
             "mount -t tmpfs tmpfs /run; ip link set lo up; echo; while sleep 1; do :; done"], stdout=subprocess.PIPE)
        assert self._machine.stdout is not None
        self._machine.stdout.readline()

    def switch_off(self) -> None:
        """As a power cut: nothing of it is left."""
        if self._machine is not None:
            for pid in self._inside():
                os.kill(pid, 9)
            self._machine.communicate()

    def _inside(self) -> list[int]:
        """The first process of the machine, unless it is gone."""
        assert self._machine is not None
        return [int(pid) for pid in Path(f"/proc/{self._machine.pid}/task/{self._machine.pid}/children").read_text().split()]

    def run(self, *words: str | Path) -> str:
        """What a command there says."""
        [pid] = self._inside()
        return command("nsenter", f"--target={pid}", "--mount", "--net", "--pid", *words, **self._env)

    def compose(self, *words: str) -> str:
        return self.run(Path(sys.executable).parent / "podman-compose", f"--podman-path={self._files}/between", "--no-ansi",
                        f"--file={self._files}/sources/deploy/containers/compose.yaml", f"--file={self._files}/limits.yaml", *words)


if os.environ.get("COMPOSE_CLUSTER"):  # minutes: part of make soak

    class ComposeTests(SynchronousTestCase):
        """One story: the cluster comes up, works, loses its leader, comes up again, and goes."""

        engine: ClassVar[Engine]
        services: ClassVar[dict[str, Any]]
        password = ""

        @classmethod
        def setUpClass(cls) -> None:
            require("mmdebstrap", "podman", "runc", "/usr/lib/podman/aardvark-dns", "ip", "curl", str(Path(sys.executable).parent / "podman-compose"))
            folder = Path(tempfile.mkdtemp(prefix="compose-"))
            cls.addClassCleanup(shutil.rmtree, folder)
            tree = sources(folder / "sources")
            shutil.copy(ROOT / ".dockerignore", tree)
            file = tree / "deploy/containers/compose.yaml"
            cls.services = yaml.safe_load(file.read_text())["services"]
            allowed = {"nofile": min(1 << 20, resource.getrlimit(resource.RLIMIT_NOFILE)[1]), "nproc": LIMIT}
            (folder / "limits.yaml").write_text(json.dumps({"services": {name: {"ulimits": allowed} for name in ("lb1", "lb2")}}))

            cls.engine = engine = Engine(folder)
            command("mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/apt/lists", "bookworm", folder / "base.tar",
                    *own_sources("bookworm"))
            base = "FROM scratch\nADD base.tar /\n"
            if (authority := os.environ.get("PIP_CERT")):  # how this machine reaches an index
                shutil.copy(authority, folder / "index.pem")
                base += "COPY index.pem /etc/index.pem\nENV PIP_CERT=/etc/index.pem\n"
            engine.image("docker.io/library/debian:bookworm-slim", base)
            for service in ("etcd1", "prometheus"):
                name = cls.services[service]["image"]
                engine.image(name, STAND_INS[name.rpartition(":")[0]])
            engine.build(Path(sys.executable).parent / "podman-compose", f"--file={file}", "--podman-build-args=--network=host", "build", "lb1", "agent1")
            engine.switch_on()
            cls.addClassCleanup(engine.switch_off)

        def eventually(self, found: Callable[[], Any]) -> Any:
            """What it finds that is true."""
            end = time.monotonic() + PATIENCE_S
            while True:
                why: object = None
                try:
                    if answer := found():
                        return answer
                except (AssertionError, Failed, ValueError, KeyError) as error:
                    why = error
                if time.monotonic() > end:
                    self.fail(f"{why}\n{self.engine.run('podman', 'ps', '--all')}\n{self.engine.compose('logs', '--tail=20')}")
                time.sleep(0.5)

        def admin(self, number: int, path: str) -> Any:
            """What a director's admin answers."""
            if not self.password:  # told once: who is made anew finds the files and says nothing
                [self.password] = re.findall(r"with the password (\S+) ", self.engine.run("podman", "logs", "txdirector_init_1"))
            return json.loads(self.engine.run("curl", "-sfkm", "10", "-u", f"admin:{self.password}", f"https://127.0.0.1:740{number}/api/v1/{path}"))

        def client(self, number: int) -> str:
            return self.engine.run("curl", "-sfm", "10", f"http://127.0.0.1:808{number}/")

        def sample(self, query: str) -> dict[str, str]:
            """Prometheus's values, by instance."""
            answer = json.loads(self.engine.run("curl", "-sfm", "10", "-G", "http://127.0.0.1:9090/api/v1/query", "--data-urlencode", f"query={query}"))
            return {each["metric"].get("instance", ""): each["value"][1] for each in answer["data"]["result"]}

        def state(self, service: str) -> dict[str, Any]:
            [state] = json.loads(self.engine.run("podman", "inspect", f"txdirector_{service}_1"))
            return dict(state)

        def test_cluster(self) -> None:
            started = [name for name in self.services if name != "grafana"]
            began = time.monotonic()
            self.engine.compose("up", "--detach", "--no-build", *started)
            leader = self.eventually(self.works)
            print(f"the compose file's cluster served after {time.monotonic() - began:.0f} s", file=sys.__stdout__)
            self.confined()

            self.engine.compose("stop", leader)
            [other] = {"lb1", "lb2"} - {leader}
            number = int(other[-1])
            self.eventually(lambda: self.admin(number, "cluster")["leader"] == other)
            self.client(number)
            self.engine.compose("start", leader)
            self.assertEqual(self.eventually(self.works), other)

            # what was made once is found there
            self.engine.compose("up", "--detach", "--no-build", "--force-recreate", *started)
            self.eventually(self.works)
            self.assertIn("has services already", self.engine.run("podman", "logs", "txdirector_bootstrap_1"))

            self.engine.compose("down", "--volumes")
            self.assertEqual(self.engine.run("podman", "ps", "--all", "--quiet"), "")
            self.assertEqual(self.engine.run("podman", "volume", "ls", "--quiet"), "")

        def works(self) -> str:
            """Every part does what it is for. Returns the leader."""
            for name in self.services:
                if name != "grafana":
                    state = self.state(name)["State"]
                    once = name in ("init", "bootstrap")
                    self.assertEqual((state["Status"], state["ExitCode"]), ("exited" if once else "running", 0), name)
            for number in (1, 2, 3):
                self.assertIn("is healthy", self.engine.run("podman", "exec", f"txdirector_etcd{number}_1", "etcdctl", "endpoint", "health",
                                                            f"--endpoints=http://etcd{number}:2379"))
            leaders = set()
            for number in (1, 2):
                cluster = self.admin(number, "cluster")
                self.assertEqual([(each["name"], each["linked"]) for each in cluster["members"] if each["name"] != f"lb{number}"],
                                 [(f"lb{3 - number}", True)])
                leaders.add(cluster["leader"])
                self.assertEqual([(each["name"], each["in_rotation"], each["agent_connected"]) for each in self.admin(number, "hosts")],
                                 [("app1", True, True), ("app2", True, True)])
                self.assertIn("Directory listing", self.client(number))
            [leader] = leaders
            self.assertIn(leader, ("lb1", "lb2"))
            self.assertEqual(self.sample("up"), {"lb1:7401": "1", "lb2:7401": "1"})
            self.assertEqual(set(self.sample("txdirector_build_info")), {"lb1:7401", "lb2:7401"})
            return str(leader)

        def confined(self) -> None:
            """Nobody is root, nor may become it; nothing but volumes can be written."""
            for name in ("lb1", "lb2", "app1", "agent1"):
                status = self.engine.run("podman", "exec", f"txdirector_{name}_1", "cat", "/proc/self/status")
                self.assertRegex(status, r"(?s)Uid:\t10001\t.*CapEff:\t0+\n.*CapBnd:\t0+\n.*NoNewPrivs:\t1")
                self.assertIn("Read-only", self.engine.run("podman", "exec", f"txdirector_{name}_1", "sh", "-c", "touch /here 2>&1 || true"))
