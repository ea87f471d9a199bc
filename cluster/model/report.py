"""What agents report."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class LoadReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host's load over the interval since its last report. None: the agent does not know.

    Unknown keys are ignored, so that newer agents can speak to older directors.
    """

    utilisation: Annotated[float, Meta(ge=0, le=1)] | None = None  #: of the scarcest resource, 0..1
    in_flight: Annotated[float, Meta(ge=0, le=1e9)] | None = None  #: requests or connections being served now
    latency_s: Annotated[float, Meta(ge=0, le=1e6)] | None = None  #: mean of what finished
    rate: Annotated[float, Meta(ge=0, le=1e9)] | None = None  #: completions per second, failed ones included
    errors: Annotated[float, Meta(ge=0, le=1)] | None = None  #: failed fraction of the completions
    completions: Annotated[float, Meta(ge=0, le=1e12)] | None = None  #: count behind *rate* and *errors*
    capacity: Annotated[float, Meta(gt=0, le=1e9)] | None = None  #: the agent's own estimate, completions/s
    max_connections: Annotated[int, Meta(ge=0, le=1_000_000_000)] | None = None  #: the agent lowers the maximum
    weight: Annotated[float, Meta(ge=0, le=1)] | None = None  #: the agent lowers the weight by this factor
    state: Literal["ready", "drain", "down"] = "ready"
    custom: dict[Annotated[str, Meta(max_length=63)], float] = {}
