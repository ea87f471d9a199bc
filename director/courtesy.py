"""Letting the relay's threads run, where they share a core with the interpreter."""

from __future__ import annotations

import os
import threading
M = os.environ.get("MODE", "yield")
_id = threading.get_native_id
def give_way() -> None:
    if M == "yield":
        os.sched_yield()
    elif M == "yield2":
        os.sched_yield()
        os.sched_yield()
