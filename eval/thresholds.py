"""Operating points: the threshold for a wanted FAR, the rates there and what bounds them. No files, no command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from eval.all_pairs import accepted_impostors, count_scores
from eval.pair_metrics import PairResult
from eval.roc import accepted_at, impostors_needed
from utils.errors import DataError

_RESAMPLES = 1000
_MAX_RESAMPLED = 5_000_000  # accepted pairs; more say enough by themselves


class OperatingPointError(DataError):
    """Results or embeddings from which no operating point can be had; the text says what would be needed."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and the rates there.

    Attributes:
        wanted_far: what was asked for.
        threshold: cosine; a pair counts as same at or above it.
        far: measured, not above the wanted one.
        far_upper: one-sided upper confidence bound of the FAR, were the pairs independent of each other.
        far_upper_identities: the same by resampling identities, None where they are not known.
        confidence: of both bounds.
        num_accepted: different pairs at or above the threshold, of num_different.
        tar: of num_same pairs; None where there are none.
        source: what it was measured on.
    """

    wanted_far: float
    threshold: float
    far: float
    far_upper: float
    far_upper_identities: float | None
    confidence: float
    num_accepted: int
    num_different: int
    tar: float | None
    num_same: int
    source: str


def clopper_pearson_upper(successes: int, trials: int, confidence: float) -> float:
    """One-sided upper bound of a binomial rate: the p at which so few successes have the chance 1 - confidence.

    p = quantile(confidence) of Beta(successes + 1, trials - successes), 1 where all succeeded (Clopper and Pearson,
    Biometrika 26, 1934, in the form with the beta distribution).
    """
    return 1.0 if successes >= trials else float(beta.ppf(confidence, successes + 1, trials - successes))


def points_of_pairs(
    result: PairResult, is_same: NDArray[np.bool_], source: str, confidence: float = 0.95
) -> dict[str, dict[str, Any]]:
    """Operating points of every FAR that a set of pairs supports, as results.json holds them, by FAR."""
    points = {}
    for far, threshold in result.threshold_at_far.items():
        tar = result.tar_at_far[far]
        if threshold is None or tar is None:
            continue
        accepted = int((result.scores[~is_same] >= threshold).sum())
        point = OperatingPoint(
            wanted_far=far,
            threshold=threshold,
            far=accepted / result.num_different,
            far_upper=clopper_pearson_upper(accepted, result.num_different, confidence),
            far_upper_identities=None,
            confidence=confidence,
            num_accepted=accepted,
            num_different=result.num_different,
            tar=tar,
            num_same=result.num_same,
            source=source,
        )
        points[f"{far:g}"] = asdict(point)
    return points


def points_of_embeddings(
    embeddings: NDArray[Any], labels: NDArray[Any], fars: Sequence[float], source: str, confidence: float = 0.95
) -> list[OperatingPoint]:
    """Operating points from all pairs across identities; thresholds are exact to 2e-6.

    The bound over identities is the `confidence` quantile of the FAR over 1,000 draws of identities with replacement:
    a pair of i and j counts c_i c_j times (see eval.bootstrap).

    Raises:
        OperatingPointError: a FAR that so many pairs cannot support; how many are needed.
        VerificationError: see count_scores.
    """
    sizes = np.unique(labels, return_counts=True)[1].astype(np.float64)
    num_different = round((sizes.sum() ** 2 - (sizes**2).sum()) / 2)
    for far in fars:
        require_impostors(far, num_different, source)
    counts = count_scores(embeddings, labels)
    points = []
    for far in fars:
        threshold, accepted, same = counts.threshold(accepted_at(far, counts.num_different))
        points.append(
            OperatingPoint(
                wanted_far=far,
                threshold=threshold,
                far=accepted / counts.num_different,
                far_upper=clopper_pearson_upper(accepted, counts.num_different, confidence),
                far_upper_identities=_upper_over_identities(embeddings, labels, threshold, accepted, confidence),
                confidence=confidence,
                num_accepted=accepted,
                num_different=counts.num_different,
                tar=same / counts.num_same if counts.num_same else None,
                num_same=counts.num_same,
                source=source,
            )
        )
    return points


def _upper_over_identities(
    embeddings: NDArray[Any], labels: NDArray[Any], threshold: float, accepted: int, confidence: float
) -> float | None:
    if not 0 < accepted <= _MAX_RESAMPLED:
        return None
    numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    pairs = accepted_impostors(embeddings, numbers.astype(np.int64), threshold)
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(_RESAMPLES):
        drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes))).astype(np.float64)
        total = ((drawn @ sizes) ** 2 - ((drawn * sizes) ** 2).sum()) / 2
        rates.append((drawn[pairs[:, 0]] * drawn[pairs[:, 1]]).sum() / total if total else np.nan)
    return float(np.nanquantile(rates, confidence))


def require_impostors(far: float, num_different: int, source: str) -> None:
    """Refuses a FAR that so many different pairs cannot support; says how many could."""
    if num_different < impostors_needed(far):
        raise OperatingPointError(
            f"FAR {far:g} needs {impostors_needed(far):,} different pairs (10 accepted ones), {source} has "
            f"{num_different:,}. Ask for a higher FAR, or give embeddings of more people (a labelled .npz or .parquet "
            "that `python -m tools.embed` writes): there all pairs across identities count"
        )
