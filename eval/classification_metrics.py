"""Embeddings, labels and prototypes -> accuracy, margins, prototype norms: pure functions. No images, no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from eval.margins import class_margin, sample_margins
from utils.errors import DataError

_RESULTS = 1 << 22  # similarities held at a time: 16 MiB
TOP = 5


class ClassificationError(DataError):
    """Embeddings, labels and prototypes that do not belong together, or numbers that are not finite."""


@dataclass(frozen=True)
class ClassificationResult:
    """How well prototypes classify N embeddings of C classes.

    Attributes:
        num_images: N.
        top1: share of the images whose own prototype is the most similar one, 0 .. 1.
        top5: share of those whose own is among the five; None where there are five classes or fewer.
        mean_class_accuracy: mean over the classes that occur of their top-1 accuracy.
        class_accuracy: (C,) top-1 accuracy of each class, NaN where none of its images is here.
        class_images: (C,) int64, images of each class here.
        class_margin: the smallest angle between two prototypes, in degrees (Zhou et al., Learning Towards the Largest
            Margins, ICLR 2022, as an angle); None with several prototypes per class, or one of length 0.
        sample_margin_min: the smallest sample margin, cos(theta_y) - max over j != y of cos(theta_j), -2 .. 2 (same
            paper); 0 for an embedding of length 0; None where `class_margin` is.
        sample_margin_mean: the mean of them; what is published as m_samp fits a mean.
        prototype_norm_ratio: the largest prototype norm by the smallest; infinite where one is zero.
    """

    num_images: int
    top1: float
    top5: float | None
    mean_class_accuracy: float
    class_accuracy: NDArray[np.float64]
    class_images: NDArray[np.int64]
    class_margin: float | None
    sample_margin_min: float | None
    sample_margin_mean: float | None
    prototype_norm_ratio: float

    def to_dict(self, *, by_class: bool = True) -> dict[str, Any]:
        """JSON-able, with an error beside each accuracy; the per-class lists only where they are asked for."""
        values: dict[str, Any] = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("class_a")
        }
        values["error"] = 1.0 - self.top1
        del values["class_images"]
        if by_class:
            values["class_images"] = self.class_images.tolist()
            values["class_accuracy"] = [None if np.isnan(value) else float(value) for value in self.class_accuracy]
        return values


def classify(
    embeddings: Tensor, labels: Tensor, prototypes: Tensor, *, normalize_prototypes: bool
) -> ClassificationResult:
    """Score embeddings by prototypes: without margin, without a virtual class, as a trained net is used.

    An image is right where no other class is more similar; among equals the lower class counts as the more similar one,
    so that a net which says the same of all classes gets 1/C and not 1.

    Args:
        embeddings: (N, D) float, not normalised, N >= 1.
        labels: (N,) in [0, C).
        prototypes: (C, D), or (C, K, D) where a class has K of which the best counts; C >= 2.
        normalize_prototypes: compare directions, as the head did in training; else inner products. Norms of embeddings
            move no class before another, so nothing depends on them.

    Raises:
        ClassificationError: shapes or labels that do not fit, or numbers that are not finite.
    """
    _check(embeddings, labels, prototypes)
    embeddings, prototypes = embeddings.float(), prototypes.float()
    num_classes = prototypes.shape[0]
    places = class_places(embeddings, labels, prototypes, normalize_prototypes=normalize_prototypes)
    right = (places == 0).double()
    images = torch.bincount(labels, minlength=num_classes)
    hits = torch.bincount(labels, weights=right, minlength=num_classes)
    accuracy = (hits / images).cpu().numpy()  # NaN where a class has no image
    norms = torch.linalg.vector_norm(prototypes, dim=-1)
    smallest = float(norms.min())
    has_margins = prototypes.ndim == 2 and smallest > 0
    margins = _margins(embeddings, labels, prototypes) if has_margins else None
    return ClassificationResult(
        num_images=len(labels),
        top1=float(right.mean()),
        top5=float((places < TOP).double().mean()) if num_classes > TOP else None,
        mean_class_accuracy=float(np.nanmean(accuracy)),
        class_accuracy=accuracy,
        class_images=images.cpu().numpy(),
        class_margin=float(class_margin(prototypes)) if has_margins else None,
        sample_margin_min=None if margins is None else float(margins.min()),
        sample_margin_mean=None if margins is None else float(margins.double().mean()),
        prototype_norm_ratio=float(norms.max()) / smallest if smallest > 0 else float("inf"),
    )


def class_places(embeddings: Tensor, labels: Tensor, prototypes: Tensor, *, normalize_prototypes: bool) -> Tensor:
    """How many classes come before an image's own, (N,) int64: 0 is right, below k is right among the first k.

    Args:
        embeddings: (N, D).
        labels: (N,).
        prototypes: (C, D) or (C, K, D).
        normalize_prototypes: see `classify`.
    """
    num_classes = prototypes.shape[0]
    weight = F.normalize(prototypes, dim=-1) if normalize_prototypes else prototypes
    rows = weight.reshape(-1, weight.shape[-1])
    classes = torch.arange(num_classes, device=embeddings.device)
    found = []
    block = max(1, _RESULTS // len(rows))
    for part, own in zip(embeddings.split(block), labels.split(block), strict=True):
        similarity = (part @ rows.T).view(len(part), num_classes, -1).amax(dim=2)
        target = similarity.gather(1, own[:, None])
        equal_and_lower = (similarity == target) & (classes < own[:, None])
        found.append(((similarity > target) | equal_and_lower).sum(dim=1))
    return torch.cat(found)


def _margins(embeddings: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Sample margins (N,), 0 for embeddings without a direction."""
    found = torch.zeros(len(embeddings), dtype=torch.float64, device=embeddings.device)
    has_direction = torch.linalg.vector_norm(embeddings, dim=1) > 0
    if bool(has_direction.any()):
        margins = sample_margins(embeddings[has_direction], labels[has_direction], prototypes)
        found[has_direction] = margins.to(found.dtype)
    return found


def _check(embeddings: Tensor, labels: Tensor, prototypes: Tensor) -> None:
    if embeddings.ndim != 2 or not len(embeddings) or labels.shape != embeddings.shape[:1]:
        raise ClassificationError(
            f"embeddings of shape {tuple(embeddings.shape)} with labels {tuple(labels.shape)}: (N, D) and (N,) are "
            "needed, of one image at least"
        )
    if prototypes.ndim not in (2, 3) or len(prototypes) < 2 or prototypes.shape[-1] != embeddings.shape[1]:
        raise ClassificationError(
            f"prototypes of shape {tuple(prototypes.shape)} cannot classify embeddings of {embeddings.shape[1]} "
            "numbers: (C, D) or (C, K, D) is needed, of two classes at least"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(prototypes):
        raise ClassificationError(
            f"labels lie in {low} .. {high}, {len(prototypes)} prototypes allow 0 .. {len(prototypes) - 1}"
        )
    for name, values in (("embeddings", embeddings), ("prototypes", prototypes)):
        if not bool(values.isfinite().all()):
            bad = int((~values.isfinite()).flatten(1).any(dim=1).sum())
            raise ClassificationError(f"{bad} of {len(values)} {name} hold NaN or infinity: nothing can be scored")
