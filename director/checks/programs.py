"""Which programs are run as script probes on this machine."""

from __future__ import annotations

import os


def refusal(program: str, directory: str | None) -> str:
    """Why *program* is not run as a probe on this machine; empty when it is."""
    if directory is None:
        return "node.scripts names no directory for such programs"
    if not os.path.normpath(program).startswith(os.path.join(os.path.normpath(directory), "")):
        return f"it is not in {directory} (node.scripts)"
    return unfit(program)


def unfit(program: str) -> str:
    """Why *program* cannot be run at all; empty when it can."""
    if not os.path.exists(program):
        return "there is no such file"
    if not os.path.isfile(program):
        return "it is no file"
    return "" if os.access(program, os.X_OK, effective_ids=True) else "it is not executable"
