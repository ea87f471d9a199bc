"""Counters of a page in Prometheus' text format, and what they come to between two of them. No clock, no I/O.

Source: Prometheus' "Exposition formats" (text version 0.0.4), and OpenMetrics 1.0, whose samples look alike. Only lines that
begin with a wanted name are read, each strictly: one that is broken spoils the page, since a figure must be right or absent.
prometheus-client has a parser, but an agent's machine need not have it, and it takes ten times as long for a page of which
four lines are wanted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

#: Of one sample; nobody's have so many.
MAX_LABELS = 64

#: Names are followed by a label set, a blank or a tab.
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|=)\s*"((?:[^"\\\n]|\\.)*)"\s*')
#: A value; maybe a timestamp; maybe an exemplar of OpenMetrics.
_REST = re.compile(r"[ \t]+(\+?[0-9.]+(?:[eE][+-]?[0-9]+)?)(?:[ \t]+-?[0-9.]+)?(?:[ \t]+#.*)?[ \t]*$")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "\\": "\\", '"': '"'}


class Selector(NamedTuple):
    """Which samples are summed: of this name, with at least these labels."""

    name: str
    equal: Mapping[str, str]
    like: Mapping[str, re.Pattern[str]]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return (all(labels.get(key, "") == value for key, value in self.equal.items())
                and all(pattern.fullmatch(labels.get(key, "")) for key, pattern in self.like.items()))


def selector(text: str) -> Selector:
    """Of ``name``, ``name{label="value",other=~"pattern"}``. Raises ValueError."""
    name = _NAME.match(text)
    if name is None:
        raise ValueError(f"{text!r}: expected a metric's name")
    labels, end = _labels(text, name.end())
    if text[end:].strip():
        raise ValueError(f'{text!r}: expected name{{label="value"}}')
    try:
        like = {key: re.compile(value) for key, operator, value in labels if operator == "=~"}
    except re.error as error:
        raise ValueError(f"{text!r}: {error}") from error
    return Selector(name[0], {key: value for key, operator, value in labels if operator == "="}, like)


def _labels(text: str, at: int) -> tuple[list[tuple[str, str, str]], int]:
    """The label set at *at*, if there is one, and where it ends."""
    found: list[tuple[str, str, str]] = []
    if text[at:at + 1] != "{":
        return found, at
    at += 1
    while text[at:at + 1] != "}":
        label = _LABEL.match(text, at)
        if label is None or len(found) == MAX_LABELS or label[1] in [key for key, _, _ in found]:
            raise ValueError(f"no labels: {text[:200]!r}")
        found.append((label[1], label[2], _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[0]), label[3])))
        at = label.end()
        if text[at:at + 1] == ",":
            at += 1
        elif text[at:at + 1] != "}":
            raise ValueError(f"no labels: {text[:200]!r}")
    return found, at + 1


def sums(page: str, wanted: Iterable[Selector]) -> list[float | None]:
    """The sum of the samples for each of *wanted*; None where there is none.

    :raises ValueError: a line of a wanted name is no sample, or says the same twice; a counter's value is no count.
    """
    wanted = list(wanted)
    names = tuple({each.name for each in wanted})
    found: list[float | None] = [None] * len(wanted)
    seen = set()
    for line in page.split("\n"):
        if not line.startswith(names):
            continue
        name = _NAME.match(line)
        if name is None or name[0] not in names:
            continue
        labels, end = _labels(line, name.end())
        rest = _REST.match(line.rstrip("\r"), end)
        if rest is None or any(operator != "=" for _, operator, _ in labels):
            raise ValueError(f"no sample: {line[:200]!r}")
        value = float(rest[1])
        if not 0 <= value < math.inf:
            raise ValueError(f"no count: {line[:200]!r}")
        have = {key: text for key, _, text in labels}
        same = (name[0], frozenset(have.items()))
        if same in seen:
            raise ValueError(f"said twice: {line[:200]!r}")
        seen.add(same)
        for index, each in enumerate(wanted):
            if each.name == name[0] and each.matches(have):
                found[index] = (found[index] or 0.0) + value
    return found


class Counts(NamedTuple):
    """Counters at one moment. A kind that is not asked for is 0."""

    at: float
    requests: float
    errors: float = 0.0
    latency_sum_s: float = 0.0
    latency_count: float = 0.0


class Served(NamedTuple):
    """What was served in an interval."""

    rate: float  #: per second, failed ones included
    completions: float  #: that no report had yet
    errors: float | None = None  #: failed share; None: nothing was served, or nobody counts failures
    latency_s: float | None = None


class Tally:
    """Makes figures of counters.

    :param counts_errors: whether there are counters of failures.
    :param keep_s: for how long a rate stands when no new counters come.
    """

    def __init__(self, *, counts_errors: bool, keep_s: float) -> None:
        self._counts_errors = counts_errors
        self._keep_s = keep_s
        self._reported: Counts | None = None  # up to here in reports
        self._last: Counts | None = None
        self._served: Served | None = None
        self._until = -math.inf

    def put(self, counts: Counts) -> None:
        """New counters. Any that went back began anew, so that the interval says nothing."""
        if self._last is not None and any(after < before for before, after in zip(self._last[1:], counts[1:], strict=True)):
            self._reported = self._served = None
        self._last = counts
        if self._reported is None:
            self._reported = counts
        self._until = counts.at + self._keep_s

    def take(self, now: float) -> Served | None:
        """What was served since the last time; when no counters came meanwhile, the last rate, of nothing new."""
        before, after = self._reported, self._last
        if before is None or after is None or now > self._until:
            self._reported = after if now <= self._until else None
            self._served = None
            return None
        elapsed = after.at - before.at
        if elapsed <= 0:
            return None if self._served is None else self._served._replace(completions=0.0, errors=None)
        self._reported = after
        requests, failed = after.requests - before.requests, after.errors - before.errors
        timed = after.latency_count - before.latency_count
        self._served = Served(
            rate=requests / elapsed,
            completions=requests,
            errors=min(1.0, failed / requests) if requests and self._counts_errors else None,
            latency_s=(after.latency_sum_s - before.latency_sum_s) / timed if timed else None,
        )
        return self._served
