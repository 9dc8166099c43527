"""Error rates over thresholds of scored pairs: EER, TAR at FAR, and how many pairs a FAR needs. No folds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

# Below this many accepted impostors the FAR itself is noise: one impostor more or less moves it by over 10 %.
MIN_IMPOSTORS_ACCEPTED = 10

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def impostors_needed(far: float) -> int:
    """Different pairs below which a FAR is not reported."""
    return math.ceil(MIN_IMPOSTORS_ACCEPTED / far - 1e-9)


def accepted_at(far: float, num_different: int) -> int:
    """Impostors that may be accepted at a FAR; 3000 * 0.01 counts as 30 however the product rounds."""
    return int(np.floor(num_different * far + 1e-9))


def equal_error_rate(scores: Floats, same: Bools) -> float:
    """Where the straight lines between the ROC's points cross FAR = 1 - TAR; both kinds of pairs must be there."""
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    gap = far - (1.0 - tar)  # rises from -1 to 1 along the curve
    after = int(np.argmax(gap >= 0))
    before = after - 1
    share = -gap[before] / (gap[after] - gap[before])
    return float(far[before] + share * (far[after] - far[before]))


def tar_at_far(
    scores: NDArray[np.floating], same: Bools, fars: Sequence[float]
) -> tuple[dict[float, float | None], dict[float, float | None]]:
    """TAR and cosine threshold for each FAR, not interpolated; None where too few impostors would be accepted.

    The threshold is the loosest whose measured FAR is not above the one asked for: half way between the best impostor
    that stays out and the next score.
    """
    tars: dict[float, float | None] = dict.fromkeys(fars)
    thresholds: dict[float, float | None] = dict.fromkeys(fars)
    genuine, impostors = scores[same], np.sort(scores[~same])[::-1]
    ordered = np.unique(scores)
    for far in fars:
        accepted = accepted_at(far, len(impostors))
        if accepted < MIN_IMPOSTORS_ACCEPTED or len(genuine) == 0:
            continue
        refused = impostors[accepted]  # the best impostor that must stay out; its equals stay out with it
        tars[far] = float(np.mean(genuine > refused))
        above = ordered[ordered > refused]
        middle = (refused + above[0]) / 2 if len(above) else refused
        thresholds[far] = float(middle if middle > refused else np.nextafter(refused, np.inf))
    return tars, thresholds
