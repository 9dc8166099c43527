"""What a report is made from, read without trusting it: JSON of the types that the sections expect. No HTML here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eval.hardest_pairs import Flags, HardestPairs, Scores
from eval.saved_scores import SavedScoresError, read_hardest, read_scores, saved_names
from utils.errors import DataError

Record = dict[str, Any]

_CURVES = ("loss", "lr", "images_per_second", "data_wait", "target_cosine", "grad_norm", "loss_scale")
_NUMBERS = frozenset(("step", "epoch", "time", "memory_bytes", "accuracy", "accuracy_std", "auc", "eer", *_CURVES))
_LONELY = "folds_of_one_kind"  # how many folds of a set hold only same or only different pairs
_MAX_DEPTH = 20
_SMALLEST, _LARGEST = 1e-30, 1e30  # beyond these a chart's axis has no room between two numbers
_MAX_STEP = 1 << 52  # whole numbers, one apart, as floats


_MAX_SETS = 50  # whose scores one page shows


class ReportError(DataError):
    """A folder that holds no run, or a damaged file in it; the text says which and what is missing."""


@dataclass(frozen=True)
class ScoredSet:
    """The saved scores of one set of pairs; `hardest` is None where only scores are there."""

    name: str
    scores: Scores
    is_same: Flags
    hardest: HardestPairs | None


@dataclass(frozen=True)
class RunRecords:
    """All that a report is made from.

    Attributes:
        folder: of the run.
        label: what the page calls it; no two runs of a page share one.
        config: config.json.
        origin: run.json.
        train: lines of metrics.jsonl of that kind, in order.
        verification: the same.
        saved: verification/results.json.
        scored: sets of which verification/ holds scores, by name.
        problems: files that are there and cannot be shown, in words.
    """

    folder: Path
    label: str
    config: Record
    origin: Record
    train: list[Record]
    verification: list[Record]
    saved: Record
    scored: dict[str, ScoredSet] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read_run(run_dir: str | Path) -> RunRecords:
    """All records of a run folder; what is not there yet is empty.

    Raises:
        ReportError: neither config.json nor metrics.jsonl is there, or one of the JSON files is damaged.
    """
    folder = Path(run_dir)
    if not (folder / "config.json").is_file() and not (folder / "metrics.jsonl").is_file():
        there = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "there is no such folder"
        raise ReportError(f"{folder}: a run folder holds config.json and metrics.jsonl; here: {there or 'nothing'}")
    config = read_config(folder / "config.json")
    train, verification = read_metrics(folder / "metrics.jsonl")
    scored, problems = _read_scored(folder / "verification")
    return RunRecords(
        folder,
        str(config.get("name") or _plain(folder.resolve().name)),
        config,
        read_origin(folder / "run.json"),
        train,
        verification,
        read_results(folder / "verification" / "results.json"),
        scored,
        problems,
    )


def tell_apart(runs: Sequence[RunRecords]) -> list[RunRecords]:
    """The runs with labels of their own: the config's name, else the folder's, else both and a number."""
    folders = [_plain(run.folder.resolve().name) for run in runs]
    for labels in ([run.label for run in runs], folders, [f"{run.label}, {run.folder}" for run in runs]):
        if len(set(labels)) == len(labels):
            return [replace(run, label=_plain(label)) for run, label in zip(runs, labels, strict=True)]
    return [replace(run, label=f"{run.label} ({number})") for number, run in enumerate(runs, start=1)]


def _read_scored(folder: Path) -> tuple[dict[str, ScoredSet], tuple[str, ...]]:
    """Damage here costs one part of the page, not the page: the command that mends it is a verification."""
    scored: dict[str, ScoredSet] = {}
    problems = []
    for name in saved_names(folder)[:_MAX_SETS]:
        label = _plain(name)
        try:
            scores, is_same = read_scores(folder, name)
            scored[label] = ScoredSet(label, scores, is_same, None)
            scored[label] = ScoredSet(label, scores, is_same, read_hardest(folder, name, scores, is_same))
        except SavedScoresError as error:
            problems.append(_plain(str(error)))
    return scored, tuple(problems)


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
        name: {
            **_scores(target),
            "protocols": {key: _scores(value) for key, value in _objects(target.get("protocols"))},
        }
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
