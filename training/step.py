"""One optimizer step: forward, backward, the check that every rank agrees on, update. No loop, no files, no logging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dataset import Batch
from losses.sampling import mixed_seed
from training.build import Run, autocast
from utils.distributed import agree_sum, gather_objects
from utils.errors import DataError
from utils.images import to_model_input


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is not a finite number; raised on all ranks before anything was updated."""


@dataclass(frozen=True)
class StepResult:
    """What one step gives to the log.

    Attributes:
        loss: mean over all images of the step, of all ranks and micro-batches.
        grad_norm: of the backbone's gradient (with `clip_scope="all"` of all gradients) before clipping; not finite
            where the step was skipped.
        loss_scale: with which this step ran.
        lr: the backbone's rate.
        images: of all ranks.
        was_skipped: an fp16 overflow: the scale was halved instead of an update.
        stop_requested: some rank was asked to stop.
        save_failed: on some rank the checkpoint in the background could not be written.
        bad_records: images that could not be read and were replaced in this step, on all ranks.
    """

    loss: float
    grad_norm: float
    loss_scale: float
    lr: float
    images: int
    was_skipped: bool
    stop_requested: bool
    save_failed: bool
    bad_records: int


def train_step(
    run: Run, batches: Sequence[Batch], step: int, *, stop_requested: bool = False, save_failed: bool = False
) -> StepResult:
    """Takes optimizer step `step` on this rank's part of `gradient_acc` global batches; collective.

    Equal to one step on a global batch as large as all of them together, for a backbone whose output for an image does
    not depend on the others and a head that looks at one sample at a time (class weights average and running statistics
    move by micro-batch). All that is random (dropout) is drawn from (seed, step, rank): the step is a pure function of
    the run's state, so nothing random needs to be saved.

    Args:
        run: the run.
        batches: `gradient_acc` of them. One that carries a failure ends the run on all ranks.
        step: which one, from 0.
        stop_requested: this rank was asked to stop; the result says whether any was.
        save_failed: this rank's part of the last checkpoint could not be written; likewise.

    Raises:
        DataError: on all ranks, what one of them met while it read its batch; nothing was updated.
        NonFiniteError: on all ranks, naming the step and the first tensor that went wrong.
    """
    lr = run.set_schedule(step)
    torch.manual_seed(mixed_seed(run.config.seed, step, run.ranks.rank))
    loss_scale = run.scaler.scale
    loss, embeddings = _accumulate(run, batches, step)
    agreed = _check(run, loss, batches, stop_requested=stop_requested, save_failed=save_failed)
    if agreed.data_failed:
        raise _data_error(batches)
    is_finite, loss_value, grad_norm = agreed.is_finite, agreed.loss, agreed.grad_norm
    images = sum(sum(batch.batch_sizes) for batch in batches)
    result = StepResult(
        loss_value, grad_norm, loss_scale, lr, images, not is_finite, agreed.stop_requested, agreed.save_failed,
        agreed.bad_records,
    )  # fmt: skip
    run.scaler.update(has_overflow=not is_finite)
    if not is_finite and (not run.scaler.is_active or not math.isfinite(loss_value) or run.scaler.is_exhausted):
        raise NonFiniteError(_explain(run, batches, embeddings, loss_value, step))
    if is_finite:
        _update(run, grad_norm, loss_scale)
    run.optimizer.zero_grad(set_to_none=True)
    run.fc_optimizer.zero_grad()
    return result


def refuse_bad_weights(run: Run, steps_done: int) -> None:
    """Stops a run whose weights are not finite, before they are verified or saved; collective.

    A finite gradient and a huge rate make such weights, and the next step would only find out after the damage.

    Raises:
        NonFiniteError: on all ranks, naming the step and the tensor.
    """
    stage, what = _first_offender(run, (), ())
    bad = [(rank, text) for rank, text in enumerate(gather_objects(what if stage == 0 else None)) if text]
    if bad:
        rank, text = bad[0]
        raise NonFiniteError(
            f"after step {steps_done - 1}: not finite: {text} on rank {rank}. Training stopped before they were saved: "
            "the files of this run are those of earlier steps. What to try: a lower lr, a longer warmup_epoch"
        )


