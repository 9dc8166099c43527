"""Results of verification as text for people, Markdown and CSV, and their means over sets and groups. No scoring."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.bootstrap import Intervals
from eval.pair_formats.layouts import RFW_GROUPS, rfw_name
from eval.pair_formats.pair_list import blocks, folds_of_one_kind, one_kind_warning
from eval.pair_metrics import PairResult
from eval.pairs import RFW, PairSet
from eval.roc import impostors_needed
from eval.thresholds import points_of_pairs

COLUMNS = ("set", "pairs", "accuracy (insightface)", "accuracy (exact)", "AUC", "EER")


def unsupported_fars(result: PairResult) -> dict[str, int]:
    """FARs that were left out, and the different pairs each of them needs."""
    left_out = [far for far, tar in result.tar_at_far.items() if tar is None]
    return {f"{far:g}": impostors_needed(far) for far in left_out}


def one_kind_folds(pair_set: PairSet) -> int:
    """Folds of a set that hold only same or only different pairs."""
    folds = pair_set.folds if len(pair_set.folds) else blocks(len(pair_set.is_same), pair_set.num_folds)
    return folds_of_one_kind(pair_set.is_same, folds)


def unique_names(pair_sets: Sequence[PairSet]) -> list[str]:
    """Names for files and tables; a second set of one name gets a number, so that no result replaces another."""
    names: list[str] = []
    for pair_set in pair_sets:
        count = sum(name == pair_set.name or name.startswith(f"{pair_set.name}-") for name in names)
        names.append(f"{pair_set.name}-{count + 1}" if count else pair_set.name)
    return names


def target_summary(
    pair_set: PairSet, results: Sequence[PairResult], seconds: float, intervals: Mapping[str, Intervals] | None
) -> dict[str, Any]:
    """What results.json holds of a set."""
    summary: dict[str, Any] = {
        "data_sha256": pair_set.data_sha256,
        "num_pairs": len(pair_set.is_same),
        "num_folds": pair_set.num_folds,
        "folds_of_one_kind": one_kind_folds(pair_set),
        "seconds": round(seconds, 3),
        "protocols": {result.protocol: result.to_dict() for result in results},
        "unsupported_fars": unsupported_fars(results[0]),
        "operating_points": points_of_pairs(results[0], pair_set.is_same, pair_set.name),
    }
    if intervals:
        summary["bootstrap"] = {protocol: found.to_dict() for protocol, found in intervals.items()}
    return summary


def set_text(
    name: str,
    pair_set: PairSet,
    results: Sequence[PairResult],
    seconds: float,
    intervals: Mapping[str, Intervals] | None = None,
) -> str:
    """What is printed of one set."""
    first = results[0]
    lines = [
        f"\n{name}: {first.num_same} same + {first.num_different} different pairs, {pair_set.num_folds} folds, "
        f"{seconds:.1f} s",
        f"  sha256 {pair_set.data_sha256}",
    ]
    if pair_set.development is not None:
        lines.append(f"  thresholds chosen on {len(pair_set.development.is_same)} other pairs")
    for result in results:
        interval = _range(intervals[result.protocol].accuracy, 2) if intervals else ""
        lines.append(
            f"  accuracy ({result.protocol:<11}) {result.accuracy:8.2%} +- {result.accuracy_std:.2%}{interval}"
        )
    if lonely := one_kind_folds(pair_set):
        lines += textwrap.wrap(
            one_kind_warning(lonely, pair_set.num_folds), 110, initial_indent="  ", subsequent_indent="  "
        )
    known = intervals[first.protocol] if intervals else None
    auc_range, eer_range = (_range(known.auc, 3), _range(known.eer, 2)) if known else ("", "")
    lines.append(f"  AUC {_percent(first.auc, 3)}{auc_range}   EER {_percent(first.eer, 2)}{eer_range}")
    for far, tar in first.tar_at_far.items():
        why = "" if tar is not None else f" (needs {impostors_needed(far)} different pairs)"
        interval = _range(known.tar_at_far[far], 2) if known else ""
        lines.append(f"  TAR at FAR {far:<7g} {_percent(tar, 2)}{interval}{why}")
    if known:
        lines.append(
            f"  in brackets: {known.confidence:.0%} intervals, {known.num_resamples} resamples of {known.num_units} "
            f"{known.unit}, seed {known.seed}"
        )
    return "\n".join(lines)


def summaries(targets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means over sets and, where all four groups of RFW are there, over groups and between them.

    Args:
        targets: as in results.json.

    Returns:
        "mean": per protocol the mean accuracy, in which RFW counts once, by its mean; "num_sets". "rfw": per protocol
        mean, standard deviation (population), lowest, highest and their difference ("spread") over the groups.
    """
    groups = [name for name in (rfw_name(group) for group in RFW_GROUPS) if name in targets]
    others = [name for name in targets if name not in groups]
    found: dict[str, Any] = {}
    protocols = list(next(iter(targets.values()))["protocols"]) if targets else []
    for protocol in protocols:
        accuracy = {name: targets[name]["protocols"][protocol]["accuracy"] for name in targets}
        if len(groups) == len(RFW_GROUPS):
            values = np.array([accuracy[name] for name in groups])
            found.setdefault(RFW, {})[protocol] = {
                "mean": float(values.mean()),
                "std": float(values.std()),
                "min": float(values.min()),
                "max": float(values.max()),
                "spread": float(values.max() - values.min()),
            }
        units = [accuracy[name] for name in others]
        units += [found[RFW][protocol]["mean"]] if RFW in found else [accuracy[name] for name in groups]
        found.setdefault("mean", {})[protocol] = float(np.mean(units))
        found["mean"]["num_sets"] = len(units)
    return found


