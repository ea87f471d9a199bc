"""``directorctl``: see and steer a running director. Exit codes: docs/reference/directorctl.md.

One module for each topic; `director.ctl.command` has what they share.
"""

from __future__ import annotations

try:
    from director.ctl import tables as _tables  # noqa: F401 - what needs the extra `director`
except ImportError as error:  # pragma: no cover - the base installation is the agent's
    raise SystemExit(f"{error}; directorctl needs: pip install 'txdirector[director]'") from error

from director.ctl.main import main

__all__ = ["main"]
