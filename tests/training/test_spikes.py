"""The spike detector alone: what it finds, what it leaves alone, and that it goes on after a resume as before."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from training.health import Health
from training.spikes import WARM_UP, SpikeDetector


def found(losses: np.ndarray, threshold: float = 6.0) -> list[int]:
    detector = SpikeDetector(threshold)
    return [step for step, loss in enumerate(losses) if detector.add(float(loss)) is not None]


def curve(steps: int, noise: np.ndarray, *, last: float = 1.0) -> np.ndarray:
    """A falling loss with noise."""
    return last + 9 * np.exp(-np.arange(steps) / 2000) + 0.3 * noise


def test_ordinary_noise_is_left_alone() -> None:
    draws = np.random.default_rng(0)
    assert found(curve(20000, draws.normal(size=20000))) == []
    assert found(curve(20000, draws.normal(size=20000), last=-5.0)) == []  # some heads' losses are negative
    assert len(found(curve(20000, (draws.gamma(4, 1, 20000) - 4) / 2))) <= 2  # leans upwards, as losses do


def test_spikes_are_found_at_their_step() -> None:
    losses = curve(20000, np.random.default_rng(1).normal(size=20000))
    spikes = list(range(1000, 20000, 500))
    losses[spikes] += 10 * 0.3
    assert found(losses) == spikes


def test_a_step_up_is_told_once_and_becomes_the_level() -> None:
    losses = curve(6000, np.random.default_rng(2).normal(size=6000))
    losses[3000:] += 5
    losses[5500] += 5
    assert found(losses) == [3000, 5500]


def test_nothing_is_told_while_too_little_is_known() -> None:
    losses = np.ones(2 * WARM_UP)
    losses[WARM_UP - 1] = 50.0
    assert found(losses) == []
    assert found(np.full(1000, 3.0)) == []


def test_zero_turns_it_off_and_bad_numbers_are_none_of_its_business() -> None:
    losses = curve(2000, np.random.default_rng(3).normal(size=2000))
    losses[1000] = 100.0
    assert found(losses, 0.0) == []
    losses[[500, 600, 700]] = [math.nan, math.inf, -math.inf]
    assert found(losses) == [1000]


@pytest.mark.parametrize("cut", [0, 1, 150, 1001, 1700])
def test_a_resumed_detector_finds_the_same(cut: int) -> None:
    losses = curve(2000, np.random.default_rng(4).normal(size=2000))
    losses[[1000, 1001, 1002, 1800]] += 8
    whole, first, second = Health(6.0), Health(6.0), Health(6.0)
    expected = [whole.good_step(step, float(loss)) for step, loss in enumerate(losses)]
    parts = [first.good_step(step, float(loss)) for step, loss in enumerate(losses[:cut])]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    parts += [second.good_step(step, float(loss)) for step, loss in enumerate(losses[cut:], cut)]
    assert parts == expected
    events = [event for (event,) in filter(None, expected)]
    assert [event.text.split(":")[0] for event in events] == ["step 1000", "step 1800"]
    assert events[0].kind == "spike"
    assert events[0].fields["loss"] == losses[1000]
    assert events[0].fields["deviations"] > 6


def test_a_run_that_did_not_count_is_taken_over() -> None:
    health = Health(6.0)
    health.load_state_dict({})
    assert (health.skipped, health.in_a_row) == (0, 0)
