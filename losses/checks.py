"""Refuses what PartialFC cannot do, before anything is allocated. Checks of one batch are PartialFC's own."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.head import Head, SampleStatistics
from losses.options import EngineOptions


def check_layer(
    head: Head, embedding_size: int, num_classes: int, sample_rate: float, interclass_filter: float | None,
    chunk_size: int | None, class_counts: Tensor | None,
) -> None:  # fmt: skip
    """Checks PartialFC's arguments, which have the same names.

    Raises:
        ValueError: one is out of its range, or the head cannot work with it.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be >= 2 (a margin needs another class), got {num_classes}")
    if embedding_size < 1:
        raise ValueError(f"embedding_size must be >= 1, got {embedding_size}")
    if not 0 < sample_rate <= 1:
        raise ValueError(f"sample_rate must lie in (0, 1], got {sample_rate}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be >= 1, got {chunk_size}")
    if class_counts is not None and tuple(class_counts.shape) != (num_classes,):
        raise ValueError(f"class_counts must be ({num_classes},), one per class, got {tuple(class_counts.shape)}")
    if interclass_filter is not None and not -1 <= interclass_filter <= 1:
        raise ValueError(f"interclass_filter is a cosine, -1 .. 1, got {interclass_filter}")
    if interclass_filter is not None and not head.is_on_cosines:
        raise ValueError(
            f"interclass_filter is a cosine, but {type(head).__name__} works on inner products; use a head on cosines "
            "(normface, cosface, arcface, ...) or leave it out"
        )
    if head.sub_centers < 1:
        raise ValueError(f"{type(head).__name__}: sub_centers must be >= 1, got {head.sub_centers}")
    if head.sub_centers > 1 and head.needs_prototype_similarity:
        raise ValueError(
            f"{type(head).__name__} has {head.sub_centers} sub-centres and compares prototypes: which of a class's "
            "sub-centres would be compared is not defined; use one of the two"
        )


def check_head(head: Head, num_classes: int, options: EngineOptions) -> None:
    """Refuses what a head could not be trained with, once it is set up.

    Raises:
        ValueError: a learned number that the engine would give no gradient; a combination whose meaning is not defined;
            a negative memory budget.
    """
    name = type(head).__name__
    if options.memory_budget < 0:
        raise ValueError(f"memory_budget must be >= 0 bytes, got {options.memory_budget}")
    if head.sub_centers > 1 and options.wants_hardest_cosine and not head.is_on_cosines:
        raise ValueError(
            f"{name} has {head.sub_centers} sub-centres on inner products: which one's cosine sample_margin would take "
            "is not defined; use a head on cosines or leave the regulariser out"
        )
    scale: object = head.scale
    if isinstance(scale, Tensor):
        raise ValueError(f"{name}: scale must be a float; a learned one belongs into context() and non_target()")
    parameters = dict(head.named_parameters())
    if not parameters:
        return
    like = next(iter(parameters.values()))
    one, zero = like.new_ones(1), like.new_zeros(1)
    pre = SampleStatistics(
        zero, one, one, torch.zeros(1, dtype=torch.int64, device=like.device), zero, zero[0], one[0], one, num_classes
    )
    similarities = [like.new_zeros(1, 1)] * (2 if head.needs_prototype_similarity else 1)
    with torch.enable_grad():
        context = [value.detach().expand(1).unsqueeze(1) for value in head.context(pre)]
        output = head.non_target(*similarities, *context)
    if output.requires_grad:
        raise ValueError(
            f"{name}.non_target reads a learned number from the head itself ({', '.join(parameters)}), which would get "
            "no gradient: return it from context(), from where the engine hands it to non_target"
        )
