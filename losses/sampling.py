"""Which classes take part in a step, and which labels are none. No losses and no collectives here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


def mixed_seed(*parts: int) -> int:
    """One 63-bit seed from several integers; neighbouring inputs give unrelated seeds (splitmix64's finaliser)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


@dataclass(frozen=True)
class ClassSample:
    """The classes of this rank that take part in a step.

    Attributes:
        rows: (K,) int64 ascending rows of the shard, or None for all of them.
        column: (N,) place of each sample's class among the rows, -1 where another rank owns it.
        column_logit: (K,) correction added to the non-targets' logits, or None.
    """

    rows: Tensor | None
    column: Tensor
    column_logit: Tensor | None


def sample_classes(
    labels: Tensor, class_range: tuple[int, int], sample_rate: float, seed: int, *, has_correction: bool = False
) -> ClassSample:
    """Every class of this rank that occurs in the batch, and uniformly others up to the rate; no host sync.

    Args:
        labels: (N,) global class ids of the global batch.
        class_range: half-open range of the classes here.
        sample_rate: share of the classes here that take part, 0 < rate <= 1.
        seed: of this rank and micro-batch.
        has_correction: adds log((C - P) / (K - P)) to the sampled negatives, of which K - P stand for C - P; classes of
            the batch are certain to be there and stand for themselves.
    """
    start, stop = class_range
    size = stop - start
    column = torch.where((labels >= start) & (labels < stop), labels - start, -1)
    # Room for all classes of the batch, and one more, must exist without asking the device how many they are: without a
    # negative a rank's share of the sum is lost, and no correction brings it back.
    count = max(round(sample_rate * size), min(labels.shape[0] + 1, size))
    if count >= size:
        return ClassSample(None, column, None)
    generator = torch.Generator(device=labels.device).manual_seed(seed)
    num_draws = draws_needed(count, size)
    if num_draws is None:
        rows, is_positive = _choose_among_all(column, size, count, generator)
    else:
        rows, is_positive = _choose_by_draws(column, size, count, num_draws, generator)
    column = torch.where(column < 0, -1, torch.searchsorted(rows, column))
    if not has_correction:
        return ClassSample(rows, column, None)
    positives = is_positive.sum()
    # A 0-dim number: float64 costs nothing, and float32 would be what a float64 run differs from its formula by.
    ratio = (size - positives).double() / (count - positives).clamp_min(1)
    return ClassSample(rows, column, torch.where(is_positive, 0, ratio.log()))


def _choose_among_all(column: Tensor, size: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The classes of the batch and those with the largest of ``size`` random numbers; looks at every class.

    Returns:
        (count,) int64 ascending classes, and which of them occur in the batch.
    """
    is_positive = torch.zeros(size + 1, dtype=torch.bool, device=column.device)
    is_positive = is_positive.index_fill_(0, torch.where(column < 0, size, column), True)[:size]
    noise = torch.rand(size, generator=generator, device=column.device)
    rows = torch.topk(noise + 2 * is_positive, count, sorted=False).indices.sort().values
    return rows, is_positive[rows]


def _choose_by_draws(
    column: Tensor, size: int, count: int, num_draws: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The first ``count`` different classes of a sequence: the batch's own, then uniform draws; whatever ``size`` is.

    Skipping what was drawn before is drawing without replacement, so the sample is distributed as above.

    Returns:
        (count,) int64 ascending classes, and which of them occur in the batch.
    """
    draws = torch.randint(size, (num_draws,), generator=generator, device=column.device)
    sequence = torch.cat([torch.where(column < 0, size, column), draws])
    total = sequence.shape[0]
    # One number holds class and turn: sorted, the first of each class is its earliest turn.
    keys = (sequence * total + torch.arange(total, device=column.device)).sort().values
    classes, turns = keys // total, keys % total
    is_first = classes < size
    is_first[1:] &= classes[1:] != classes[:-1]
    # In the order of the turns, how many different classes there have been.
    found = torch.zeros_like(turns).scatter_(0, turns, is_first.to(turns.dtype)).cumsum(0)
    is_chosen = is_first & (found[turns] <= count)
    # A scatter, as the number of chosen ones is known to be `count` but not to torch: what is left over lands behind.
    places = torch.where(is_chosen, is_chosen.cumsum(0) - 1, count)
    rows = classes.new_zeros(count + 1).scatter_(0, places, classes)
    is_positive = torch.zeros(count + 1, dtype=torch.bool, device=column.device)
    is_positive.scatter_(0, places, turns < column.shape[0])
    return rows[:count], is_positive[:count]


@lru_cache(maxsize=64)
def draws_needed(count: int, size: int) -> int | None:
    """How many draws of ``size`` classes hold ``count`` different ones, but for a chance of 2^-100.

    M draws hold size * (1 - (1 - 1 / size)^M) >= size * (1 - exp(-M / size)) different ones on average. Each draw moves
    their number by at most one, so it falls t below its mean with a chance of at most exp(-2 t^2 / M): McDiarmid's
    inequality.

    Returns:
        M, or None where that is more than half of ``size``: then looking at every class costs less.
    """
    num_draws = count
    while 2 * num_draws <= size:
        wanted = count + math.sqrt(num_draws * 50 * math.log(2))
        if wanted >= size:
            return None
        needed = math.ceil(-size * math.log1p(-wanted / size))
        if needed <= num_draws:
            return num_draws
        num_draws = needed
    return None


def refuse_labels(labels: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """Refuses labels outside 0 .. num_classes - 1; on gathered labels, so that all ranks stop or none.

    Args:
        labels: (N,) of the global batch.
        weight: (N,) of the samples.
        num_classes: over all ranks.

    Returns:
        ``weight``; on a GPU, where a check would stall the device, with NaN for a wrong label, so that the loss is NaN.

    Raises:
        ValueError: a label is out of range (CPU).
    """
    is_wrong = (labels < 0) | (labels >= num_classes)
    if labels.is_cuda:
        return torch.where(is_wrong, float("nan"), weight)
    if is_wrong.any():
        wrong = sorted(set(labels[is_wrong].tolist()))[:5]
        raise ValueError(
            f"labels must lie in 0 .. {num_classes - 1} (num_classes {num_classes}), got {wrong}; check num_classes "
            "against the data set"
        )
    return weight
