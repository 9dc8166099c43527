"""When a run is saved, what a checkpoint holds, and how a run goes on from one. Files are utils/checkpoint.py's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from training.fingerprint import fingerprint_changes
from training.run import Run
from training.state_tensors import BACKBONE, OPTIMIZERS, part, take_over, tensors_of
from training.step import refuse_bad_weights
from utils.checkpoint import CheckpointError, empty_tensors, load_checkpoint, on_main, own_share, save_checkpoint
from utils.checkpoint_choice import choose_checkpoint
from utils.distributed import average_buffers
from utils.files import lock_folder, remove_partial, whole_file
from utils.schedule import Plan


def save_run(run: Run, steps_done: int, *, wait: bool = False) -> None:
    """Writes a checkpoint and model.pt; collective. First averages the replicas' running statistics.

    With `async_save` it returns as soon as the state is copied, and a thread writes the copy; a save that is still
    being written is awaited first. Where that one has failed, this one is written while all wait.

    Args:
        run: whose state.
        steps_done: optimizer steps done.
        wait: return when the checkpoint is complete, as before a run ends.

    Raises:
        NonFiniteError: weights that are not worth saving.
        CheckpointError: on all ranks, where this save failed on one.
    """
    try:
        run.saver.wait()
    except CheckpointError:  # on all ranks alike: once more, and with what was learned since
        wait = True
    refuse_bad_weights(run, steps_done)
    average_buffers(run.backbone)
    config, progress = run.config, _progress(run, steps_done)
    folder = Path(config.output or "")

    def write(tensors: Mapping[str, Tensor], group: dist.ProcessGroup | None) -> None:
        save_checkpoint(
            folder / "checkpoints", steps_done, tensors, progress,
            keep=config.keep_checkpoints, keep_best=config.keep_best, group=group,
        )  # fmt: skip
        _write_model(folder / "model.pt", part(tensors, BACKBONE), group)

    tensors = own_share(tensors_of(run), run.ranks.rank, run.ranks.world_size, main=BACKBONE)
    if config.async_save and not wait:
        run.saver.start(tensors, write)
    else:
        write(tensors, None)


def claim_folder(run: Run) -> None:
    """Makes the run's folder this run's alone until its main rank ends; collective.

    Raises:
        CheckpointError: on all ranks, where another run is writing there.
    """
    folder = Path(run.config.output or "")

    def claim() -> None:
        run.claim = lock_folder(folder)
        remove_partial(folder)

    on_main(f"using {folder}", claim)


def save_model(run: Run, name: str) -> None:
    """Writes the backbone's state dict as `name` into the run's folder, on the main rank; collective.

    Raises:
        CheckpointError: on all ranks, where writing failed.
    """
    _write_model(Path(run.config.output or "") / name, run.backbone.state_dict(), None)


@dataclass(frozen=True)
class Resumed:
    """Where a resumed run goes on.

    Attributes:
        first_step: the step to begin with, counted as this run counts.
        steps_done: the same place as the interrupted run counted it; its log is valid up to there.
        lines: for the log.
    """

    first_step: int
    steps_done: int
    lines: list[str]


def resume_run(run: Run) -> Resumed:
    """Loads the newest sound checkpoint of the run's folder, if there is one; collective.

    All its files are read and compared with their hashes first; a damaged one is put aside and the one before it used.
    It may have been written by another number of ranks. With the same global batch size the run goes on with the very
    next batch; with another one it goes on at the same place of the epoch, and steps are counted anew.

    Raises:
        CheckpointError: all are damaged, or it is of another network, head or optimizer.
    """
    choice = choose_checkpoint(Path(run.config.output or "") / "checkpoints", run.ranks.rank, run.ranks.world_size)
    path = choice.path
    if path is None:
        return Resumed(0, 0, [f"resume: no checkpoint in {run.config.output}, starting from the beginning"])
    try:
        progress = choice.manifest["progress"]
        steps_done, old_plan, old = int(progress["steps_done"]), Plan(**progress["plan"]), dict(progress["config"])
        written_with, best_score, scaler = old["optimizer"], progress["best_score"], dict(progress["scaler"])
        health = dict(progress.get("health", {}))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its manifest is not one of a run ({type(error).__name__}: {error})") from error
    if written_with != run.config.optimizer:
        raise CheckpointError(
            f"{path}: written with optimizer {written_with!r}, this run has {run.config.optimizer!r}: resume with "
            f"optimizer={written_with}, or start a new run in another output with init_from={run.config.output}"
        )
    tensors = tensors_of(run)
    states = {name: tensor for name, tensor in empty_tensors(path, "").items() if name.startswith(OPTIMIZERS)}
    load_checkpoint(path, {**tensors, **states})
    take_over(run, tensors, states)
    run.best_score = best_score
    run.scaler.load_state_dict(scaler)
    run.health.load_state_dict(health)
    first_step = run.plan.translate(steps_done, old_plan)
    lines = [*choice.lines, f"resumed from {path}: {steps_done} steps done"]
    if first_step != steps_done:
        lines.append(f"resume: {_length(run.plan, old_plan)}: step {steps_done} is step {first_step} now")
    lines += fingerprint_changes(progress, run)
    return Resumed(first_step, steps_done, lines)


def _length(new: Plan, old: Plan) -> str:
    """What makes steps of one plan other steps of another."""
    before, now = (plan.global_batch_size * plan.gradient_acc for plan in (old, new))
    if before != now:
        return f"a step takes {now} images, before {before}"
    return f"an epoch has {new.batches_per_epoch} batches, before {old.batches_per_epoch}"


def _progress(run: Run, steps_done: int) -> dict[str, Any]:
    """Where the run stands, as JSON; `score` is that of a verification after this very step."""
    plan = run.plan
    scored_at, score = run.last_score or (None, None)
    return {
        "steps_done": steps_done,
        "epoch": plan.epoch(steps_done),
        "score": score if scored_at == steps_done else None,
        "best_score": run.best_score,
        "scaler": run.scaler.state_dict(),
        "health": run.health.state_dict(),
        "plan": {
            "batches_per_epoch": plan.batches_per_epoch,
            "num_epoch": plan.num_epoch,
            "global_batch_size": plan.global_batch_size,
            "gradient_acc": plan.gradient_acc,
        },
        "config": run.config.to_dict(),
        "fingerprint": run.fingerprint,
    }


def _write_model(path: Path, state_dict: Mapping[str, Tensor], group: dist.ProcessGroup | None) -> None:
    """Writes a state dict on the main rank, whose `state_dict` alone is looked at; collective."""

    def write() -> None:
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in state_dict.items()}
        with whole_file(path) as stream:
            torch.save(state, stream)

    on_main(f"writing {path}", write, group)
