"""Made-up samples at every angle, and what a head's own code answers to them. No formulas and no drawing."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from losses import ClassStatistics, Head, SampleStatistics

NUM_CLASSES = 1000
NORM = 10.0  # of the embedding, where a head leaves it free; prototypes have norm 1
DEGREES = torch.arange(181, dtype=torch.float64)


def prepared(head: Head, class_counts: Tensor | None = None) -> Head:
    """Tells the head that there are NUM_CLASSES classes, of 20 images each unless told otherwise."""
    head.setup(NUM_CLASSES, torch.full((NUM_CLASSES,), 20) if class_counts is None else class_counts)
    return head.eval()


def similarity(head: Head, cosine: Tensor, norm: float) -> Tensor:
    """What the engine would hand the head for this cosine: prototypes of norm 1, embeddings of the given norm."""
    return cosine if head.normalize_embeddings else cosine * norm


def samples(
    head: Head, degrees: Tensor = DEGREES, *, norm: float = NORM, noise: float = 0.0, label: int = 0,
    is_right: bool = True,
) -> ClassStatistics:  # fmt: skip
    """One sample at each angle to its prototype, while all other classes lie at 90 degrees.

    Args:
        head: asked for the logits of the others.
        degrees: (N,) angles.
        norm: of the embeddings.
        noise: what the engine would have drawn for each sample.
        label: class of all samples.
        is_right: whether ``hardest`` is below or above every target.
    """
    ones = torch.ones_like(degrees)
    fields: dict[str, Any] = {
        "target": similarity(head, torch.deg2rad(degrees).cos(), norm),
        "embedding_norm": norm * ones,
        "prototype_norm": ones,
        "labels": torch.full(degrees.shape, label),
        "noise": noise * ones,
        "step": torch.zeros((), dtype=torch.float64),
        "margin_factor": torch.ones((), dtype=torch.float64),
        "weight": ones / len(ones),
        "num_classes": NUM_CLASSES,
    }
    others = non_target(head, SampleStatistics(**fields), torch.full_like(degrees, 90.0))
    log_sum = others * (NUM_CLASSES - 1) if head.reduction == "sum" else others + math.log(NUM_CLASSES - 1)
    hardest = torch.full_like(ones, -math.inf if is_right else math.inf)
    return ClassStatistics(**fields, log_sum=log_sum, hardest=hardest, hardest_cosine=None)


def non_target(head: Head, stats: SampleStatistics, degrees: Tensor) -> Tensor:
    """(N,) what ``head.non_target`` says of one other class per sample, at these angles to the embeddings.

    A head that also wants <w_y, w_j> gets the product of both cosines, which is what two prototypes have that are
    orthogonal apart from their part along the embedding.
    """
    cosine = torch.deg2rad(degrees).cos()
    norm = float(stats.embedding_norm[0])
    columns = [similarity(head, cosine, norm).unsqueeze(1)]
    if head.needs_prototype_similarity:
        columns.append((cosine * head.target_cosine(stats)).unsqueeze(1))
    context = [value.expand_as(stats.target).unsqueeze(1) for value in head.context(stats)]
    return head.non_target(*columns, *context).squeeze(1)


def non_targets_beside(head: Head, target_degrees: float, degrees: Tensor = DEGREES) -> Tensor:
    """(N,) logit of another class at each angle, for a sample whose own class is at ``target_degrees``."""
    return non_target(head, samples(head, torch.full_like(degrees, target_degrees)), degrees)


def parent_logit(head: Head, *, norm: float = NORM) -> Tensor:
    """(N,) the target's logit without any margin: the base class's own."""
    return Head.target_logit(head, samples(head, norm=norm))


def extra_logit(head: Head, *, is_right: bool = True) -> Tensor:
    """(N,) logit of the class that a head adds to the denominator."""
    return cast("Tensor", cast("Any", head).extra_logit(samples(head, is_right=is_right)))


def has_own(head: Head, method: str) -> bool:
    """Whether the head's class replaces a method of Head."""
    return getattr(type(head), method) is not getattr(Head, method)
