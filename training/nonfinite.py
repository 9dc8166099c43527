"""Which number went wrong first, on which rank, in words. It may take its time: the step is lost already."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dataset import Batch
from training.run import Run
from utils.distributed import gather_objects

LAST_STAGE = 6  # nothing but the loss itself


class NonFiniteError(FloatingPointError):
    """A loss, gradient or weight that is not a finite number; raised on all ranks before anything was updated."""


@dataclass(frozen=True, order=True)
class Offender:
    """The first tensor that is not finite.

    Attributes:
        stage: of a step in which it comes up; 0 are the weights, which no other batch can mend.
        rank: where.
        what: its name.
    """

    stage: int
    rank: int
    what: str

    @property
    def is_weight(self) -> bool:
        """Whether the run itself is damaged, not only this step."""
        return self.stage == 0


def find_offender(run: Run, batches: Sequence[Batch], embeddings: Sequence[Tensor]) -> Offender:
    """The first offender of all ranks; collective.

    What went wrong on one rank is everyone's in the next stage, so the earliest stage is the cause.
    """
    stage, what = _first_of(run, batches, embeddings)
    found: list[Offender] = gather_objects(Offender(stage, run.ranks.rank, what))
    return min(found)


def describe_bad_step(run: Run, offender: Offender, loss: float, step: int) -> str:
    """What was not finite and where it came from, for one line."""
    place = f"step {step} (epoch {run.plan.epoch(step)}): "
    if offender.stage == LAST_STAGE and math.isfinite(loss):
        return f"{place}a running statistic of the backbone is not finite after this batch"
    what = "a weight" if offender.is_weight else "the gradient" if math.isfinite(loss) else "the loss"
    return f"{place}{what} is not finite; first seen in {offender.what} on rank {offender.rank}"


def remedies(run: Run) -> str:
    """What a user can try."""
    bf16 = ", precision=bf16" if run.config.precision == "fp16" else ""
    return f"What to try: a lower lr, a longer warmup_epoch, a smaller clip_norm{bf16}"


def refuse_bad_weights(run: Run, steps_done: int) -> None:
    """Stops a run whose weights are not finite, before they are verified or saved; collective.

    A finite gradient and a huge rate make such weights, and the next step would only find out after the damage.

    Raises:
        NonFiniteError: on all ranks, naming the step and the tensor.
    """
    own = next(_bad_weights(run), None)
    bad = [(rank, what) for rank, what in enumerate(gather_objects(own)) if what is not None]
    if bad:
        rank, what = bad[0]
        raise NonFiniteError(
            f"after step {steps_done - 1}: not finite: {what} on rank {rank}. Training stopped before they were saved: "
            "the files of this run are those of earlier steps. What to try: a lower lr, a longer warmup_epoch"
        )


def _bad_weights(run: Run) -> Iterator[str]:
    for name, tensor in run.backbone.state_dict().items():
        if is_bad(tensor):
            yield f"the weights themselves, {name},"
    if is_bad(run.fc.weight):
        yield "the prototypes themselves"
    for name, tensor in run.fc.head.state_dict().items():
        if is_bad(tensor):
            yield f"the head's {name} itself"


def _first_of(run: Run, batches: Sequence[Batch], embeddings: Sequence[Tensor]) -> tuple[int, str]:
    """The first tensor of this rank that is wrong, and which stage of a step it belongs to."""
    for what in _bad_weights(run):
        return 0, what
    for batch in batches:
        if bool(((batch.labels < 0) | (batch.labels >= run.fc.num_classes)).any()):
            labels = f"{int(batch.labels.min())} .. {int(batch.labels.max())}"
            return 1, f"the labels ({labels}, with {run.fc.num_classes} classes)"
    for tensor in embeddings:
        rows = int((~torch.isfinite(tensor).all(dim=1)).sum())
        if rows:
            return 2, f"the embeddings ({rows} of {len(tensor)} rows)"
    for name, parameter in run.fc.head.named_parameters():
        if is_bad(parameter.grad):
            return 3, f"the gradient of the head's {name}"
    if not bool(torch.isfinite(run.fc.squared_grad_norm())):
        return 4, "the gradient of the prototypes"
    # Backwards: the last layer's gradient is computed first.
    for name, parameter in reversed(list(run.backbone.named_parameters())):
        if is_bad(parameter.grad):
            return 5, f"the gradient of {name}"
    return LAST_STAGE, "the loss"


def is_bad(tensor: Tensor | None) -> bool:
    """Whether a floating tensor holds a number that is not finite, or whose square is not; waits for the device.

    The rule of the check in each step, so that what it objects to is found.
    """
    if tensor is None or not tensor.is_floating_point() or not tensor.numel():
        return False
    return not bool(torch.isfinite(torch.linalg.vector_norm(tensor.detach())))
