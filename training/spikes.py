"""Finds losses far above the recent ones, one number at a time. Host numbers only: no tensors, no ranks, no log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

WINDOW = 200  # steps over which the level and the spread are averaged, with weights that fade
WARM_UP = 200  # steps before the first verdict: until then the averages know too little


class SpikeDetector:
    """Says how many standard deviations a loss lies above the recent mean, where that is a spike.

    The level is an exponential average of the losses, the standard deviation the root of one of the squared distances
    of those above it: losses lean upwards, the more the smaller they are, and a deviation of both sides would call
    their ordinary tail a spike. An outlier moves both no further than a loss at the threshold would, so that one spike
    does not hide the next, and a loss that stays high becomes the new level. An excursion is told once, at its first
    step, and is over when the loss has come half the way back. A pure function of the losses it was given: ranks,
    which all see the same loss, agree, and a resumed run goes on as if it had never stopped.

    Args:
        threshold: standard deviations above the mean that make a spike; 0 finds none.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._count, self._above, self._is_high = 0, 0, False
        self._level, self._spread = 0.0, 0.0

    def add(self, loss: float) -> float | None:
        """Takes the loss of a step that was not skipped.

        Returns:
            Its distance above the mean in standard deviations where a spike begins here, else None.
        """
        if self.threshold <= 0 or not math.isfinite(loss):
            return None
        distance, scale = loss - self._level, math.sqrt(self._spread)
        height = distance / scale if scale > 0 else 0.0
        is_warm = self._count >= WARM_UP
        is_spike = is_warm and not self._is_high and height > self.threshold
        if is_warm:
            self._is_high = height > (self.threshold / 2 if self._is_high else self.threshold)
            distance = min(distance, self.threshold * scale) if scale > 0 else distance
        self._count += 1
        self._level += max(1 / self._count, 1 / WINDOW) * distance
        if self._count > 1 and distance > 0:  # the first loss has nothing to be above
            self._above += 1
            self._spread += max(1 / self._above, 1 / WINDOW) * (distance * distance - self._spread)
        return height if is_spike else None

    @property
    def level(self) -> float:
        """The recent mean."""
        return self._level

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {
            "count": self._count, "above": self._above, "is_high": self._is_high,
            "level": self._level, "spread": self._spread,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a saved state."""
        self._count, self._above, self._is_high = int(state["count"]), int(state["above"]), bool(state["is_high"])
        self._level, self._spread = float(state["level"]), float(state["spread"])
