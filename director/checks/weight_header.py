"""The weight that a host says in a header of its answer to an HTTP probe.

The header and its grammar are those of Google's load balancers, so that what answers them answers a director, kube-proxy
among others: ``X-Load-Balancing-Endpoint-Weight``, "a non-negative single-precision floating-point number in decimal string
representation" (cloud.google.com, Compute API v1, HealthStatus.WeightError), from 0 to 1000 (the same, "Configure weighted
load balancing" for external passthrough Network Load Balancers). What a weight is worth is `director.core.probed_weight`'s.
"""

from __future__ import annotations

import re

from cluster.model import Probe

HEADER = "X-Load-Balancing-Endpoint-Weight"
MOST = 1000.0

_DECIMAL = re.compile(rb"[0-9]{1,16}(?:\.[0-9]{0,16})?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*\r?")


def name_of(probe: Probe) -> bytes:
    """The name of the header to look for, in lower case; empty when there is none."""
    if probe.kind != "http" or not probe.weight_header:
        return b""
    return (HEADER if probe.weight_header is True else probe.weight_header).lower().encode("ascii")


def weight_in(fields: bytes, name: bytes) -> tuple[float | None, str]:
    """What the header *name* says in the lines *fields*, and in words; None: nothing that counts.

    A weight that is said twice, or is no number from 0 to `MOST`, is none.
    """
    found = [match[2] for line in fields.split(b"\n") if (match := _FIELD.fullmatch(line)) and match[1].lower() == name]
    if not found:
        return None, "no weight"
    if len(found) == 1 and _DECIMAL.fullmatch(found[0]) and float(found[0]) <= MOST:
        weight = float(found[0])
        return weight, f"weight {weight:g}"
    return None, "a weight that is none"