def table_rows(targets: Mapping[str, Mapping[str, Any]], summary: Mapping[str, Any]) -> list[list[Any]]:
    """Header, a row per set, and rows of means: numbers are fractions, None where there is none."""
    fars = list(dict.fromkeys(far for target in targets.values() for far in _first(target)["tar_at_far"]))
    rows: list[list[Any]] = [[*COLUMNS, *(f"TAR at FAR {far}" for far in fars)]]
    for name, target in targets.items():
        first = _first(target)
        accuracies = [target["protocols"][protocol]["accuracy"] for protocol in ("insightface", "exact")]
        tars = [first["tar_at_far"].get(far) for far in fars]
        rows.append([name, target["num_pairs"], *accuracies, first["auc"], first["eer"], *tars])
    empty = [None] * (2 + len(fars))
    for label, kind in (("rfw: mean", "mean"), ("rfw: std", "std"), ("rfw: spread (max - min)", "spread")):
        if RFW in summary:
            rows.append([label, None, *(summary[RFW][p][kind] for p in ("insightface", "exact")), *empty])
    if len(targets) > 1 and "mean" in summary:
        mean = summary["mean"]
        rows.append([f"mean of {mean['num_sets']} sets", None, mean["insightface"], mean["exact"], *empty])
    return rows


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, fractions as percent with two decimals."""
    header, *body = ([_cell(value) for value in row] for row in rows)
    widths = [max(len(row[column]) for row in (header, *body)) for column in range(len(header))]
    lines = [header, ["-" * (width - 1) + ":" if i else "-" * width for i, width in enumerate(widths)], *body]
    padded = (
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def csv_text(rows: Sequence[Sequence[Any]]) -> str:
    """The same as CSV, fractions in full, nothing where there is no number."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(["" if value is None else value for value in row] for row in rows)
    return stream.getvalue()


def _first(target: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(iter(target["protocols"].values()))
    return found


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2%}"
    return "" if value is None else str(value)


def _percent(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}%}"


def _range(interval: tuple[float, float] | None, digits: int) -> str:
    return "" if interval is None else f" [{interval[0]:.{digits}%}, {interval[1]:.{digits}%}]"
