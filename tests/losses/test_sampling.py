"""The draw of a step's classes: exactly K, the batch's own among them, the others uniform; both ways of drawing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from losses import sampling
from losses.sampled_rows import SampledRows
from losses.sampling import ClassSample, sample_classes

SIZE, RATE = 1000, 0.05
LABELS = torch.tensor([7, 999, 7, 300, 5000])  # 7 twice, and one of another rank
Draw = Callable[..., ClassSample]


@pytest.fixture(params=["draws", "all"])
def draw(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """`sample_classes` among 1,000 classes of which 50 take part, by either way."""
    if request.param == "all":
        monkeypatch.setattr(sampling, "draws_needed", lambda count, size: None)
    else:
        assert sampling.draws_needed(50, SIZE) is not None

    def sample(seed: int, labels: Tensor = LABELS, **options: bool) -> ClassSample:
        return sample_classes(labels, (0, SIZE), RATE, seed, **options)

    return sample


def test_the_batch_is_in_and_nothing_twice(draw: Draw) -> None:
    for seed in range(50):
        sample = draw(seed)
        assert sample.rows is not None
        rows = sample.rows.tolist()
        assert len(rows) == 50
        assert rows == sorted(set(rows))
        assert {7, 300, 999} <= set(rows)
        assert [rows[place] for place in sample.column[:4].tolist()] == [7, 999, 7, 300]
        assert sample.column[4] == -1
        again = draw(seed)
        assert again.rows is not None
        assert rows == again.rows.tolist()


def test_others_are_uniform_and_independent(draw: Draw) -> None:
    """Each of the 997 others is drawn with a chance of 47 / 997, and each pair with 47 * 46 / (997 * 996)."""
    steps = 4000
    counts, neighbours = torch.zeros(SIZE), 0
    for seed in range(steps):
        rows = draw(seed).rows
        assert rows is not None
        counts[rows] += 1
        neighbours += int((rows[1:] - rows[:-1] == 1).sum())
    counts = counts[torch.isin(torch.arange(SIZE), LABELS, invert=True)]
    chance = 47 / 997
    assert counts.sum() == steps * 47
    # The sum of squares of 997 numbers is a chi square, less than its 997 degrees by the share that is drawn.
    chi_square = float(((counts - steps * chance) ** 2 / (steps * chance * (1 - chance))).sum())
    assert abs(chi_square - 996) < 5 * math.sqrt(2 * 996)
    free, beside = 47 * 46 / (997 * 996), 5  # 7, 300 and 999 have five neighbours, drawn or not
    expected = steps * (free * (999 - beside) + chance * beside)
    assert abs(neighbours - expected) < 5 * math.sqrt(expected)


def test_correction_is_that_of_the_sample(draw: Draw) -> None:
    sample = draw(3, has_correction=True)
    assert sample.rows is not None
    assert sample.column_logit is not None
    wanted = [0.0 if row in (7, 300, 999) else math.log((SIZE - 3) / (50 - 3)) for row in sample.rows.tolist()]
    assert sample.column_logit.tolist() == pytest.approx(wanted, rel=1e-12)


def test_a_batch_larger_than_the_rate_keeps_one_negative(draw: Draw) -> None:
    labels = torch.arange(100) * 3
    rows = draw(0, labels).rows
    assert rows is not None
    assert len(rows) == 101
    assert len(set(rows.tolist()) - set(labels.tolist())) == 1


@pytest.mark.parametrize(("count", "size"), [(10_000, 100_000), (10_000, 1_000_000), (129, 2000), (1, 1000)])
def test_draws_are_few_and_surely_enough(count: int, size: int) -> None:
    num_draws = sampling.draws_needed(count, size)
    assert num_draws is not None
    assert count <= num_draws <= size // 2
    mean = size * -math.expm1(num_draws * math.log1p(-1 / size))
    assert 2 * (mean - count) ** 2 / num_draws >= 100 * math.log(2)
    if count >= 1000:
        assert num_draws < 1.2 * count
    generator = torch.Generator().manual_seed(0)
    fewest = min(len(torch.randint(size, (num_draws,), generator=generator).unique()) for _ in range(20))  # type: ignore[no-untyped-call]
    assert fewest >= count


def test_every_class_is_looked_at_where_many_take_part() -> None:
    assert sampling.draws_needed(5, 10) is None
    assert sampling.draws_needed(60_000, 100_000) is None


def test_values_are_handed_over_until_something_moves_the_rows() -> None:
    weight = torch.nn.Parameter(torch.arange(12.0).reshape(6, 2))
    sampled, rows = SampledRows(), torch.tensor([1, 4])
    leaf = sampled.take(weight, rows)
    assert sampled.gradients(weight) == []
    (leaf * 2).sum().backward()  # type: ignore[no-untyped-call]
    (waiting,) = sampled.gradients(weight)
    assert waiting.values is not None
    assert waiting.values.tolist() == [[2, 3], [8, 9]]
    with torch.no_grad():
        weight.add_(1)  # as loading a checkpoint between forward and step would
    (waiting,) = sampled.gradients(weight)
    assert waiting.values is None
    assert waiting.gradient.tolist() == [[2, 2], [2, 2]]


def test_micro_batches_merge_into_one_gradient_with_present_values() -> None:
    weight = torch.nn.Parameter(torch.arange(12.0).reshape(6, 2))
    sampled = SampledRows()
    for rows in ([0, 4], [4, 5]):
        (sampled.take(weight, torch.tensor(rows)) * 2).sum().backward()  # type: ignore[no-untyped-call]
    for _ in range(2):  # asking twice counts nothing twice
        (waiting,) = sampled.gradients(weight)
        assert waiting.rows is not None
        assert waiting.values is not None
        assert waiting.rows.tolist() == [0, 4, 5]
        assert waiting.gradient.tolist() == [[2, 2], [4, 4], [2, 2]]
        assert waiting.values.tolist() == [[0, 1], [8, 9], [10, 11]]
