"""A process with a fence of the kind, and for the addresses, in its arguments; it does what lines on its input say, and says when it has."""

from __future__ import annotations

import os
import signal
import sys
import time
from ipaddress import ip_address

from twisted.internet.testing import MemoryReactorClock

from director.ha.fence import fences
from director.ha.leading import boottime


def main() -> None:
    kind, *addresses = sys.argv[1:]
    (fence,) = fences([[ip_address(text) for text in addresses]], interface="eth0", reactor=MemoryReactorClock(), kinds=[kind])
    print(fence.kind, fence.holds(), flush=True)
    for line in sys.stdin:
        what, seconds = line.split()
        until_ns = int((boottime() + float(seconds)) * 1e9)
        while what == "refresh" and until_ns / 1e9 - boottime() > float(seconds) / 2:  # until it finds that it was stopped
            fence.open_until(until_ns)
            time.sleep(0.0005)
            if until_ns / 1e9 - boottime() > float(seconds) / 2:
                until_ns = int((boottime() + float(seconds)) * 1e9)
        if what == "frozen":
            os.kill(os.getpid(), signal.SIGSTOP)
        fence.open_until(until_ns)
        print(until_ns, flush=True)


if __name__ == "__main__":
    main()
