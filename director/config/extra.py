"""Whether what a director needs beyond the agent's dependencies is installed."""

from __future__ import annotations

from importlib.util import find_spec

#: The top-level modules of the extra ``director``.
MODULES = ("argon2", "bcrypt", "etcd3", "grpc", "jinja2", "prometheus_client", "rich", "tomli_w")


def missing() -> str:
    """What to do about absent modules, in a sentence; empty when all are there."""
    absent = [name for name in MODULES if not _present(name)]
    if not absent:
        return ""
    return f"a director needs more than is installed here ({', '.join(absent)}): pip install 'txdirector[director]'"


def _present(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # in sys.modules, but as None or without a spec
        return False
