"""What a run does at which step, as pure functions of the step number. No optimizer, no state, no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def learning_rate(
    step: int,
    *,
    base: float,
    total_steps: int,
    warmup_steps: int = 0,
    schedule: str = "polynomial",
    power: float = 2.0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
) -> float:
    """Rate of optimizer step `step`: a linear warm-up, then a decay.

    warm-up: base * (step + 1) / (warmup_steps + 1);
    then, with progress = (step - warmup_steps) / (total_steps - warmup_steps):
    "polynomial": base * (1 - progress) ** power;
    "step": base * gamma ** (number of milestones that are reached);
    "cosine": base * (1 + cos(pi * progress)) / 2 (Loshchilov and Hutter, SGDR, ICLR 2017, without restarts).

    The polynomial's shape is arcface_torch's `PolynomialLRWarmup`; there the first step runs at the full rate, here at
    base / (warmup_steps + 1), and the first step after the warm-up is the first one at `base`.

    Args:
        step: optimizer step about to be taken, counted from 0. Beyond the end the rate is 0.
        base: the rate at the top, > 0.
        total_steps: optimizer steps of the whole run.
        warmup_steps: steps below `base` at the start, 0 for none.
        schedule: "polynomial", "step" or "cosine".
        power: exponent of "polynomial"; 1 is a straight line, 0 a constant rate.
        milestones: of "step": the rate falls before these steps, counted from the start of the run.
        gamma: of "step": the factor by which it falls.

    Raises:
        ValueError: another schedule.
    """
    if step < warmup_steps:
        return base * (step + 1) / (warmup_steps + 1)
    if step >= total_steps:
        return 0.0
    if schedule == "step":
        return base * gamma ** sum(step >= milestone for milestone in milestones)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    if schedule == "cosine":
        return base * 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule != "polynomial":
        raise ValueError(f"schedule {schedule!r} is unknown; allowed: polynomial, step, cosine")
    return base * (1.0 - progress) ** power


def ramp(step: int, ramp_steps: float) -> float:
    """Factor that rises from 0 at step 0 to 1 at `ramp_steps` and stays there; 1 throughout where `ramp_steps` is 0."""
    return 1.0 if ramp_steps <= 0 else min(1.0, step / ramp_steps)


@dataclass(frozen=True)
class Plan:
    """The length of a run. A step is one optimizer step and consumes `gradient_acc` global batches.

    Global batches are numbered over the whole run; an accumulated step may begin in one epoch and end in the next,
    so no image is lost at an epoch's end. Only what is left after the last whole step of the run is not used.
    """

    batches_per_epoch: int
    num_epoch: int
    global_batch_size: int
    gradient_acc: int = 1

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run, at least 1."""
        return max(1, self.num_epoch * self.batches_per_epoch // self.gradient_acc)

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps of one epoch; a fraction where accumulation does not divide the epoch."""
        return self.batches_per_epoch / self.gradient_acc

    def steps(self, epochs: float) -> int:
        """Whole optimizer steps in a number of epochs, for warm-ups given in epochs."""
        return round(epochs * self.steps_per_epoch)

    def first_batch(self, step: int) -> int:
        """Number of the global batch with which `step` begins."""
        return step * self.gradient_acc

    @property
    def last_batch(self) -> int:
        """One past the last global batch of the run."""
        return self.first_batch(self.total_steps)

    def epoch(self, step: int) -> int:
        """Epoch, from 0, in which `step` begins."""
        return self.first_batch(step) // self.batches_per_epoch

    def ends_epoch(self, steps_done: int) -> bool:
        """Whether the last of `steps_done` steps completed an epoch (or the run)."""
        if steps_done >= self.total_steps:
            return True
        return steps_done > 0 and self.epoch(steps_done) > self.epoch(steps_done - 1)

    def translate(self, steps_done: int, other: Plan) -> int:
        """The step of this plan at which a run of plan `other` stands after `steps_done` steps.

        The two differ where the number of ranks or the batch size changed. Rounded up, so that no image is seen twice
        in an epoch; less than one global batch is skipped.
        """
        same = (self.batches_per_epoch, self.gradient_acc) == (other.batches_per_epoch, other.gradient_acc)
        if same:
            return steps_done
        epochs_done = other.first_batch(steps_done) / other.batches_per_epoch
        # 1e-9: an epoch boundary of the other plan stays one here in spite of rounding.
        return min(self.total_steps, math.ceil(epochs_done * self.steps_per_epoch - 1e-9))
