"""What a probe that asks something may say, and what only some kinds of probes understand. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cluster.errors import Problem
from cluster.model import Probe
from cluster.validate import join

#: A conversation of more is a script's.
MAX_STEPS = 16

#: Keys that only these kinds understand.
_OF_KINDS = {
    "steps": ("exchange",), "grpc_service": ("grpc",), "role": ("redis", "postgresql"), "user": ("redis", "postgresql"),
    "password": ("redis", "postgresql"), "database": ("postgresql",),
}
_DEFAULTS = Probe()


def asking_errors(place: str, probe: Probe) -> Iterator[Problem]:
    """Of all kinds but scripts, what is not about where they ask."""
    for key, kinds in _OF_KINDS.items():
        if probe.kind not in kinds and getattr(probe, key) != getattr(_DEFAULTS, key):
            yield Problem(join(place, key), f"a {probe.kind} probe has no use for it",
                          " and ".join(f'kind = "{kind}"' for kind in kinds) + (" do" if len(kinds) > 1 else " does"))
    if probe.kind == "exchange":
        yield from _step_errors(join(place, "steps"), probe)
    if probe.user and probe.password is None and probe.kind == "redis":
        yield Problem(join(place, "password"), "missing: a user of Redis signs in with one")


def _step_errors(place: str, probe: Probe) -> Iterator[Problem]:
    if not any(step.receive is not None for step in probe.steps):
        yield Problem(place, "nothing is waited for, so every host would pass", "give a step what it is to receive")
    if len(probe.steps) > MAX_STEPS:
        yield Problem(place, f"expected at most {MAX_STEPS} steps, got {len(probe.steps)}", "longer ones are a script's")
    for number, step in enumerate(probe.steps):
        if step.receive is None:
            continue
        here = join(place, number, "receive")
        try:
            pattern = re.compile(step.receive.encode("latin-1"), re.MULTILINE)
        except (re.error, UnicodeEncodeError) as error:  # the latter has been told of
            if isinstance(error, re.error):
                yield Problem(here, f"no regular expression: {error.msg}")
            continue
        if pattern.search(b"") is not None:
            yield Problem(here, "matches nothing at all, so every host would pass")
