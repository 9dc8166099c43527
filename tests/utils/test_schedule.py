"""Schedules by their numbers: warm-up, decay, epochs under accumulation, and the move to another number of ranks."""

from __future__ import annotations

import pytest

from utils.schedule import Plan, learning_rate, ramp


def test_rates_of_a_run() -> None:
    rates = [learning_rate(step, base=0.1, total_steps=8, warmup_steps=3, power=2.0) for step in range(9)]
    expected = [0.025, 0.05, 0.075, 0.1, 0.064, 0.036, 0.016, 0.004, 0.0]
    assert rates == pytest.approx(expected, abs=1e-12)


def test_without_warmup_the_first_step_runs_at_the_base_rate() -> None:
    assert learning_rate(0, base=0.3, total_steps=10) == 0.3


def test_power_zero_is_a_constant_rate() -> None:
    assert {learning_rate(step, base=0.2, total_steps=5, power=0.0) for step in range(5)} == {0.2}


def test_warmup_as_long_as_the_run_never_divides_by_zero() -> None:
    assert learning_rate(4, base=1.0, total_steps=5, warmup_steps=5) == pytest.approx(5 / 6)
    assert learning_rate(5, base=1.0, total_steps=5, warmup_steps=5) == 0.0


def test_ramp() -> None:
    assert [ramp(step, 4) for step in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert ramp(0, 0) == 1.0


def test_plan_without_accumulation() -> None:
    plan = Plan(batches_per_epoch=5, num_epoch=3, global_batch_size=8)
    assert (plan.total_steps, plan.last_batch, plan.steps(0.5)) == (15, 15, 2)
    assert [plan.epoch(step) for step in (0, 4, 5, 14)] == [0, 0, 1, 2]
    assert [done for done in range(16) if plan.ends_epoch(done)] == [5, 10, 15]


def test_plan_with_accumulation_that_does_not_divide_the_epoch() -> None:
    plan = Plan(batches_per_epoch=5, num_epoch=3, global_batch_size=8, gradient_acc=2)
    assert (plan.total_steps, plan.last_batch, plan.steps_per_epoch) == (7, 14, 2.5)
    assert [plan.epoch(step) for step in range(7)] == [0, 0, 0, 1, 1, 2, 2]
    assert [done for done in range(8) if plan.ends_epoch(done)] == [3, 5, 7]


def test_a_run_shorter_than_one_accumulated_step_still_takes_one() -> None:
    assert Plan(batches_per_epoch=1, num_epoch=1, global_batch_size=8, gradient_acc=4).total_steps == 1


@pytest.mark.parametrize(("done", "expected"), [(0, 0), (5, 3), (10, 6), (20, 12), (30, 18)])
def test_translation_to_a_larger_global_batch_keeps_the_place_in_the_epoch(done: int, expected: int) -> None:
    two_ranks = Plan(batches_per_epoch=10, num_epoch=3, global_batch_size=20)
    three_ranks = Plan(batches_per_epoch=6, num_epoch=3, global_batch_size=30)
    assert three_ranks.translate(done, two_ranks) == expected
    assert two_ranks.translate(done, two_ranks) == done


def test_a_step_schedule_falls_at_its_milestones() -> None:
    rates = [
        learning_rate(step, base=1.0, total_steps=6, warmup_steps=1, schedule="step", milestones=(2, 4), gamma=0.1)
        for step in range(7)
    ]
    assert rates == pytest.approx([0.5, 1.0, 0.1, 0.1, 0.01, 0.01, 0.0])


def test_a_cosine_schedule_falls_by_half_a_cosine() -> None:
    rates = [learning_rate(step, base=2.0, total_steps=5, warmup_steps=1, schedule="cosine") for step in range(6)]
    assert rates == pytest.approx([1.0, 2.0, 1 + 2**-0.5, 1.0, 1 - 2**-0.5, 0.0])


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="schedule 'linear' is unknown; allowed: polynomial, step, cosine"):
        learning_rate(1, base=1.0, total_steps=5, schedule="linear")
