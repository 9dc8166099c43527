"""One optimizer step: forward, backward, the check that every rank agrees on, update. No loop, no files, no logging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dataset import Batch
from losses.sampling import mixed_seed
from training.build import autocast
from training.dump import Evidence, write_dump
from training.health import Event
from training.nonfinite import NonFiniteError, describe_bad_step, find_offender, refuse_bad_weights, remedies
from training.rollback import Buffers, norms
from training.run import Run
from utils.distributed import agree_sum
from utils.images import to_model_input

_DROPOUT = 1  # makes this stream of the seed another than those of the head's noise and of the classes drawn

__all__ = ["NonFiniteError", "StepResult", "forward_backward", "refuse_bad_weights", "target_cosine", "train_step"]


@dataclass(frozen=True)
class StepResult:
    """What one step gives to the log.

    Attributes:
        loss: mean over all images of the step, of all ranks and micro-batches; not finite only where it was skipped.
        grad_norm: of the backbone's gradient (with `clip_scope="all"` of all gradients) before clipping; not finite
            where the step was skipped.
        loss_scale: with which this step ran.
        lr: the backbone's rate.
        images: of all ranks.
        was_skipped: a number was not finite, and nothing was updated.
        stop_requested: some rank was asked to stop.
        save_failed: on some rank the checkpoint in the background could not be written.
        events: what to tell at once: a skipped step, a loss spike.
    """

    loss: float
    grad_norm: float
    loss_scale: float
    lr: float
    images: int
    was_skipped: bool
    stop_requested: bool
    save_failed: bool
    events: tuple[Event, ...] = ()


def train_step(
    run: Run, batches: Sequence[Batch], step: int, *, stop_requested: bool = False, save_failed: bool = False
) -> StepResult:
    """Takes optimizer step `step` on this rank's part of `gradient_acc` global batches; collective.

    Equal to one step on a global batch as large as all of them together, for a backbone whose output for an image does
    not depend on the others and a head that looks at one sample at a time (class weights average and running statistics
    move by micro-batch). All that is random (dropout) is drawn from (seed, step, rank): the step is a pure function of
    the run's state, so nothing random needs to be saved.

    A step with a number that is not finite changes nothing: no weight, no momentum, no running statistic. An fp16
    overflow halves the loss scale; other such numbers end the run, or with `on_nonfinite="skip"` only this step.

    Args:
        run: the run.
        batches: `gradient_acc` of them.
        step: which one, from 0.
        stop_requested: this rank was asked to stop; the result says whether any was.
        save_failed: this rank's part of a checkpoint could not be written; likewise.

    Raises:
        DataError: on all ranks, what one of them met while it read its batch; nothing was updated.
        NonFiniteError: on all ranks, naming the step and the first tensor that went wrong.
    """
    lr, loss_scale = run.set_schedule(step), run.scaler.scale
    buffers = Buffers(run.backbone, run.fc.head)
    loss, embeddings = forward_backward(run, batches, step)
    agreed = _check(run, loss, buffers, batches, stop_requested=stop_requested, save_failed=save_failed)
    if agreed.has_bad_records:
        run.bad_records.settle(batches)
    if agreed.is_finite:
        run.scaler.update(has_overflow=False)
        _update(run, agreed.grad_norm, loss_scale)
        events = run.health.good_step(step, agreed.loss)
    else:
        buffers.put_back()
        events = (_skip_or_stop(run, Evidence(batches, step, agreed.loss, loss_scale, embeddings), agreed),)
    run.optimizer.zero_grad(set_to_none=True)
    run.fc_optimizer.zero_grad()
    return StepResult(
        loss=agreed.loss,
        grad_norm=agreed.grad_norm,
        loss_scale=loss_scale,
        lr=lr,
        images=sum(sum(batch.batch_sizes) for batch in batches),
        was_skipped=not agreed.is_finite,
        stop_requested=agreed.stop_requested,
        save_failed=agreed.save_failed,
        events=events,
    )


def target_cosine(run: Run) -> float:
    """Mean cosine between the last batch's embeddings and their prototypes: how far training is, whatever the head.

    Waits for the device; call it only where a line is logged.
    """
    stats = run.fc.last_statistics
    return math.nan if stats is None else float((run.fc.head.target_cosine(stats) * stats.weight).sum())


def forward_backward(run: Run, batches: Sequence[Batch], step: int) -> tuple[Tensor, list[Tensor]]:
    """Forward and backward of all micro-batches; collective. Gradients are left in place, times the loss scale.

    Returns:
        The mean loss, 0-dim, and this rank's embeddings of each micro-batch.
    """
    torch.manual_seed(mixed_seed(run.config.seed, step, run.ranks.rank, 0, _DROPOUT))
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
    has_bad_records: bool
    stop_requested: bool
    save_failed: bool
    loss: float
    grad_norm: float


@torch.no_grad()
def _check(
    run: Run, loss: Tensor, buffers: Buffers, batches: Sequence[Batch], *, stop_requested: bool, save_failed: bool
) -> _Agreed:
    """Whether the step's numbers are finite on all ranks, what happened to any of them, and the gradient's norm.

    Looked at are the loss, all gradients, the backbone's weights (an infinite one can hide behind a tanh) and buffers.
    A prototype needs no look of its own: one that takes part and is not finite makes a loss or gradient that is not.

    One collective and one wait for the device: whatever the host needs to know of a step travels in nine numbers.
    """
    backbone = _squares([parameter.grad for parameter in run.backbone.parameters()], loss)
    head = _squares([parameter.grad for parameter in run.fc.head.parameters()], loss)
    prototypes = run.fc.squared_grad_norm().to(loss.dtype)
    squares = torch.stack([backbone, head, prototypes])
    weights = norms(list(run.backbone.parameters()), loss)
    is_good = torch.isfinite(torch.cat([squares, weights, loss.view(1)])).all() & buffers.stayed_finite(loss)
    # Replicated sums are divided so that the total over ranks is one of them; bad numbers must not spread to the flags.
    shares = squares.nan_to_num(0.0, 0.0, 0.0)
    shares[:2] /= run.ranks.world_size
    own = [float(stop_requested), float(save_failed), float(run.bad_records.reports(batches))]
    # A copy from the host would wait for the device; nearly always there is nothing to tell.
    told = loss.new_tensor(own) if any(own) else loss.new_zeros(len(own))
    packed = agree_sum(torch.cat([(~is_good).to(loss.dtype).view(1), told, shares]))
    bad, stops, failed_saves, reports, *parts, loss_value = torch.cat([packed, loss.view(1)]).tolist()
    total = sum(parts) if run.config.clip_scope == "all" else parts[0]
    return _Agreed(
        is_finite=not bad,
        has_bad_records=reports > 0,
        stop_requested=stops > 0,
        save_failed=failed_saves > 0,
        loss=loss_value,
        grad_norm=math.nan if bad else math.sqrt(total) / run.scaler.scale,
    )


def _squares(tensors: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Sum of squares of tensors, 0-dim; not finite as soon as one of them is."""
    present = [tensor for tensor in tensors if tensor is not None]
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


