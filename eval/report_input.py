"""What a report is made from, read without trusting it: JSON of the types that the sections expect. No HTML here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eval.hardest_pairs import Flags, HardestPairs, Scores
from eval.report_numbers import plain, sound_record
from eval.saved_scores import SavedScoresError, read_hardest, read_scores, saved_names
from utils.errors import DataError

Record = dict[str, Any]
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
        classification: the same.
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
    classification: list[Record]
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
    by_kind = read_metrics_by_kind(folder / "metrics.jsonl")
    scored, problems = _read_scored(folder / "verification")
    return RunRecords(
        folder,
        str(config.get("name") or plain(folder.resolve().name)),
        config,
        read_origin(folder / "run.json"),
        by_kind.get("train", []),
        by_kind.get("verification", []),
        by_kind.get("classification", []),
        read_results(folder / "verification" / "results.json"),
        scored,
        problems,
    )


def tell_apart(runs: Sequence[RunRecords]) -> list[RunRecords]:
    """The runs with labels of their own: the config's name, else the folder's, else both and a number."""
    folders = [plain(run.folder.resolve().name) for run in runs]
    for labels in ([run.label for run in runs], folders, [f"{run.label}, {run.folder}" for run in runs]):
        if len(set(labels)) == len(labels):
            return [replace(run, label=plain(label)) for run, label in zip(runs, labels, strict=True)]
    return [replace(run, label=f"{run.label} ({number})") for number, run in enumerate(runs, start=1)]


def _read_scored(folder: Path) -> tuple[dict[str, ScoredSet], tuple[str, ...]]:
    """Damage here costs one part of the page, not the page: the command that mends it is a verification."""
    scored: dict[str, ScoredSet] = {}
    problems = []
    for name in saved_names(folder)[:_MAX_SETS]:
        label = plain(name)
        try:
            scores, is_same = read_scores(folder, name)
            scored[label] = ScoredSet(label, scores, is_same, None)
            scored[label] = ScoredSet(label, scores, is_same, read_hardest(folder, name, scores, is_same))
        except SavedScoresError as error:
            problems.append(plain(str(error)))
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
    return plain(content) if isinstance(content, dict) else {}


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
            **sound_record(target),
            "protocols": {key: sound_record(value) for key, value in _objects(target.get("protocols"))},
        }
        for name, target in _objects(targets)
    }
    return saved


def read_metrics(path: Path) -> tuple[list[Record], list[Record]]:
    """The "train" and the "verification" lines of a metrics.jsonl; see `read_metrics_by_kind`."""
    by_kind = read_metrics_by_kind(path)
    return by_kind.get("train", []), by_kind.get("verification", [])


def read_metrics_by_kind(path: Path) -> dict[str, list[Record]]:
    """The lines of a metrics.jsonl by their kind, in order; a torn last line is left out.

    Raises:
        ReportError: another line that is not JSON.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    by_kind: dict[str, list[Record]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # a crash or a run still going on cuts the last line short
                break
            raise ReportError(f"{path}: line {number} is not JSON: {line[:60]!r}") from error
        if isinstance(record, dict):
            by_kind.setdefault(str(record.get("kind")), []).append(sound_record(plain(record)))
    return by_kind


def _objects(value: Any) -> list[tuple[str, Record]]:
    return [(key, item) for key, item in value.items() if isinstance(item, dict)] if isinstance(value, dict) else []
