"""Confidence intervals of a pair set's numbers by resampling folds or identities. Scores in, intervals out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.pair_metrics import PairResult, VerificationError, fold_places
from eval.roc import Bools, Floats, accepted_at

UNITS = ("folds", "identities")
_WEIGHTS_AT_A_TIME = 2_000_000  # 16 MB a matrix, of which a few live at once

Interval = tuple[float, float]


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals; None where the number itself is None or no resample has one."""

    unit: str
    num_units: int
    num_resamples: int
    seed: int
    confidence: float
    accuracy: Interval | None
    auc: Interval | None
    eer: Interval | None
    tar_at_far: dict[float, Interval | None]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, FARs as strings such as "0.001"."""
        return {
            **{key: value for key, value in vars(self).items() if key != "tar_at_far"},
            "tar_at_far": {f"{far:g}": value for far, value in self.tar_at_far.items()},
        }


def bootstrap_intervals(
    result: PairResult,
    is_same: NDArray[Any],
    *,
    unit: str,
    folds: NDArray[Any] | None = None,
    identities: NDArray[Any] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Intervals:
    """Resample folds or identities with replacement and take percentiles of the numbers of the resamples.

    Unit "folds": a fold counts as often as it is drawn. Unit "identities": identity i is drawn c_i times; a same pair
    of i counts c_i times, a different pair of i and j counts c_i c_j times. That is the vertex bootstrap, which keeps
    the dependence between pairs that share an identity (Fogliato, Patil and Perona, "Confidence Intervals for Error
    Rates in 1:1 Matching Tasks", IJCV 2024, who compare it with others). The subsets bootstrap, which resamples one
    side only (Bolle, Ratha and Pankanti, CVIU 93(1), 2004), covers too rarely for FARs (Li et al., CAIP 2009).

    Thresholds of the folds are kept; those of TAR at FAR and EER are found anew in every resample. Memory is flat in
    the number of resamples.

    Args:
        result: of `evaluate_pairs`.
        is_same: (N,) bool, as given to it.
        unit: "folds" or "identities".
        folds: (N,) as given to `evaluate_pairs`; None or empty: contiguous blocks.
        identities: (2N,) whole numbers, -1 where unknown; only for "identities".
        num_resamples: 1 or more; percentiles far out need many.
        seed: equal seeds give equal intervals.
        confidence: in (0, 1).

    Raises:
        VerificationError: fewer than 2 units, an unknown identity, options out of range.
    """
    _check(unit, num_resamples, confidence)
    same = np.asarray(is_same, dtype=bool)
    places = fold_places(len(same), len(result.fold_accuracies), folds)
    labels = _pair_labels(unit, same, places, identities)
    num_units = int(labels.max()) + 1
    if num_units < 2:
        raise VerificationError(f"bootstrap over {unit}: there is only one; resampling it says nothing")
    right = result.is_right.astype(np.float64)
    curve = _Curve(result.scores, same)
    fars = [far for far, tar in result.tar_at_far.items() if tar is not None]
    samples: list[Floats] = []
    for weights in _resampled_weights(labels, same, unit, num_units, num_resamples, seed):
        accuracy = _accuracy(unit, weights, right, places)
        samples.append(np.column_stack([accuracy, *curve.numbers(weights, fars)]))
    table = np.concatenate(samples)
    found = [_interval(column, confidence) for column in table.T]
    two_sided = result.auc is not None
    return Intervals(
        unit=unit,
        num_units=num_units,
        num_resamples=num_resamples,
        seed=seed,
        confidence=confidence,
        accuracy=found[0],
        auc=found[1] if two_sided else None,
        eer=found[2] if two_sided else None,
        tar_at_far={**dict.fromkeys(result.tar_at_far), **dict(zip(fars, found[3:], strict=True))},
    )


def _check(unit: str, num_resamples: int, confidence: float) -> None:
    if unit not in UNITS:
        raise VerificationError(f"bootstrap: unknown unit {unit!r}; there are {', '.join(UNITS)}")
    if num_resamples < 1 or not 0 < confidence < 1:
        raise VerificationError(
            f"bootstrap: needs at least 1 resample and a confidence between 0 and 1; got {num_resamples}, {confidence}"
        )


def _pair_labels(
    unit: str, same: Bools, places: list[NDArray[Any]], identities: NDArray[Any] | None
) -> NDArray[np.int64]:
    """(N, 2) numbers of the two units of each pair; of a fold, twice the same."""
    if unit == "folds":
        labels = np.empty((len(same), 2), dtype=np.int64)
        for fold, place in enumerate(places):
            labels[place] = fold
        return labels
    if identities is None or len(identities) != 2 * len(same) or (np.asarray(identities) < 0).any():
        raise VerificationError(
            "bootstrap over identities: the identities of the images are not known (a .bin does not hold them; lists "
            "of LFW, SLLFW, CALFW, CPLFW, CFP, XQLFW and RFW do): resample folds instead"
        )
    numbers = np.unique(identities, return_inverse=True)[1].reshape(-1, 2).astype(np.int64)
    if ((numbers[:, 0] == numbers[:, 1]) != same).any():
        raise VerificationError("bootstrap over identities: is_same and the identities contradict each other")
    return numbers


def _resampled_weights(
    labels: NDArray[np.int64], same: Bools, unit: str, num_units: int, num_resamples: int, seed: int
) -> Iterator[Floats]:
    """(resamples, N) weights, some resamples at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, _WEIGHTS_AT_A_TIME // max(len(labels), num_units))
    for start in range(0, num_resamples, step):
        size = min(step, num_resamples - start)
        counts = rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=size).astype(np.float64)
        weights = counts[:, labels[:, 0]]
        if unit == "identities":
            weights *= np.where(same, 1.0, counts[:, labels[:, 1]])
        yield weights


