"""How embeddings lie in their space: angles, spread, dimension, norms. Arrays in, numbers out; no files, no images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from eval.pair_metrics import VerificationError

PERCENTILES = (5, 50, 95)
_BLOCK = 2048
_BINS = 180_000  # thousandths of a degree
UNIFORMITY_SAMPLE = 20_000

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def normalised(embeddings: NDArray[Any]) -> Floats:
    """(N, D) rows of length 1 in float64.

    Raises:
        VerificationError: a row that is not finite, or of length 0.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1)
    num_bad = int((~np.isfinite(norms)).sum() + (norms == 0).sum())
    if rows.ndim != 2 or num_bad:
        raise VerificationError(f"{num_bad} of {len(rows)} embeddings are NaN, infinite or 0 throughout")
    unit: Floats = rows / norms[:, None]
    return unit


def cosine_to_own_mean(unit: Floats, labels: Labels) -> Floats:
    """(N,) cosine of each embedding with the mean of the others of its identity; NaN where there is no other.

    Leaving the embedding out keeps identities of few images comparable with large ones: a mean that holds it is nearer.
    """
    sums = _sums(unit, labels)
    others = sums[labels] - unit
    counts = np.bincount(labels, minlength=len(sums))[labels]
    lengths = np.linalg.norm(others, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.einsum("ij,ij->i", unit, others) / lengths
    found: Floats = np.where((counts > 1) & (lengths > 0), np.clip(cosines, -1, 1), np.nan)
    return found


def angle_statistics(unit: Floats, labels: Labels) -> dict[str, Any]:
    """Angles in degrees within and between identities.

    "intra": each embedding to the mean of the others of its identity. "inter": the means of every two identities.
    "nearest_other": the mean of each identity to the nearest other one. Each with mean, percentiles and count; None
    where there is nothing to measure. Memory is flat in the number of identities' pairs.

    Args:
        unit: (N, D) rows of length 1.
        labels: (N,) 0 .. identities - 1.
    """
    intra = np.degrees(np.arccos(cosine_to_own_mean(unit, labels)))
    sums = _sums(unit, labels)
    lengths = np.linalg.norm(sums, axis=1)
    means = sums[lengths > 0] / lengths[lengths > 0, None]
    nearest = np.full(len(means), -1.0)
    counts = np.zeros(_BINS + 1, dtype=np.int64)
    total = 0.0
    for first in range(0, len(means), _BLOCK):
        for second in range(first, len(means), _BLOCK):
            cosines = np.clip(means[first : first + _BLOCK] @ means[second : second + _BLOCK].T, -1, 1)
            if first == second:
                np.fill_diagonal(cosines, -1.0)
            rows, columns = slice(first, first + len(cosines)), slice(second, second + cosines.shape[1])
            nearest[rows] = np.maximum(nearest[rows], cosines.max(axis=1))
            nearest[columns] = np.maximum(nearest[columns], cosines.max(axis=0))
            angles = np.degrees(np.arccos(cosines[np.triu_indices(len(cosines), 1)] if first == second else cosines))
            counts += np.bincount((angles.ravel() * (_BINS / 180)).astype(np.int64), minlength=_BINS + 1)
            total += float(angles.sum())
    return {
        "intra": _statistics(intra[np.isfinite(intra)]),
        "inter": _counted(counts, total),
        "nearest_other": _statistics(np.degrees(np.arccos(nearest))) if len(means) > 1 else None,
    }


def effective_dimension(unit: Floats) -> dict[str, Any]:
    """How many directions the embeddings use, from the eigenvalues l of their covariance.

    participation_ratio = (sum l)^2 / sum l^2; biased towards the number of embeddings where they are few (Chun et al.,
    "Estimating Dimensionality of Neural Representations from Finite Samples", 2025, who also write it so).
    entropy_dimension = exp(-sum p ln p), p = l / sum l: Roy and Vetterli's effective rank ("The effective rank: a
    measure of effective dimensionality", EUSIPCO 2007), which they define on singular values of a matrix; here on the
    covariance's eigenvalues. Both lie in 1 .. D.

    Returns:
        Both numbers (None where all embeddings are equal), "eigenvalues" from the largest down, and "dimension" D.
    """
    centred = unit - unit.mean(axis=0)
    eigenvalues = np.maximum(np.linalg.eigvalsh(centred.T @ centred / len(unit))[::-1], 0.0)
    total = eigenvalues.sum()
    known = bool(total > 1e-12)
    shares = eigenvalues[eigenvalues > 0] / total if known else np.ones(1)
    return {
        "participation_ratio": float(total**2 / (eigenvalues**2).sum()) if known else None,
        "entropy_dimension": float(np.exp(-(shares * np.log(shares)).sum())) if known else None,
        "dimension": unit.shape[1],
        "eigenvalues": eigenvalues.tolist(),
    }


def alignment(unit: Floats, labels: Labels) -> float | None:
    """Mean of ||x - y||^2 over all pairs of one identity, in closed form; None where there is no such pair.

    Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", ICML 2020, with their default exponent 2.
    """
    counts = np.bincount(labels).astype(np.float64)
    sums = _sums(unit, labels)
    num_pairs = float((counts * (counts - 1)).sum() / 2)
    # the sum of ||x - y||^2 over unordered pairs of n rows is n * sum ||x||^2 - ||sum x||^2
    total = float((counts**2 - (sums**2).sum(axis=1)).sum())
    return max(0.0, total) / num_pairs if num_pairs else None  # of equal rows rounding makes less than nothing


def uniformity(unit: Floats, *, seed: int = 0) -> dict[str, Any]:
    """ln of the mean of exp(-2 ||x - y||^2) over all pairs; Wang and Isola (see alignment), with their default t = 2.

    Of more than 20,000 embeddings so many are drawn; lower is more uniform.

    Returns:
        "value" (None for fewer than 2 embeddings) and "num_embeddings" it was computed on.
    """
    if len(unit) > UNIFORMITY_SAMPLE:
        unit = unit[np.random.default_rng(seed).choice(len(unit), UNIFORMITY_SAMPLE, replace=False)]
    total = 0.0
    for first in range(0, len(unit), _BLOCK):
        block = np.exp(-4.0 + 4.0 * (unit[first : first + _BLOCK] @ unit.T))  # ||x - y||^2 = 2 - 2 cos
        total += float(block.sum()) - float(np.trace(block[:, first : first + len(block)]))
    num_pairs = len(unit) * (len(unit) - 1)
    return {"value": float(np.log(total / num_pairs)) if num_pairs else None, "num_embeddings": len(unit)}


def norm_correlations(norms: NDArray[Any], others: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Spearman's rank correlation of the norms with each of the others, over rows where both are known.

    Returns:
        By name {"spearman", "num_embeddings"}; the correlation is None for fewer than 3 rows or a constant.
    """
    found = {}
    for name, values in others.items():
        known = np.isfinite(values) & np.isfinite(norms)
        pair = norms[known], values[known]
        varies = known.sum() >= 3 and all(np.ptp(side) > 0 for side in pair)
        value = float(spearmanr(*pair).statistic) if varies else None
        found[name] = {"spearman": value, "num_embeddings": int(known.sum())}
    return found


def _sums(unit: Floats, labels: Labels) -> Floats:
    sums = np.zeros((int(labels.max(initial=-1)) + 1, unit.shape[1]))
    np.add.at(sums, labels, unit)
    return sums


def _statistics(angles: Floats) -> dict[str, Any] | None:
    if not len(angles):
        return None
    percentiles = np.percentile(angles, PERCENTILES)
    return {
        "mean": float(angles.mean()),
        **{f"p{p}": float(value) for p, value in zip(PERCENTILES, percentiles, strict=True)},
        "count": len(angles),
    }


def _counted(counts: NDArray[np.int64], total: float) -> dict[str, Any] | None:
    """The same from counts of thousandths of a degree; percentiles to that width."""
    count = int(counts.sum())
    if not count:
        return None
    reached = np.searchsorted(counts.cumsum(), [max(1, count * p / 100) for p in PERCENTILES])
    return {
        "mean": total / count,
        **{f"p{p}": (int(b) + 0.5) * 180 / _BINS for p, b in zip(PERCENTILES, reached, strict=True)},
        "count": count,
    }
