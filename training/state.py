"""A run as tensors and numbers that a checkpoint can hold, and back. How files are written is utils/checkpoint.py's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.build import Run
from training.step import refuse_bad_weights
from utils.checkpoint import (
    CheckpointError,
    empty_tensors,
    latest_checkpoint,
    load_checkpoint,
    on_main,
    read_manifest,
    save_checkpoint,
)
from utils.distributed import average_buffers, broadcast_object, gather_objects
from utils.files import whole_file
from utils.schedule import Plan

# Keys that may change between an interrupted run and its continuation without a word.
_FREE_KEYS = frozenset(
    {
        "resume",
        "output",
        "frequent",
        "num_workers",
        "threads",
        "source",
        "notes",
        "checkpoint_interval",
        "keep_checkpoints",
    }
)


def save_run(run: Run, steps_done: int) -> None:
    """Writes a checkpoint and model.pt; collective. First averages the replicas' running statistics.

    Raises:
        NonFiniteError: weights that are not worth saving.
    """
    refuse_bad_weights(run, steps_done)
    average_buffers(run.backbone)
    plan = run.plan
    progress = {
        "steps_done": steps_done,
        "epoch": plan.epoch(steps_done),
        "best_score": run.best_score,
        "scaler": run.scaler.state_dict(),
        "plan": {
            "batches_per_epoch": plan.batches_per_epoch,
            "num_epoch": plan.num_epoch,
            "global_batch_size": plan.global_batch_size,
            "gradient_acc": plan.gradient_acc,
        },
        "config": run.config.to_dict(),
    }
    folder = Path(run.config.output or "")
    save_checkpoint(folder / "checkpoints", steps_done, _tensors(run), progress, keep=run.config.keep_checkpoints)
    save_model(run, "model.pt")


def save_model(run: Run, name: str) -> None:
    """Writes the backbone's state dict as `name` into the run's folder, on the main rank; collective."""
    path = Path(run.config.output or "") / name

    def write() -> None:
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in run.backbone.state_dict().items()}
        with whole_file(path) as stream:
            torch.save(state, stream)

    on_main(f"writing {path}", write)


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
    """Loads the newest checkpoint of the run's folder, if there is one; collective.

    It may have been written by another number of ranks. With the same global batch size the run goes on with the very
    next batch; with another one it goes on at the same place of the epoch, and steps are counted anew.

    Raises:
        CheckpointError: it is damaged, or of another network, head or optimizer.
    """
    path = broadcast_object(latest_checkpoint(Path(run.config.output or "") / "checkpoints"))
    # The main rank chooses: ranks that saw different checkpoints would wait for each other in different collectives.
    blind = [rank for rank, sees in enumerate(gather_objects(path is None or path.is_dir())) if not sees]
    if blind:
        raise CheckpointError(f"{path}: not visible to ranks {blind}: all ranks need one shared file system")
    if path is None:
        return Resumed(0, 0, [f"resume: no checkpoint in {run.config.output}, starting from the beginning"])
    written = read_manifest(path)
    old = written["progress"]["config"]
    if old["optimizer"] != run.config.optimizer:
        raise CheckpointError(
            f"{path}: written with optimizer {old['optimizer']!r}, this run has {run.config.optimizer!r}: resume with "
            f"optimizer={old['optimizer']}, or start a new run in another output with init_from={run.config.output}"
        )
    tensors = _tensors(run)
    states = {name: tensor for name, tensor in empty_tensors(path, "").items() if name.startswith(_OPTIMIZERS)}
    progress = load_checkpoint(path, {**tensors, **states})
    _take_over(run, tensors, states)
    run.best_score = progress["best_score"]
    run.scaler.load_state_dict(progress["scaler"])
    steps_done = int(progress["steps_done"])
    first_step = run.plan.translate(steps_done, Plan(**progress["plan"]))
    lines = [f"resumed from {path}: {steps_done} steps done"]
    if first_step != steps_done:
        before = progress["plan"]["global_batch_size"] * progress["plan"]["gradient_acc"]
        now = run.plan.global_batch_size * run.plan.gradient_acc
        lines.append(f"resume: a step takes {now} images, before {before}: step {steps_done} is step {first_step} now")
    new = run.config.to_dict()
    changed = [
        f"{key} {old.get(key)!r} -> {new[key]!r}" for key in new if key not in _FREE_KEYS and new[key] != old.get(key)
    ]
    if changed:
        lines.append("resume: changed since then: " + ", ".join(changed))
    return Resumed(first_step, steps_done, lines)


_OPTIMIZERS = ("optimizer/", "fc_optimizer_head/")


def _tensors(run: Run) -> dict[str, Tensor]:
    """Everything but numbers: replicated tensors and, for the classes, DTensors; loading fills them in place."""
    rows = run.fc_optimizer.sharded_state_dict()
    head = rows.pop("head", None)
    tensors = {f"backbone/{name}": tensor.detach() for name, tensor in run.backbone.state_dict().items()}
    tensors |= {f"fc/{name}": tensor for name, tensor in run.fc.sharded_state_dict().items()}
    tensors |= {f"fc_optimizer/{name}": tensor for name, tensor in rows.items()}
    tensors |= _flatten("optimizer/", run.optimizer.state_dict())
    if head is not None:
        tensors |= _flatten("fc_optimizer_head/", head)
    return tensors


def _take_over(run: Run, tensors: Mapping[str, Tensor], states: Mapping[str, Tensor]) -> None:
    """Hands loaded tensors back to those who gave them out (or, for optimizer states, have none yet)."""
    run.backbone.load_state_dict(_part(tensors, "backbone/"))
    run.fc.load_sharded_state_dict(_part(tensors, "fc/"))
    _load_optimizer(run.optimizer, _part(states, "optimizer/"))
    rows: dict[str, Any] = dict(_part(tensors, "fc_optimizer/"))
    groups = run.fc_optimizer.sharded_state_dict().get("head")
    if groups is not None:
        rows["head"] = {**groups, "state": _unflatten(_part(states, "fc_optimizer_head/"))}
    run.fc_optimizer.load_sharded_state_dict(rows)


def _load_optimizer(optimizer: torch.optim.Optimizer, states: Mapping[str, Tensor]) -> None:
    """Loads per-parameter tensors, laid out in memory as their parameters: updates are fastest where both agree."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for index, values in _unflatten(states).items():
        like = parameters[index]
        state[index] = {
            name: torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value
            for name, value in values.items()
        }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _flatten(prefix: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A torch optimizer's per-parameter tensors as `prefix + index/name`; rates and the like come from the config."""
    return {
        f"{prefix}{index}/{name}": value
        for index, state in state_dict["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _unflatten(states: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    unflattened: dict[int, dict[str, Tensor]] = {}
    for key, value in states.items():
        index, _, name = key.partition("/")
        unflattened.setdefault(int(index), {})[name] = value
    return unflattened


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