def target_cosine(run: Run) -> float:
    """Mean cosine between the last batch's embeddings and their prototypes: how far training is, whatever the head.

    Waits for the device; call it only where a line is logged.
    """
    stats = run.fc.last_statistics
    return math.nan if stats is None else float((run.fc.head.target_cosine(stats) * stats.weight).sum())


def _accumulate(run: Run, batches: Sequence[Batch], step: int) -> tuple[Tensor, list[Tensor]]:
    """Forward and backward of all micro-batches; gradients are left in place, multiplied by the loss scale."""
    device, config = run.ranks.device, run.config
    total = sum(sum(batch.batch_sizes) for batch in batches)
    loss = torch.zeros((), device=device)
    kept = []
    replica = run.model if isinstance(run.model, DistributedDataParallel) else None
    for micro_step, batch in enumerate(batches):
        share = sum(batch.batch_sizes) / total
        is_last = micro_step == len(batches) - 1
        # Replicas add their gradients up once a step: with the last micro-batch.
        with nullcontext() if replica is None or is_last else replica.no_sync():
            images = batch.images.to(device, non_blocking=True)
            labels = batch.labels.to(device, non_blocking=True)
            with autocast(run):
                pixels = to_model_input(images, run.source.image_format, channels_last=config.channels_last)
                embeddings = run.model(pixels)
                mean = run.fc(embeddings, labels, step=step, micro_step=micro_step, batch_sizes=batch.batch_sizes)
            (mean * (share * run.scaler.scale)).backward()
        loss += mean.detach() * share
        kept.append(embeddings.detach())
    return loss, kept


@dataclass(frozen=True)
class _Agreed:
    """What all ranks know after a step's one exchange, the same on each."""

    is_finite: bool
    data_failed: bool
    stop_requested: bool
    save_failed: bool
    bad_records: int
    loss: float
    grad_norm: float


def _check(run: Run, loss: Tensor, batches: Sequence[Batch], *, stop_requested: bool, save_failed: bool) -> _Agreed:
    """Whether loss and gradients are finite on all ranks, what happened to any of them, and the gradient's norm.

    One collective and one wait for the device: whatever the host needs to know of a step travels in nine numbers.
    """
    backbone = _squares([parameter.grad for parameter in run.backbone.parameters()], loss)
    head = _squares([parameter.grad for parameter in run.fc.head.parameters()], loss)
    prototypes = run.fc.squared_grad_norm().to(loss.dtype)
    squares = torch.stack([backbone, head, prototypes])
    is_bad = ~(torch.isfinite(squares).all() & torch.isfinite(loss))
    # Replicated sums are divided so that the total over ranks is one of them; bad numbers must not spread to the flags.
    shares = squares.nan_to_num(0.0, 0.0, 0.0)
    shares[:2] /= run.ranks.world_size
    own = [
        float(any(getattr(batch, "failure", None) is not None for batch in batches)),
        float(stop_requested), float(save_failed), float(sum(getattr(batch, "bad", 0) for batch in batches)),
    ]  # fmt: skip
    # A copy from the host would wait for the device; nearly always there is nothing to tell.
    told = loss.new_tensor(own) if any(own) else loss.new_zeros(len(own))
    packed = agree_sum(torch.cat([is_bad.to(loss.dtype).view(1), told, shares]))
    values = torch.cat([packed, loss.view(1)]).tolist()
    bad, failures, stops, failed_saves, all_bad_records, *norms, loss_value = values
    total = sum(norms) if run.config.clip_scope == "all" else norms[0]
    return _Agreed(
        is_finite=not bad,
        data_failed=failures > 0,
        stop_requested=stops > 0,
        save_failed=failed_saves > 0,
        bad_records=round(all_bad_records),
        loss=loss_value,
        grad_norm=math.nan if bad else math.sqrt(total) / run.scaler.scale,
    )


