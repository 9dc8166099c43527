"""Records that some program wrote -> records that a page can show: numbers that are numbers, text that is text."""

from __future__ import annotations

import math
from typing import Any

Record = dict[str, Any]

_CURVES = ("loss", "lr", "images_per_second", "data_wait", "target_cosine", "grad_norm", "loss_scale")
_CLASSES = ("error", "top1", "top5", "mean_class_accuracy", "class_margin", "sample_margin_mean", "sample_margin_min")
_NUMBERS = frozenset(
    (
        *_CLASSES,
        "prototype_norm_ratio",
        "num_images",
        "step",
        "epoch",
        "time",
        "memory_bytes",
        "accuracy",
        "accuracy_std",
        "auc",
        "eer",
        *_CURVES,
    )
)
_LONELY = "folds_of_one_kind"  # how many folds of a set hold only same or only different pairs
_MAX_DEPTH = 20
_SMALLEST, _LARGEST = 1e-30, 1e30  # beyond these a chart's axis has no room between two numbers
_MAX_STEP = 1 << 52  # whole numbers, one apart, as floats


def sound_record(record: Record) -> Record:
    """The record without the numbers that are none."""
    kept = {key: value for key, value in record.items() if key not in _NUMBERS or _is_number(value)}
    if not 0 <= kept.get("step", 0) <= _MAX_STEP:
        del kept["step"]
    if not _is_count(kept.get(_LONELY, 1)):
        del kept[_LONELY]
    rates = kept.pop("tar_at_far", None)
    if isinstance(rates, dict):
        kept["tar_at_far"] = {far: rate for far, rate in rates.items() if _is_rate(far) and _is_number(rate)}
    return kept


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return value == 0 or _SMALLEST <= abs(value) <= _LARGEST


def _is_count(value: Any) -> bool:
    """Whether it is a whole number that something can be counted by."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_STEP


def _is_rate(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def plain(value: Any, depth: int = 0) -> Any:
    """The value with text that UTF-8 can hold, and no deeper than a page can show."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, (dict, list)) and depth >= _MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {plain(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    return value
