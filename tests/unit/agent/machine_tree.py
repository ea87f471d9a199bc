"""A machine's ``/proc`` and ``/sys/fs/cgroup`` in a folder, as far as agents read them. Texts have the kernel's form."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

_HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
V2_MOUNT = "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = "".join(f"{30 + n} 29 0:{30 + n} / /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}\n"
                    for n, name in enumerate(("cpu", "cpuacct", "cpuset", "memory")))


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/net/tcp", _HEADER)
        self.write("proc/self/mountinfo", "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def cgroup(self, path: str, **texts: object) -> None:
        """Files of a folder below ``/sys/fs/cgroup``, whose names have ``_`` for the first dot."""
        for name, text in texts.items():
            self.write(f"sys/fs/cgroup/{path}/{name.replace('__', '.')}", f"{text}\n")

    def cpus(self, *idle_total: tuple[int, int]) -> None:
        """The ticks of each CPU."""
        self.write("proc/stat", "".join(f"cpu{n} {total - idle} 0 0 {idle} 0 0 0 0 0 0\n"
                                        for n, (idle, total) in enumerate(idle_total)) + "ctxt 5\n")

    def listen(self, port: int, *, inode: int) -> None:
        self.write("proc/net/tcp", f"{_HEADER}   0: 00000000:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 "
                                   f"00000000     0        0 {inode} 1 0 100 0 0 10 0\n")

    def process(self, pid: int, *, parent: int, ticks: int, sockets: Iterable[int] = (), cgroups: str = "0::/\n",
                allowed: str = "0-1") -> None:
        self.write(f"proc/{pid}/stat", f"{pid} (web server) S {parent} {pid} {pid} 0 -1 4194560 1 0 0 0 {ticks} 0 0 0 20 0 "
                                       "1 0 99 1 2\n")
        self.write(f"proc/{pid}/status", f"Name:\tweb\nPid:\t{pid}\nCpus_allowed_list:\t{allowed}\nMems_allowed_list:\t0\n")
        self.write(f"proc/{pid}/cgroup", cgroups)
        folder = self.root / f"proc/{pid}/fd"
        folder.mkdir(exist_ok=True)
        for number, inode in enumerate(sockets, 3):
            link = folder / str(number)
            link.unlink(missing_ok=True)
            link.symlink_to(f"socket:[{inode}]")

    def end(self, pid: int) -> None:
        shutil.rmtree(self.root / f"proc/{pid}")
