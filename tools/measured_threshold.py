"""A threshold for "the same person", from what was measured: results.json of a verification. No model and no images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import DataError

_HOW = "`python -m eval.verification --model {model} --data DIR --targets lfw --out {out}` measures one"


class ThresholdError(DataError):
    """A results.json that cannot be read, or a set or rate that it does not have; the text says what there is."""


@dataclass(frozen=True)
class MeasuredThreshold:
    """A threshold and what it was measured on.

    Attributes:
        threshold: cosine at or above which two faces count as the same person.
        far: the share of pairs of different people that reach it, on `target`.
        target: the set it was measured on.
        protocol: of the measurement; thresholds at a FAR are the same in all.
        num_different: pairs of different people that it was measured on.
        flip: whether mirrored images were added there; None where the file does not say.
        precision: of that measurement; None where the file does not say.
    """

    threshold: float
    far: float
    target: str
    protocol: str
    num_different: int | None
    flip: bool | None
    precision: str | None


def results_beside(model: Path) -> Path:
    """Where a verification of this model writes by itself: in the run folder of a run, or of the weights."""
    return (model if model.is_dir() else model.parent) / "verification" / "results.json"


def how_to_measure(model: Path) -> str:
    """The command that measures an operating point of this model."""
    return _HOW.format(model=model, out=results_beside(model).parent)


def read_results(path: Path) -> dict[str, Any]:
    """The content of a results.json.

    Raises:
        ThresholdError: no such file, or not what eval.verification writes.
    """
    if not path.is_file():
        raise ThresholdError(f"{path}: no such file")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ThresholdError(f"{path}: not the JSON that eval.verification writes: {error}") from None
    if not isinstance(results, dict) or not isinstance(results.get("targets"), dict) or not results["targets"]:
        raise ThresholdError(f"{path}: holds no `targets`; eval.verification writes them")
    return results


def find_operating_point(
    results: dict[str, Any], path: Path, *, far: float, weights_sha256: str, target: str | None = None
) -> MeasuredThreshold:
    """The threshold at a FAR, targets.NAME.protocols.PROTOCOL.threshold_at_far.

    Args:
        results: from `read_results`.
        path: of that file, for messages.
        far: asked for; must be one that was measured.
        weights_sha256: of the model in use.
        target: set; None takes the one with most pairs of different people among those that have a threshold.

    Raises:
        ThresholdError: measured with other weights, or no threshold at that FAR; says which there are.
    """
    measured_with = results.get("weights_sha256")
    if measured_with != weights_sha256:
        raise ThresholdError(
            f"{path} was measured with other weights (sha256 {str(measured_with)[:16]}, these have "
            f"{weights_sha256[:16]})"
        )
    names = [target] if target is not None else list(results["targets"])
    if target is not None and target not in results["targets"]:
        raise ThresholdError(f"{path} has no target {target!r}; it has {', '.join(results['targets'])}")
    points = [point for name in names for point in _points(results, name)]
    fitting = [point for point in points if abs(point.far - far) <= 1e-9 * far]
    if not fitting:
        known = ", ".join(f"{value:g}" for value in sorted({point.far for point in points}))
        raise ThresholdError(
            f"{path} has no threshold at FAR {far:g}{f' on {target}' if target else ''}; it has them at: "
            f"{known or 'none'} (a rate needs ten times as many pairs of different people as one in it)"
        )
    return max(fitting, key=lambda point: point.num_different or 0)


def _points(results: dict[str, Any], name: str) -> list[MeasuredThreshold]:
    """Of one target; one for each FAR, from the first protocol that has it. What is no number is left out."""
    points: dict[float, MeasuredThreshold] = {}
    summary = results["targets"][name]
    protocols = summary.get("protocols") if isinstance(summary, dict) else None
    flip, precision = results.get("flip"), results.get("precision")
    for protocol, numbers in protocols.items() if isinstance(protocols, dict) else ():
        thresholds = numbers.get("threshold_at_far") if isinstance(numbers, dict) else None
        for text, value in thresholds.items() if isinstance(thresholds, dict) else ():
            try:
                far = float(text)
            except ValueError:
                continue
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if is_number and -1.001 <= value <= 1.001 and far not in points:
                count = numbers.get("num_different")
                points[far] = MeasuredThreshold(
                    float(value),
                    far,
                    name,
                    protocol,
                    count if isinstance(count, int) else None,
                    flip if isinstance(flip, bool) else None,
                    precision if isinstance(precision, str) else None,
                )
    return list(points.values())
