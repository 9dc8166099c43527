"""Verification restated in float64 loops from the definitions: no product code, no vectorised shortcuts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """<a, b> / (|a| |b|)."""
    dot = sum(float(a) * float(b) for a, b in zip(first, second, strict=True))
    lengths = [sum(float(a) ** 2 for a in vector) ** 0.5 for vector in (first, second)]
    return dot / (lengths[0] * lengths[1])


def rates(scores: Sequence[float], same: Sequence[bool], weights: Sequence[float]) -> list[tuple[float, float]]:
    """(FAR, TAR) of every threshold, from "nothing accepted" down to "all accepted"."""
    total = {kind: sum(w for w, s in zip(weights, same, strict=True) if s == kind) for kind in (False, True)}
    found = [(0.0, 0.0)]
    for threshold in sorted(set(scores), reverse=True):
        accepted = {False: 0.0, True: 0.0}
        for score, kind, weight in zip(scores, same, weights, strict=True):
            if score >= threshold:
                accepted[bool(kind)] += weight
        found.append((accepted[False] / total[False], accepted[True] / total[True]))
    return found


def auc(scores: Sequence[float], same: Sequence[bool], weights: Sequence[float]) -> float:
    """Chance that a same pair scores above a different one, ties half."""
    won = pairs = 0.0
    for one, is_same, w in zip(scores, same, weights, strict=True):
        for other, is_other_same, v in zip(scores, same, weights, strict=True):
            if is_same and not is_other_same:
                pairs += w * v
                won += w * v * (1.0 if one > other else 0.5 if one == other else 0.0)
    return won / pairs


def eer(scores: Sequence[float], same: Sequence[bool], weights: Sequence[float]) -> float:
    """FAR where straight lines between the points of the ROC cross FAR = 1 - TAR."""
    points = rates(scores, same, weights)
    for (far, tar), (next_far, next_tar) in itertools.pairwise(points):
        gap, next_gap = far - (1 - tar), next_far - (1 - next_tar)
        if gap < 0 <= next_gap:
            return far + (next_far - far) * -gap / (next_gap - gap)
    raise AssertionError("the curve ends at (1, 1)")


def tar_at_far(scores: Sequence[float], same: Sequence[bool], weights: Sequence[float], far: float) -> float:
    """The highest TAR of a threshold whose FAR is not above the one asked for."""
    return max(tar for measured, tar in rates(scores, same, weights) if measured <= far + 1e-12)


def fold_accuracies(
    distances: Sequence[float],
    same: Sequence[bool],
    folds: Sequence[int],
    thresholds: Sequence[float],
    development: tuple[Sequence[float], Sequence[bool]] | None = None,
) -> list[float]:
    """Per fold the accuracy of `distance < t` at the first t that is best on the other folds, or on other pairs."""

    def accuracy(chosen: Sequence[tuple[float, bool]], threshold: float) -> float:
        return sum((distance < threshold) == kind for distance, kind in chosen) / len(chosen)

    everything = list(zip(distances, same, folds, strict=True))
    found = []
    for fold in sorted(set(folds)):
        inside = [(d, s) for d, s, f in everything if f == fold]
        outside = [(d, s) for d, s, f in everything if f != fold] or inside
        if development is not None:
            outside = list(zip(*development, strict=True))
        best = max(thresholds, key=lambda t: (accuracy(outside, t), -t))
        found.append(accuracy(inside, best))
    return found
