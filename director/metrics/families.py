"""Families of many series, whose text is kept from one scrape to the next where the numbers have not changed.

prometheus-client needs ten microseconds to write a series, three seconds for those of ten thousand hosts. Here a family's
series lie in parts, one of each service; the numbers of a part are compared with those of the scrape before, and only where
they differ its lines are written anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple, overload

from prometheus_client.core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

#: The values of the labels, for each thing counted.
Where = Sequence[tuple[str, ...]]


class Part(NamedTuple):
    """What is compared and written at once."""

    where: Where
    values: list[float | None]  #: for each of *where* as many as the table has variants; None: there is no such series


class Table:
    """One family, and the text of its parts as last written.

    :param kind: ``counter``, ``gauge`` or ``histogram``.
    :param labels: names of the labels; their values must need no escaping, as names and enumerations do not.
    :param variants: one more label and all its values, where each thing has a series for each. Of a histogram ``le`` and the
        bounds, after whose values come the count and the sum.
    """

    def __init__(self, kind: str, name: str, text: str, labels: Sequence[str],
                 variants: tuple[str, Sequence[str]] | None = None) -> None:
        self._kind = kind
        self._name = f"txdirector_{name}"
        self._text = text
        sample = self._name + {"counter": "_total", "histogram": "_bucket"}.get(kind, "")
        label, values = variants if variants is not None else ("", ("",))
        self._variants = [(sample, {label: value} if label else {}) for value in values]
        if kind == "histogram":
            self._variants += [(f"{self._name}_count", {}), (f"{self._name}_sum", {})]
        self._labels = tuple(labels)
        self._order = sorted(range(len(labels)), key=lambda index: labels[index])
        self._lines = [self._line(*variant) for variant in self._variants]
        self._kept: dict[str, tuple[Part, bytes]] = {}

    def family(self, parts: Mapping[str, Part]) -> Metric:
        """The family as it is now. Parts by their keys; what is kept of others is forgotten."""
        for key in self._kept.keys() - parts.keys():
            del self._kept[key]
        family = Metric(self._name, self._text, self._kind)
        series: Any = Series(self, parts)
        family.samples = series
        return family

    def samples(self, part: Part) -> Iterator[Sample]:
        """As the library has them."""
        for (where, (name, variant)), value in zip(product(part.where, self._variants), part.values, strict=True):
            if value is not None:
                yield Sample(name, dict(zip(self._labels, where, strict=True)) | variant, float(value))

    def lines(self, key: str, part: Part) -> bytes:
        """A part in Prometheus' text format, which for series is OpenMetrics' too."""
        kept = self._kept.get(key)
        if kept is not None and kept[0] == part:
            return kept[1]
        order, values, written = self._order, iter(part.values), []
        for where in part.where:
            ordered = tuple([where[index] for index in order])
            for line in self._lines:
                value = next(values)
                if value is not None:
                    written.append(line % (*ordered, _number(value)))
        text = "".join(written).encode()
        self._kept[key] = part, text
        return text

    def _line(self, name: str, variant: dict[str, str]) -> str:
        """Its template, with the labels sorted as the library sorts them."""
        pairs = sorted([*((label, "%s") for label in self._labels), *variant.items()])
        labels = ",".join(f'{label}="{value}"' for label, value in pairs)
        return f"{name}{{{labels}}} %s\n"


class Series(Sequence[Sample]):
    """The samples of one family at one time; made when somebody looks, as `text` needs none."""

    def __init__(self, table: Table, parts: Mapping[str, Part]) -> None:
        self._table = table
        self._parts = parts

    def text(self) -> Iterator[bytes]:
        """Their lines, in pieces of some tens of microseconds."""
        for key, part in self._parts.items():
            yield self._table.lines(key, part)

    def __iter__(self) -> Iterator[Sample]:
        for part in self._parts.values():
            yield from self._table.samples(part)

    def __len__(self) -> int:
        return sum(value is not None for part in self._parts.values() for value in part.values)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        return list(self)[index]


def _number(value: float) -> str:
    if value == 0:
        return "0.0"
    return "1.0" if value == 1 else floatToGoString(value)
