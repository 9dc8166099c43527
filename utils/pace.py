"""How fast a run is: images per second, waiting for data, time left, means. Nothing is written here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """Speed since the last reading."""

    images_per_second: float
    data_wait: float  # share of the time spent waiting for the loader, 0 .. 1
    seconds_left: float


class Pace:
    """Measures images per second, the share of time spent waiting for data, and the time left.

    Time inside `paused()` (verification, checkpoints) counts for none of them.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._start = clock()
        self._images = self._steps = 0
        self._waited = self._paused = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the request for the next batch."""
        start = self._clock()
        yield
        self._waited += self._clock() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around work that is not training."""
        start = self._clock()
        yield
        self._paused += self._clock() - start

    def add(self, images: int) -> None:
        """One optimizer step on `images` images of all ranks."""
        self._images += images
        self._steps += 1

    def read(self, steps_left: int) -> Reading:
        """The speed since the last reading; starts a new one."""
        now = self._clock()
        seconds = max(now - self._start - self._paused, 1e-9)
        per_step = seconds / max(self._steps, 1)
        reading = Reading(self._images / seconds, min(1.0, self._waited / seconds), steps_left * per_step)
        self._start, self._images, self._steps, self._waited, self._paused = now, 0, 0, 0.0, 0.0
        return reading


class Mean:
    """Mean of what was added since it was last read; what is no finite number (a skipped step's loss) is left out."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """Adds one value."""
        if math.isfinite(value):
            self._sum, self._count = self._sum + value, self._count + 1

    def read(self) -> float:
        """The mean, NaN of nothing; starts anew."""
        mean = self._sum / self._count if self._count else math.nan
        self._sum, self._count = 0.0, 0
        return mean


def format_seconds(seconds: float) -> str:
    """`1:02:03`, with days in front where there are any."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days}d " if days else "") + f"{hour}:{minute:02d}:{second:02d}"