def _data_error(batches: Sequence[Batch]) -> DataError:
    """The error that the first of the failed ranks met, on all ranks; collective."""
    failures = [getattr(batch, "failure", None) for batch in batches]
    own = next((failure for failure in failures if failure is not None), None)
    rank, error = next((rank, error) for rank, error in enumerate(gather_objects(own)) if error is not None)
    return cast("DataError", error.within(f"rank {rank}"))


def _squares(gradients: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Sum of squares of gradients, 0-dim; not finite as soon as one of them is."""
    present = [gradient for gradient in gradients if gradient is not None]
    if not present:
        return torch.zeros_like(like)
    return torch.stack(torch._foreach_norm(present)).square().sum().to(like.dtype)


def _update(run: Run, grad_norm: float, loss_scale: float) -> None:
    """Unscales, clips and applies the gradients."""
    config = run.config
    clip = min(1.0, config.clip_norm / (grad_norm + 1e-6)) if config.clip_norm > 0 else 1.0
    factor = clip / loss_scale
    fc_factor = factor if config.clip_scope == "all" else 1.0 / loss_scale
    if factor != 1.0:
        torch._foreach_mul_([p.grad for p in run.backbone.parameters() if p.grad is not None], factor)
    if fc_factor != 1.0:
        run.fc.scale_grads_(fc_factor)
    run.optimizer.step()
    run.fc_optimizer.step()


def _explain(run: Run, batches: Sequence[Batch], embeddings: Sequence[Tensor], loss: float, step: int) -> str:
    """The text of a NonFiniteError, the same on all ranks; it may take its time."""
    found = gather_objects(_first_offender(run, batches, embeddings))
    # What went wrong on one rank is everyone's in the next stage: the earliest stage is the cause.
    seen = [(stage, rank, what) for rank, (stage, what) in enumerate(found)]
    _, rank, first = min(seen)
    what = "gradient" if math.isfinite(loss) else "loss"
    bf16 = ", precision=bf16" if run.config.precision == "fp16" else ""
    return (
        f"step {step} (epoch {run.plan.epoch(step)}): the {what} is not finite; first seen in {first} on rank {rank}. "
        "Training stopped before the update: the files of this run are those of earlier steps. What to try: a lower "
        f"lr, a longer warmup_epoch, a smaller clip_norm{bf16}"
    )


def _first_offender(run: Run, batches: Sequence[Batch], embeddings: Sequence[Tensor]) -> tuple[int, str]:
    """The first tensor of this rank that is wrong, and which stage of a step it belongs to."""
    for name, tensor in run.backbone.state_dict().items():
        if _is_bad(tensor):
            return 0, f"the weights themselves, {name},"
    if _is_bad(run.fc.weight):
        return 0, "the prototypes themselves"
    for batch in batches:
        if bool(((batch.labels < 0) | (batch.labels >= run.fc.num_classes)).any()):
            labels = f"{int(batch.labels.min())} .. {int(batch.labels.max())}"
            return 1, f"the labels ({labels}, with {run.fc.num_classes} classes)"
    for tensor in embeddings:
        rows = int((~torch.isfinite(tensor).all(dim=1)).sum())
        if rows:
            return 2, f"the embeddings ({rows} of {len(tensor)} rows)"
    for name, parameter in run.fc.head.named_parameters():
        if _is_bad(parameter.grad):
            return 3, f"the gradient of the head's {name}"
    if not bool(torch.isfinite(run.fc.squared_grad_norm())):
        return 4, "the gradient of the prototypes"
    # Backwards: the last layer's gradient is computed first.
    for name, parameter in reversed(list(run.backbone.named_parameters())):
        if _is_bad(parameter.grad):
            return 5, f"the gradient of {name}"
    return 6, "the loss"


def _is_bad(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
