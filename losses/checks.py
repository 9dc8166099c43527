"""Refuses what PartialFC cannot do, before anything is allocated. Checks of one batch are PartialFC's own."""

from __future__ import annotations

from torch import Tensor

from losses.head import Head


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
