"""A local user without rights who tries, without a pause, to connect to UNIX sockets; a process of its own.

    python trespasser.py USER_ID PATH...

Says that it began once it has tried everywhere; then a path each time it gets in there, and how often it tried at the end
of its input.
"""

from __future__ import annotations

import os
import select
import socket
import sys


def main(user: int, paths: list[str]) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    tries = 0
    while not tries or not select.select([0], [], [], 0)[0]:
        for _ in range(50):
            for path in paths:
                tries += 1
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                    if sock.connect_ex(path) == 0:
                        print(path, flush=True)
            if tries == len(paths):
                print("began", flush=True)
    print(tries, flush=True)


main(int(sys.argv[1]), sys.argv[2:])
