"""One run of prototypes on a sphere: a head, its regularisers, a schedule of scales; no tables, no command line."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.tammes_optimum import largest_class_margin
from eval.margins import class_margin
from losses import PartialFC, build_head

TERMS: dict[str, tuple[str, ...]] = {
    "alone": (),
    "+ R_sm": ("sample_margin",),
    "+ zero centroid": ("zero_centroid",),
    "+ both": ("sample_margin", "zero_centroid"),
}


@dataclass(frozen=True)
class Setting:
    """How one run goes.

    Attributes:
        steps: of the optimizer.
        lr: of the first step; it falls to 0 along a line.
        optimizer: "adamw" or "sgd" (momentum 0.9), without weight decay.
        embeddings: "free", or "prototypes": each embedding lies on its prototype.
        weight: of each regulariser.
        margins: head -> its margin.
    """

    steps: int = 1000
    lr: float = 0.1
    optimizer: str = "sgd"
    embeddings: str = "free"
    weight: float = 1.0
    margins: Mapping[str, float] | None = None


def spread_out(
    head: str, terms: Sequence[str], num_classes: int, dim: int, scales: tuple[float, float], seed: int,
    setting: Setting,
) -> Tensor:  # fmt: skip
    """(C, D) unit prototypes in float64 after one run; the scale grows geometrically from the first to the second."""
    margin = (setting.margins or {}).get(head)
    built = build_head(head, scale=scales[0], **({} if margin is None else {"margin": margin}))
    regularizers = dict.fromkeys(terms, setting.weight)
    layer = PartialFC(built, dim, num_classes, regularizers=regularizers, seed=seed, prototype_std=1.0).double()
    labels = torch.arange(num_classes)
    generator = torch.Generator().manual_seed(seed)
    free = torch.nn.Parameter(torch.randn(num_classes, dim, generator=generator, dtype=torch.float64))
    is_free = setting.embeddings == "free"
    kinds: dict[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    own = {"weight_decay": 0.0} | ({"momentum": 0.9} if setting.optimizer == "sgd" else {})
    optimizers = [layer.make_optimizer(setting.optimizer, setting.lr)]
    optimizers += [kinds[setting.optimizer]([free], lr=setting.lr, **own)] if is_free else []
    for step in range(setting.steps):
        done = step / setting.steps
        built.scale = scales[0] * (scales[1] / scales[0]) ** done
        to_unit_length(layer.weight, free)  # zero_centroid means the unit prototypes
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = setting.lr * (1 - done)
            optimizer.zero_grad()
        layer(free if is_free else layer.weight, labels, step=step).backward()
        for optimizer in optimizers:
            optimizer.step()
    return to_unit_length(layer.weight)[0]


@torch.no_grad()
def to_unit_length(*matrices: Tensor) -> list[Tensor]:
    """Brings rows to length 1 in place."""
    return [matrix.copy_(F.normalize(matrix)).detach() for matrix in matrices]


def measured(
    num_classes: int, dim: int, terms: str, scales: tuple[float, float], head: str, seeds: int, setting: Setting
) -> dict[str, Any]:
    """Class margins of one head under one schedule, of every seed, in degrees."""
    found = [
        class_margin(spread_out(head, TERMS[terms], num_classes, dim, scales, seed, setting)) for seed in range(seeds)
    ]
    return {
        "classes": num_classes, "dim": dim, "head": head, "terms": terms, "scale_from": scales[0],
        "scale_to": scales[1], "class_margins": found, "mean": statistics.fmean(found),
        "std": statistics.pstdev(found), "best": max(found), "optimum": largest_class_margin(num_classes, dim),
    }  # fmt: skip
