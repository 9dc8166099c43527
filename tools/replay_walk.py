"""Watches one forward and backward pass and says where numbers stop being finite. No dumps, no command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training.run import Run


class Walk:
    """Hooks on every module of a backbone; what they saw is in `forward` and `backward` when the pass is over.

    A module's parts end before it does, so the first one whose output is not finite is the innermost.

    Attributes:
        forward: about the first module whose output is not finite, or None.
        backward: about the module whose output's gradient is the first that is not finite, or None.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self.forward: str | None = None
        self.backward: str | None = None
        self._handles = [
            module.register_forward_hook(self._after(name or "the whole backbone"))
            for name, module in backbone.named_modules()
        ]

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _after(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            """Keeps the first output that is not finite, and has the gradient of each looked at in its turn."""
            tensors = [value for value in (output if isinstance(output, tuple) else (output,)) if _is_floating(value)]
            for tensor in tensors:
                if self.forward is None and not bool(torch.isfinite(tensor).all()):
                    given = ", ".join(describe(value) for value in inputs if _is_floating(value)) or "no tensor"
                    weights = ", ".join(f"{key} {describe(value)}" for key, value in module.named_parameters())
                    self.forward = f"{name} ({type(module).__name__}): output {describe(tensor)}; input {given}" + (
                        f"; {weights}" if weights and not list(module.children()) else ""
                    )
                if tensor.requires_grad:
                    tensor.register_hook(lambda gradient: self._look_back(name, module, gradient))

        return look

    def _look_back(self, name: str, module: nn.Module, gradient: Tensor) -> None:
        if self.backward is None and not bool(torch.isfinite(gradient).all()):
            self.backward = f"the output of {name} ({type(module).__name__}) has the gradient {describe(gradient)}"


def describe(tensor: Tensor) -> str:
    """Shape and range of the finite numbers, and how many are not."""
    numbers = tensor.detach().double()
    is_finite = torch.isfinite(numbers)
    good = numbers[is_finite]
    text = f"{tuple(tensor.shape)} in {float(good.min()):.4g} .. {float(good.max()):.4g}" if good.numel() else "(empty)"
    bad = numbers.numel() - good.numel()
    if not bad:
        return text
    kinds = f"{int(numbers.isnan().sum())} NaN, {int(numbers.isinf().sum())} infinite"
    return f"{text if good.numel() else tuple(tensor.shape)}, {bad} of {numbers.numel()} not finite ({kinds})"


def describe_head(run: Run) -> list[str]:
    """What the head was given in the last pass, statistic by statistic."""
    stats = run.fc.last_statistics
    if stats is None:
        return []
    names = ("embedding_norm", "prototype_norm", "target", "hardest", "log_sum")
    return [f"{name}: {describe(getattr(stats, name))}" for name in names]


def gradient_table(run: Run) -> list[tuple[str, float, float]]:
    """(layer, norm of its weights, norm of its gradient without loss scale), from the input to the output."""
    named = list(run.backbone.named_parameters())
    named += [(f"head.{name}", parameter) for name, parameter in run.fc.head.named_parameters()]
    table = [(name, _norm(value), _norm(value.grad) / run.scaler.scale) for name, value in named]
    rows = math.sqrt(float(run.fc.squared_grad_norm().double())) / run.scaler.scale
    return [*table, ("prototypes (this rank)", _norm(run.fc.weight), rows)]


def _norm(tensor: Tensor | None) -> float:
    return math.nan if tensor is None else float(torch.linalg.vector_norm(tensor.detach().double()))


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
