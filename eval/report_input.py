"""What a report is made from, read without trusting it: JSON of the types that the sections expect. No HTML here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

Record = dict[str, Any]

_CURVES = ("loss", "lr", "images_per_second", "data_wait", "target_cosine", "grad_norm", "loss_scale")
_NUMBERS = frozenset(("step", "epoch", "accuracy", "accuracy_std", "auc", "eer", *_CURVES))
_MAX_DEPTH = 20
_SMALLEST, _LARGEST = 1e-30, 1e30  # beyond these a chart's axis has no room between two numbers
_MAX_STEP = 1 << 52  # whole numbers, one apart, as floats


class ReportError(ValueError):
    """A folder that holds no run, or a damaged file in it; the text says which and what is missing."""


def read_json(path: Path) -> Record:
    """The object in a JSON file; empty where there is no such file or it holds something else.

    Raises:
        ReportError: it is no JSON.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not JSON: {error}") from error
    return _plain(content) if isinstance(content, dict) else {}


def read_config(path: Path) -> Record:
    """A run's config.json; `val_targets` is a list of names."""
    config = read_json(path)
    names = config.get("val_targets")
    if names is not None:
        config["val_targets"] = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return config


def read_origin(path: Path) -> Record:
    """A run's run.json; what it says of changes and of hashed files has the shape in which runs write it."""
    origin = read_json(path)
    entries = origin.get("changes")
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    origin["changes"] = [entry for entry in entries if isinstance(entry.get("changed", []), list)]
    for _, facts in _objects(origin.get("fingerprint")):
        if not isinstance(facts.get("files"), (dict, list)):
            facts.pop("files", None)
    return origin


def read_results(path: Path) -> Record:
    """A results.json of verification; every target and protocol in it is an object with numbers where they belong."""
    saved = read_json(path)
    targets = saved.get("targets")
    saved["targets"] = {
        name: {**target, "protocols": {key: _scores(value) for key, value in _objects(target.get("protocols"))}}
        for name, target in _objects(targets)
    }
    return saved


def read_metrics(path: Path) -> tuple[list[Record], list[Record]]:
    """The "train" and the "verification" lines of a metrics.jsonl, in order; a torn last line is left out.

    Raises:
        ReportError: another line that is not JSON.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # a crash or a run still going on cuts the last line short
                break
            raise ReportError(f"{path}: line {number} is not JSON: {line[:60]!r}") from error
        if isinstance(record, dict):
            records.append(_scores(_plain(record)))
    train, verification = ([r for r in records if r.get("kind") == kind] for kind in ("train", "verification"))
    return train, verification


def _objects(value: Any) -> list[tuple[str, Record]]:
    return [(key, item) for key, item in value.items() if isinstance(item, dict)] if isinstance(value, dict) else []


def _scores(record: Record) -> Record:
    """The record without the numbers that are none."""
    kept = {key: value for key, value in record.items() if key not in _NUMBERS or _is_number(value)}
    if not 0 <= kept.get("step", 0) <= _MAX_STEP:
        del kept["step"]
    rates = kept.pop("tar_at_far", None)
    if isinstance(rates, dict):
        kept["tar_at_far"] = {far: rate for far, rate in rates.items() if _is_rate(far) and _is_number(rate)}
    return kept


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return value == 0 or _SMALLEST <= abs(value) <= _LARGEST


def _is_rate(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _plain(value: Any, depth: int = 0) -> Any:
    """The value with text that UTF-8 can hold, and no deeper than a page can show."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, (dict, list)) and depth >= _MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {_plain(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    return value