def _accuracy(unit: str, weights: Floats, right: Floats, places: list[NDArray[Any]]) -> Floats:
    if unit == "folds":  # the protocol's number is the mean over folds, however long they are
        counts = np.column_stack([weights[:, place[0]] for place in places])
        per_fold = np.array([right[place].mean() for place in places])
        mean: Floats = counts @ per_fold / len(places)
        return mean
    with np.errstate(invalid="ignore"):
        shares: Floats = weights @ right / weights.sum(axis=1)
    return shares


class _Curve:
    """The ROC of pairs under many weightings at once; NaN where a weighting leaves pairs of one kind only."""

    def __init__(self, scores: Floats, same: Bools) -> None:
        self._order = np.argsort(-scores, kind="stable")
        self._same = same[self._order].astype(np.float64)
        ordered = scores[self._order]
        self._starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])  # equal scores together

    def numbers(self, weights: Floats, fars: Sequence[float]) -> list[Floats]:
        """AUC, EER and the TAR at each FAR, (resamples,) each."""
        ordered = weights[:, self._order]
        genuine = np.add.reduceat(ordered * self._same, self._starts, axis=1)
        impostors = np.add.reduceat(ordered * (1 - self._same), self._starts, axis=1)
        accepted_genuine, accepted = genuine.cumsum(axis=1), impostors.cumsum(axis=1)
        total_genuine, total = accepted_genuine[:, -1:], accepted[:, -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            tar, far = accepted_genuine / total_genuine, accepted / total
            auc = (impostors * (accepted_genuine - genuine / 2)).sum(axis=1) / (total * total_genuine)[:, 0]
        rates = []
        for wanted in fars:
            allowed = np.array([accepted_at(wanted, count) for count in total[:, 0]])
            last = (accepted <= allowed[:, None]).sum(axis=1) - 1
            rates.append(np.where(last >= 0, np.take_along_axis(tar, np.maximum(last, 0)[:, None], axis=1)[:, 0], 0.0))
        one_sided = ~((total > 0) & (total_genuine > 0))[:, 0]
        return [np.where(one_sided, np.nan, values) for values in (auc, _equal_error_rates(far, tar), *rates)]


def _equal_error_rates(far: Floats, tar: Floats) -> Floats:
    rows = np.arange(len(far))
    far = np.concatenate([np.zeros((len(far), 1)), far], axis=1)
    gap = far - 1.0 + np.concatenate([np.zeros((len(far), 1)), tar], axis=1)
    after = np.maximum((gap >= 0).argmax(axis=1), 1)
    before = after - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        share = -gap[rows, before] / (gap[rows, after] - gap[rows, before])
    rates: Floats = far[rows, before] + share * (far[rows, after] - far[rows, before])
    return rates


def _interval(values: Floats, confidence: float) -> Interval | None:
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
