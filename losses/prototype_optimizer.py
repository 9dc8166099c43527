"""SGD and AdamW over the rows of a prototype shard: only rows that took part move. Backbones use torch's optimizers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from losses.sharding import as_local

if TYPE_CHECKING:
    from losses.partial_fc import PartialFC

_STATE = {"sgd": ("momentum",), "adamw": ("mean", "mean_square", "row_step")}
_ROWS_PER_BLOCK = 8192  # bounds the temporaries of an update; a block of 8192 x 512 floats is 16 MiB


class PrototypeOptimizer:
    """Updates the prototypes of one PartialFC and the parameters of its head, as torch.optim's SGD or AdamW would.

    With ``sample_rate < 1`` a row's momentum, decay and Adam step count advance only when the row is sampled.

    Args:
        fc: whose prototypes and head parameters are updated.
        kind: "sgd" or "adamw".
        lr: learning rate, > 0.
        momentum: of SGD, 0 .. 1.
        weight_decay: added to the gradient by SGD, decoupled in AdamW; >= 0.
        betas: of AdamW.
        eps: of AdamW.
    """

    def __init__(
        self, fc: PartialFC, kind: str, lr: float, momentum: float = 0.9, weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
    ) -> None:  # fmt: skip
        if kind not in _STATE:
            raise ValueError(f"optimizer {kind!r} is not known for prototypes; use one of {sorted(_STATE)}")
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not 0 <= value < math.inf:
                raise ValueError(f"prototype optimizer: {name} must be finite and >= 0, got {value}")
        self.fc, self.kind, self.betas, self.eps = fc, kind, betas, eps
        self.param_groups: list[dict[str, Any]] = [{"lr": lr, "momentum": momentum, "weight_decay": weight_decay}]
        weight = fc.weight.detach()
        self.state = {
            name: weight.new_zeros(weight.shape[0]) if name == "row_step" else torch.zeros_like(weight)
            for name in _STATE[kind]
        }
        parameters = list(fc.head.parameters())
        self._head_optimizer: torch.optim.Optimizer | None = None
        if parameters and kind == "sgd":
            self._head_optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
        elif parameters:
            self._head_optimizer = torch.optim.AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self) -> None:
        """Moves the rows that have a gradient."""
        for waiting in self.fc.row_gradients():
            rows, held = waiting.rows, waiting.values
            for first in range(0, waiting.gradient.shape[0], _ROWS_PER_BLOCK):
                block = slice(first, first + _ROWS_PER_BLOCK)
                self._update(
                    block if rows is None else rows[block],
                    waiting.gradient[block],
                    None if held is None else held[block],
                )
            # The fused kernel does not: a graph of the old values would run backward on the new ones unnoticed.
            torch.autograd.graph.increment_version([self.fc.weight] if held is None else [self.fc.weight, held])
        if self._head_optimizer is not None:
            self._head_optimizer.param_groups[0]["lr"] = self.param_groups[0]["lr"]
            self._head_optimizer.step()

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        self.fc.clear_gradients()

    def sharded_state_dict(self) -> dict[str, Any]:
        """State by name; row states as DTensors over the global classes where ranks share them."""
        state: dict[str, Any] = {name: self.fc.as_global(value) for name, value in self.state.items()}
        if self._head_optimizer is not None:
            state["head"] = self._head_optimizer.state_dict()
        return state

    def load_sharded_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what ``sharded_state_dict`` gave, resharded to this world size."""
        missing = sorted(set(self.state) - set(state))
        if missing:
            raise ValueError(
                f"prototype optimizer {self.kind!r}: the saved state lacks {missing}; it has {sorted(state)}"
            )
        for name, value in self.state.items():
            value.copy_(as_local(state[name]))
        if self._head_optimizer is not None and "head" in state:
            self._head_optimizer.load_state_dict(state["head"])

    def _update(self, rows: slice | Tensor, gradient: Tensor, held: Tensor | None) -> None:
        """One block: a slice updates in place, an index gathers (but the weights it holds), updates, writes back."""
        group, names = self.param_groups[0], _STATE[self.kind]
        wholes = [self.fc.weight.detach(), *(self.state[name] for name in names)]
        # index_select, because indexing with a tensor takes several times as long on CPU
        read = wholes if held is None else wholes[1:]
        values = [whole[rows] if isinstance(rows, slice) else whole.index_select(0, rows) for whole in read]
        values = values if held is None else [held, *values]
        if self.kind == "sgd":
            _sgd(values, gradient, group)
        else:
            _adamw(values, gradient, group, self.betas, self.eps)
        if isinstance(rows, Tensor):
            for whole, value in zip(wholes, values, strict=True):
                whole.index_copy_(0, rows, value)


def _sgd(values: Sequence[Tensor], gradient: Tensor, group: dict[str, Any]) -> None:
    weight, momentum = values
    # torch's fused kernel reads and writes each number once: twice as fast as the same in four operations.
    sgd(
        [weight], [gradient], [momentum], weight_decay=group["weight_decay"], momentum=group["momentum"],
        lr=group["lr"], dampening=0.0, nesterov=False, maximize=False, fused=True,
    )  # fmt: skip


def _adamw(
    values: Sequence[Tensor], gradient: Tensor, group: dict[str, Any], betas: tuple[float, float], eps: float
) -> None:
    weight, mean, mean_square, step = values
    step.add_(1)
    step = step.reshape(-1, *(1 for _ in weight.shape[1:]))
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    mean.lerp_(gradient, 1 - betas[0])
    mean_square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    corrected = mean_square.sqrt() / (1 - betas[1] ** step).sqrt()
    weight.sub_(group["lr"] / (1 - betas[0] ** step) * mean / (corrected + eps))
