"""Schedulers by name: what there is, what can be set, and how to make one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from math import isfinite, isqrt
from typing import Any, NamedTuple, TypeAlias

from cluster.errors import Misuse
from director.core.schedulers.auto import Auto
from director.core.schedulers.base import Random, Scheduler
from director.core.schedulers.ewma import DECAY_S, PeakEwma
from director.core.schedulers.least import LeastConnections, PowerOfChoices, WeightedLeastConnections
from director.core.schedulers.loadaware import LoadAware
from director.core.schedulers.loadaware.guards import MOST_SHARE, STALL_AFTER
from director.core.schedulers.loadaware.slowness import FADE_S
from director.core.schedulers.maglev import TABLE_SIZE, Maglev
from director.core.schedulers.simple import Drawn, RoundRobin, Weighted
from director.core.schedulers.smooth import SmoothRoundRobin

Value: TypeAlias = float | int | str | bool


class Parameter(NamedTuple):
    """Something a group may set for its scheduler."""

    name: str
    type: type[float] | type[int] | type[str] | type[bool]
    default: Value
    doc: str
    allowed: Callable[[Any], bool]
    expected: str  #: what *allowed* wants, in words


class Kind(NamedTuple):
    """One scheduler as documentation and validation know it."""

    name: str
    doc: str
    make: Callable[..., Scheduler]  #: called with the Random and the parameters by name
    aliases: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()


_CHOICES = Parameter(
    "choices", int, 2, "hosts drawn for each connection", lambda value: 2 <= value <= 64, "at least 2 and at most 64"
)

#: Tables from about two hosts to the larger of the two sizes of Maglev's authors; building takes time in proportion.
_TABLE_SIZES = range(257, 655373 + 1)


def _is_table_size(value: int) -> bool:
    return value in _TABLE_SIZES and all(value % divisor for divisor in range(2, isqrt(value) + 1))


_TABLE_SIZE = Parameter(
    "table_size",
    int,
    TABLE_SIZE,
    "slots of the lookup table; at least a hundred for each host",
    _is_table_size,
    f"a prime from {_TABLE_SIZES.start} to {_TABLE_SIZES.stop - 1}",
)

_BOUND = Parameter(
    "bound", float, 0.0, "a host takes at most so many times its fair share of open connections; 0: no bound",
    lambda value: value == 0 or 1.05 <= value <= 10, "0, or at least 1.05 and at most 10",
)
_DECAY = Parameter(
    "decay_s", float, DECAY_S, "seconds in which a high latency is forgotten", lambda value: 0.1 <= value <= 600,
    "at least 0.1 and at most 600",
)
_LOADAWARE = (
    Parameter(
        "fade_s", float, FADE_S, "seconds in which the slowness of a host that finishes nothing is forgotten",
        lambda value: 0.1 <= value <= 60, "at least 0.1 and at most 60",
    ),
    Parameter(
        "stall_after", float, STALL_AFTER, "a host that finishes nothing for so many usual durations hangs",
        lambda value: 2 <= value <= 1000, "at least 2 and at most 1000",
    ),
    Parameter(
        "most_share", float, MOST_SHARE, "a host with more than so many fair shares of the last picks is held back",
        lambda value: 1.1 <= value <= 1000, "at least 1.1 and at most 1000",
    ),
)
#: Not the scheduler's own, but of the weights that it sees: see `follows_reports`.
_REPORTS = Parameter(
    "reports", bool, True, "weights follow the agents' reports", lambda value: True, "true or false"
)

_KINDS = (
    Kind(
        "auto", "loadaware while agents report in the group, else weightedleastconns",
        lambda random: Auto(),
    ),
    Kind("random", "any host, all equally likely", Drawn, ("rand",)),
    Kind("roundrobin", "every host in turn, weights ignored", lambda random: RoundRobin(), ("roundr",)),
    Kind("weighted", "any host, as likely as its share of the weights", Weighted, ("weightr",)),
    Kind(
        "weightedroundrobin",
        "every host in turn as often as its weight says, evenly spread",
        lambda random: SmoothRoundRobin(),
        parameters=(_REPORTS,),
    ),
    Kind(
        "leastconns",
        "the fewest open connections, weights ignored; among equals the least recently picked",
        lambda random: LeastConnections(),
        ("leastc", "leastconnsrr"),
    ),
    Kind(
        "weightedleastconns",
        "the fewest open connections for its weight; among equals the least recently picked",
        lambda random: WeightedLeastConnections(),
        ("weightlc",),
        (_REPORTS,),
    ),
    Kind(
        "p2c", "the one with the fewest open connections for its weight of a few drawn", PowerOfChoices, (), (_CHOICES,)
    ),
    Kind(
        "ewma", "the least latency times open connections for its weight",
        lambda random, decay_s=DECAY_S: PeakEwma(decay_s), (), (_DECAY,),
    ),
    Kind(
        "loadaware",
        "the least loaded, by open connections, recent slowness and the agents' reports",
        lambda random, **parameters: LoadAware(**parameters), (), _LOADAWARE,
    ),
    Kind("maglev", "by the client's address, the same on every director", Maglev, (), (_TABLE_SIZE, _BOUND)),
)

#: Every scheduler by its full name.
SCHEDULERS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}

_BY_NAME: Mapping[str, Kind] = {name: kind for kind in _KINDS for name in (kind.name, *kind.aliases)}


def make_scheduler(name: str, parameters: Mapping[str, Value], *, random: Random) -> Scheduler:
    """A scheduler without hosts, by its name or one of its aliases.

    :raises Misuse: with everything `check_parameters` finds.
    """
    if problems := check_parameters(name, parameters):
        raise Misuse("; ".join(problems))
    return _BY_NAME[name].make(random, **{key: value for key, value in parameters.items() if key != _REPORTS.name})


def follows_reports(parameters: Mapping[str, Value]) -> bool:
    """Whether the weights that a group's scheduler sees have in them what its agents report."""
    return bool(parameters.get(_REPORTS.name, _REPORTS.default))


def check_parameters(name: str, parameters: Mapping[str, Value]) -> list[str]:
    """Everything wrong with a group's choice of scheduler and parameters, each with a hint; empty when it is right."""
    kind = _BY_NAME.get(name)
    if kind is None:
        return [f"unknown scheduler {name!r} ({_did_you_mean(name, _BY_NAME)})"]
    known = {parameter.name: parameter for parameter in kind.parameters}
    problems = []
    for key, value in parameters.items():
        parameter = known.get(key)
        if parameter is None:
            hint = _did_you_mean(key, known) if known else "it has none"
            problems.append(f"scheduler {name!r} has no parameter {key!r} ({hint})")
        elif not _fits(value, parameter):
            problems.append(
                f"parameter {key!r} of scheduler {name!r} is {value!r} "
                f"(expected: {parameter.type.__name__}, {parameter.expected})"
            )
    return problems


def _fits(value: object, parameter: Parameter) -> bool:
    if isinstance(value, bool) is not (parameter.type is bool):
        return False
    if parameter.type is float:
        return isinstance(value, float | int) and isfinite(value) and parameter.allowed(value)
    return isinstance(value, parameter.type) and parameter.allowed(value)


def _did_you_mean(word: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(word.lower(), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(sorted(known))}"
