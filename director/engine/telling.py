"""Telling several subscribers of one thing: the error of one is its own and keeps the news from nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.logger import Logger

_log = Logger()


def tell_each(subscribers: Iterable[Callable[..., object]], *news: object) -> None:
    """Call each with *news*; what one raises is logged. Who subscribes meanwhile is told the next time."""
    for told in tuple(subscribers):
        try:
            told(*news)
        except Exception:
            _log.failure("{told} could not take the news", told=getattr(told, "__qualname__", repr(told)))