def _skip_or_stop(run: Run, evidence: Evidence, agreed: _Agreed) -> Event:
    """What becomes of a step whose numbers are not finite; the same on all ranks, collective.

    Raises:
        NonFiniteError: the run cannot or shall not go on.
    """
    config, step, health = run.config, evidence.step, run.health
    offender = find_offender(run, evidence.batches, evidence.embeddings)
    text = describe_bad_step(run, offender, agreed.loss, step)
    # The loss is computed before it is scaled: no scale mends one that is not finite itself.
    if run.scaler.is_active and math.isfinite(agreed.loss) and not offender.is_weight:
        before = run.scaler.scale
        run.scaler.update(has_overflow=True)
        if not run.scaler.is_exhausted:
            health.skip(is_overflow=True)
            line = f"step {step} skipped: fp16 overflow in {offender.what} on rank {offender.rank}; loss scale "
            return _skip_event(run, f"{line}{before:g} halved", "overflow")
    note = write_dump(run, evidence, text)
    health.skip()
    if config.on_nonfinite == "skip" and not offender.is_weight and health.in_a_row <= config.max_nonfinite_steps:
        return _skip_event(run, f"{text}. Skipped, {health.in_a_row} in a row; {note}", "nonfinite")
    count = f" ({health.in_a_row} steps in a row)" if health.in_a_row > 1 else ""
    raise NonFiniteError(
        f"{text}{count}. Training stopped before the update: the files of this run are those of earlier steps; {note}. "
        f"{remedies(run)}"
    )


def _skip_event(run: Run, text: str, reason: str) -> Event:
    counts = {"skipped": run.health.skipped, "in_a_row": run.health.in_a_row}
    return Event("skip", text, {"reason": reason, **counts, "loss_scale": run.scaler.scale})
