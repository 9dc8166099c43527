"""The pairs protocol as pure functions: embeddings + is_same -> PairResult; no files, no models, no ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from eval.roc import Bools, Floats, equal_error_rate, tar_at_far

PROTOCOLS = ("insightface", "exact")
FARS = (1e-1, 1e-2, 1e-3, 1e-4)

Development = tuple[Floats, Floats, Bools]  # distances, cosines, is_same


class VerificationError(ValueError):
    """Embeddings or options that cannot be scored; the text says what was got and what is allowed."""


@dataclass(frozen=True)
class PairResult:
    """One protocol's numbers for one set of pairs; rates are fractions in [0, 1], thresholds are cosines.

    A pair counts as "same" where its cosine reaches the threshold. `auc`, `eer` and the TARs are None where all pairs
    are of one kind; a TAR is also None where `num_different * far < 10`.
    """

    protocol: str
    accuracy: float  # mean over the folds
    accuracy_std: float  # population standard deviation over the folds, as np.std
    fold_accuracies: tuple[float, ...]
    fold_thresholds: tuple[float, ...]  # cosines, one per fold, chosen on the other folds
    auc: float | None
    eer: float | None
    tar_at_far: dict[float, float | None]
    threshold_at_far: dict[float, float | None]  # cosines
    num_same: int
    num_different: int
    scores: Floats = field(repr=False, compare=False)  # (N,) cosines, in the order of the pairs
    is_right: Bools = field(repr=False, compare=False)  # (N,) whether its fold's threshold puts a pair on its side

    def to_dict(self) -> dict[str, Any]:
        """All numbers as JSON values, FARs as strings such as "0.001"; without those that each pair has."""
        return {
            "protocol": self.protocol,
            "accuracy": self.accuracy,
            "accuracy_std": self.accuracy_std,
            "fold_accuracies": list(self.fold_accuracies),
            "fold_thresholds": list(self.fold_thresholds),
            "auc": self.auc,
            "eer": self.eer,
            "tar_at_far": {f"{far:g}": value for far, value in self.tar_at_far.items()},
            "threshold_at_far": {f"{far:g}": value for far, value in self.threshold_at_far.items()},
            "num_same": self.num_same,
            "num_different": self.num_different,
        }


def evaluate_pairs(
    embeddings: NDArray[Any],
    is_same: NDArray[Any] | Sequence[bool],
    *,
    num_folds: int = 10,
    protocol: str = "insightface",
    fars: Sequence[float] = FARS,
    folds: NDArray[Any] | None = None,
    development: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> PairResult:
    """Score pairs: each fold's accuracy at the threshold that is best on the other folds, and the whole set's ROC.

    Without `folds` they are contiguous blocks in the order of the pairs; the first `N % num_folds` hold one pair more.
    With one fold the threshold is chosen on the pairs it is scored on; with `development` on those pairs alone.

    Protocol "insightface": squared distance d of normalised embeddings, same where d < t, t on the grid 0, .01, ...,
    3.99, the first best. Its numbers equal those of insightface's `evaluate`. Protocol "exact": the best of all
    thresholds, that is, of the midpoints between neighbouring scores; of equally good ones the strictest.

    TAR at FAR is not interpolated: it is the TAR of the loosest threshold whose measured FAR is not above the one asked
    for. The EER is where the straight lines between the ROC's points cross FAR = 1 - TAR.

    Args:
        embeddings: (2N, D), real, interleaved: rows 2i and 2i + 1 are pair i. Any length; normalised here in float64.
        is_same: (N,) bool.
        num_folds: 1 .. N.
        protocol: "insightface" or "exact".
        fars: each in (0, 1).
        folds: (N,) whole numbers 0 .. num_folds - 1, the fold of each pair, every fold with a pair; None or empty:
            contiguous blocks.
        development: embeddings (2M, D) and is_same (M,) of pairs that every fold's threshold is chosen on instead of
            the other folds (LFW's View 1: chosen on DevTrain, scored on DevTest).

    Raises:
        VerificationError: shapes that do not fit, non-finite embeddings (their number is named), unknown protocol.
    """
    same = np.asarray(is_same, dtype=bool)
    _check(np.asarray(embeddings), same, num_folds, protocol, fars)
    distances, scores = pair_distances(np.asarray(embeddings))
    places = fold_places(len(same), num_folds, folds)
    chosen_on = None if development is None else _development(*development, protocol, fars)
    if protocol == "insightface":
        is_right, thresholds = _grid_folds(distances, same, places, chosen_on)
    else:
        is_right, thresholds = _exact_folds(scores, same, places, chosen_on)
    accuracies = [float(np.mean(is_right[place])) for place in places]
    tars, tar_thresholds = tar_at_far(scores, same, fars)
    two_sided = bool(same.any()) and not bool(same.all())
    return PairResult(
        protocol=protocol,
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        fold_accuracies=tuple(accuracies),
        fold_thresholds=tuple(thresholds),
        auc=float(roc_auc_score(same, scores)) if two_sided else None,
        eer=equal_error_rate(scores, same) if two_sided else None,
        tar_at_far=tars,
        threshold_at_far=tar_thresholds,
        num_same=int(same.sum()),
        num_different=int((~same).sum()),
        scores=scores,
        is_right=is_right,
    )


def pair_distances(embeddings: NDArray[Any]) -> tuple[Floats, Floats]:
    """Squared distances and cosines, (N,) each, of (2N, D) interleaved embeddings; a zero embedding stays zero."""
    normalised = embeddings.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", normalised, normalised))
    normalised /= np.where(norms > 0, norms, 1.0)[:, None]
    first, second = normalised[0::2], normalised[1::2]
    distances: Floats = np.sum(np.square(first - second), axis=1)
    cosines: Floats = np.einsum("ij,ij->i", first, second)
    return distances, cosines


def fold_places(count: int, num_folds: int, folds: NDArray[Any] | None = None) -> list[NDArray[Any]]:
    """The pairs of each fold, as indices.

    Raises:
        VerificationError: folds that are not one number per pair, or that leave one of them without pairs.
    """
    if folds is None or len(folds) == 0:
        return np.array_split(np.arange(count), num_folds)
    places = [np.flatnonzero(folds == fold) for fold in range(num_folds)]
    if len(folds) != count or sum(len(place) for place in places) != count or not all(len(place) for place in places):
        raise VerificationError(
            f"evaluate_pairs: folds must be {count} numbers in 0 .. {num_folds - 1}, each of them at least once; got "
            f"{len(folds)} with {len(np.unique(folds))} different values"
        )
    return places


def _check(embeddings: NDArray[Any], same: Bools, num_folds: int, protocol: str, fars: Sequence[float]) -> None:
    if protocol not in PROTOCOLS:
        raise VerificationError(f"evaluate_pairs: unknown protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
    if same.ndim != 1 or len(same) == 0:
        raise VerificationError(f"evaluate_pairs: is_same must be (N,) with N of 1 or more; got shape {same.shape}")
    if embeddings.ndim != 2 or len(embeddings) != 2 * len(same):
        raise VerificationError(
            f"evaluate_pairs: {len(same)} pairs need embeddings of shape ({2 * len(same)}, D), "
            f"the two images of a pair in neighbouring rows; got shape {embeddings.shape}"
        )
    if not 1 <= num_folds <= len(same):
        raise VerificationError(f"evaluate_pairs: num_folds must be in 1 .. {len(same)} (the pairs); got {num_folds}")
    bad_fars = [far for far in fars if not 0 < far < 1]
    if bad_fars:
        raise VerificationError(f"evaluate_pairs: fars must lie between 0 and 1; got {bad_fars}")
    num_bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
    if num_bad:
        raise VerificationError(
            f"evaluate_pairs: {num_bad} of {len(embeddings)} embeddings hold NaN or infinity; the model has diverged "
            "or its weights are damaged: verify an earlier checkpoint, or in fp32 if this one ran in reduced precision"
        )


def _development(embeddings: NDArray[Any], is_same: NDArray[Any], protocol: str, fars: Sequence[float]) -> Development:
    """The pairs that thresholds are chosen on, checked and compared."""
    same = np.asarray(is_same, dtype=bool)
    _check(np.asarray(embeddings), same, 1, protocol, fars)
    return (*pair_distances(np.asarray(embeddings)), same)


def _grid_folds(
    distances: Floats, same: Bools, folds: list[NDArray[Any]], development: Development | None
) -> tuple[Bools, list[float]]:
    """Which pairs are right, and cosine thresholds, on insightface's grid; "the other folds" are all minus this one."""
    grid = np.arange(0, 4, 0.01)
    correct = np.array([_correct_on_grid(distances[fold], same[fold], grid) for fold in folds])
    if development is not None:
        others = np.tile(_correct_on_grid(development[0], development[2], grid), (len(folds), 1))
    else:
        others = correct.sum(axis=0) - correct if len(folds) > 1 else correct
    best = others.argmax(axis=1)
    is_right = np.empty(len(same), dtype=bool)
    for fold, chosen in zip(folds, best, strict=True):
        is_right[fold] = (distances[fold] < grid[chosen]) == same[fold]
    return is_right, [float(1.0 - grid[b] / 2.0) for b in best]


def _correct_on_grid(distances: Floats, same: Bools, grid: Floats) -> NDArray[np.int64]:
    """Pairs that are right at each threshold."""
    # side="left" counts the distances strictly below each threshold, which is insightface's np.less
    accepted_same = np.searchsorted(np.sort(distances[same]), grid, side="left")
    different = np.sort(distances[~same])
    right: NDArray[np.int64] = accepted_same + len(different) - np.searchsorted(different, grid, side="left")
    return right


def _exact_folds(
    scores: Floats, same: Bools, folds: list[NDArray[Any]], development: Development | None
) -> tuple[Bools, list[float]]:
    is_right, thresholds = np.empty(len(same), dtype=bool), []
    for fold in folds:
        if development is not None:
            threshold = _best_threshold(development[1], development[2])
        else:
            others = np.ones(len(scores), dtype=bool)
            others[fold] = len(folds) == 1
            threshold = _best_threshold(scores[others], same[others])
        thresholds.append(threshold)
        is_right[fold] = (scores[fold] >= threshold) == same[fold]
    return is_right, thresholds


def _best_threshold(scores: Floats, same: Bools) -> float:
    """The threshold t with the most pairs right under `score >= t`, from "none accepted" to "all accepted"."""
    values, group = np.unique(scores, return_inverse=True)  # ascending; pairs of equal score fall on one side together
    gain = np.zeros(len(values), dtype=np.int64)
    np.add.at(gain, group, np.where(same, 1, -1))
    # accepting one group more, from the highest down, changes the number of right pairs by its gain
    right = np.concatenate([[0], np.cumsum(gain[::-1])])
    middle = values[:-1] + (values[1:] - values[:-1]) / 2
    # between adjacent floats the midpoint rounds down onto the lower one, which must stay rejected
    middle = np.where(middle > values[:-1], middle, values[1:])
    candidates = np.concatenate([[np.nextafter(values[-1], np.inf)], middle[::-1], [values[0]]])
    return float(candidates[int(right.argmax())])
