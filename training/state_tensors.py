"""A run's state as named tensors, as a checkpoint holds them, and back. No files and no numbers here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.run import Run

BACKBONE = "backbone/"
OPTIMIZERS = ("optimizer/", "fc_optimizer_head/")  # whose states the optimizers make only with their first step


def tensors_of(run: Run) -> dict[str, Tensor]:
    """Everything but numbers: replicated tensors and, for the classes, DTensors; loading fills them in place."""
    rows = run.fc_optimizer.sharded_state_dict()
    head = rows.pop("head", None)
    tensors = {f"{BACKBONE}{name}": tensor.detach() for name, tensor in run.backbone.state_dict().items()}
    tensors |= {f"fc/{name}": tensor for name, tensor in run.fc.sharded_state_dict().items()}
    tensors |= {f"fc_optimizer/{name}": tensor for name, tensor in rows.items()}
    tensors |= _flatten("optimizer/", run.optimizer.state_dict())
    if head is not None:
        tensors |= _flatten("fc_optimizer_head/", head)
    return tensors


def take_over(run: Run, tensors: Mapping[str, Tensor], states: Mapping[str, Tensor]) -> None:
    """Hands loaded tensors back to those who gave them out (or, for optimizer states, have none yet)."""
    run.backbone.load_state_dict(part(tensors, BACKBONE))
    run.fc.load_sharded_state_dict(part(tensors, "fc/"))
    _load_optimizer(run.optimizer, part(states, "optimizer/"))
    rows: dict[str, Any] = dict(part(tensors, "fc_optimizer/"))
    groups = run.fc_optimizer.sharded_state_dict().get("head")
    if groups is not None:
        rows["head"] = {**groups, "state": _unflatten(part(states, "fc_optimizer_head/"))}
    run.fc_optimizer.load_sharded_state_dict(rows)


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


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
