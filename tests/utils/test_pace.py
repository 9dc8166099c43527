"""How speed, waiting, means and times are measured and told."""

from __future__ import annotations

import math

import pytest

from utils.pace import Mean, Pace, format_seconds


def test_pace_counts_training_time_only() -> None:
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    for _ in range(2):
        with pace.waiting():
            now[0] += 1.0
        now[0] += 3.0
        pace.add(images=100)
    with pace.paused():
        now[0] += 50.0
    reading = pace.read(steps_left=10)
    assert (reading.images_per_second, reading.data_wait, reading.seconds_left) == (25.0, 0.25, 40.0)
    now[0] += 2.0
    pace.add(images=100)
    assert pace.read(steps_left=0).images_per_second == 50.0


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (3723, "1:02:03"), (90061, "1d 1:01:01")])
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_mean_of_what_came_since_the_last_reading() -> None:
    mean = Mean()
    mean.add(1.0)
    mean.add(4.0)
    assert mean.read() == 2.5
    mean.add(float("nan"))
    mean.add(7.0)
    assert mean.read() == 7.0
    assert math.isnan(mean.read())
