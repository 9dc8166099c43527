"""Contestants that take turns: their values by round, medians, and ratios within a round. Nothing is timed here.

A shared machine is never quiet, so absolute times mean little: contestants take turns within each round and what counts
is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """One contestant's rounds.

    Attributes:
        median: of its values.
        smallest: of its values.
        largest: of its values.
        ratio: median over rounds of its value divided by the baseline's in the same round.
    """

    median: float
    smallest: float
    largest: float
    ratio: float


def alternate(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Calls every contestant once per round, in turn, the order reversed every other round; name -> values."""
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(rounds):
        for name in list(contestants)[:: -1 if index % 2 else 1]:
            values[name].append(contestants[name]())
    return values


def summarize(values: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Summary]:
    """Medians, extremes and ratios to the baseline; every contestant has a value in every round."""
    return {
        name: Summary(
            statistics.median(own),
            min(own),
            max(own),
            statistics.median(value / base for value, base in zip(own, values[baseline], strict=True)),
        )
        for name, own in values.items()
    }
