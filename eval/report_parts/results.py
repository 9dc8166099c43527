"""Verification results of runs: the heading, key figures and tables. Numbers are the runs' own; none is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.chart_axes import number
from eval.charts import sample
from eval.pair_formats.pair_list import one_kind_warning
from eval.report_input import Record, RunRecords
from eval.report_parts.classes import best_test
from eval.report_parts.markup import Markup, cell, digest, missing, percent, table, tiles
from eval.report_parts.running import throughput, training_command, verification_command

MAX_TILES = 6


def heading(runs: Sequence[RunRecords]) -> str:
    """Name, one line on what was trained and how far, and the best accuracy per set."""
    if len(runs) > 1:
        names = ", ".join(run.label for run in runs)
        return f'<h1>{len(runs)} runs compared</h1><p class="lead">{cell(names)}</p>\n'
    run = runs[0]
    facts = [
        f"{key} {run.config[key]}" for key in ("head", "network", "rec", "seed") if run.config.get(key) is not None
    ]
    facts.append(_progress(run))
    best = [f"{name} {percent(r.get('accuracy'))} at step {r.get('step')}" for name, r in best_by_set(run).items()]
    tested = best_test(run)
    if tested is not None:
        best.append(f"top-1 {percent(tested.get('top1'))} at step {tested.get('step')}")
    summary = f'<p class="lead">Best: {cell("; ".join(best))}</p>' if best else ""
    return f'<h1>{cell(run.label)}</h1><p class="lead">{cell(" · ".join(facts))}</p>{summary}\n'


def summary(runs: Sequence[RunRecords]) -> str:
    """Key figures of one run, or a table with a line for each of several."""
    if len(runs) == 1:
        return tiles(_tile_entries(runs[0]))
    names = list(dict.fromkeys(name for run in runs for name in best_by_set(run)))[:MAX_TILES]
    tests = [best_test(run) for run in runs]
    has_tests = any(test is not None for test in tests)
    rows = []
    for index, run in enumerate(runs):
        best, speed = best_by_set(run), throughput(run)
        rows.append(
            [
                run_name(index, run),
                *(str(run.config.get(key, "n/a")) for key in ("head", "network")),
                _progress(run),
                *([percent((tests[index] or {}).get("top1"))] if has_tests else []),
                *(percent(best[name].get("accuracy")) if name in best else "n/a" for name in names),
                speed.get("images per second, median", "n/a"),
            ]
        )
    bests = ["top-1, best"] * has_tests + [f"{name}, best" for name in names]
    header = ["run", "head", "network", "trained", *bests, "images/s"]
    return table("The runs, with the best accuracy per set (protocol insightface)", header, rows)


def during_training(runs: Sequence[RunRecords]) -> str:
    """Last and best result per set and protocol, with the hash of the data they were measured on."""
    last = {(i, *_set(record)): record for i, run in enumerate(runs) for record in run.verification}
    best = {(i, *key): record for i, run in enumerate(runs) for key, record in _best(run.verification).items()}
    if not last:
        return missing(
            "No verification was logged during training; it needs sets in val_targets.", training_command(runs[0])
        )
    fars = _fars(last.values())
    rows = []
    for key, record in sorted(last.items(), key=lambda item: _order(*item[0])):
        top = best.get(key, record)
        rows.append(
            [
                *_names(runs, key[0], key[1]),
                *(key[2], "on" if record.get("flip") else "off"),
                f"{percent(record.get('accuracy'))} ± {percent(record.get('accuracy_std'))}",
                *(str(record.get("step", "")), percent(top.get("accuracy")), str(top.get("step", ""))),
                *(percent(record.get("auc"), 3), percent(record.get("eer"))),
                *(percent(tars(record).get(far)) for far in fars),
                digest(record.get("data_sha256")),
            ]
        )
    header = [*_titles(runs), "protocol", "flip", "last", "at step", "best", "at step", "AUC", "EER"]
    body = _fold_warnings((key[1], record) for key, record in last.items())
    return body + table("Verification during training", [*header, *_far_titles(fars), "data sha256"], rows)


def of_saved_model(runs: Sequence[RunRecords]) -> str:
    """What `python -m eval.verification` measured on saved weights, a line for each set and protocol."""
    results = [
        (index, name, target, result)
        for index, run in enumerate(runs)
        for name, target in (run.saved.get("targets") or {}).items()
        for result in target.get("protocols", {}).values()
    ]
    body = ""
    for run in runs:
        if run.saved.get("targets"):
            flip = "with" if run.saved.get("flip") else "without"
            whose = f"{run.label}: " if len(runs) > 1 else ""
            weights = cell(f"{whose}{run.saved.get('weights')}, {flip} the mirrored image, sha256 ")
            body += f'<p class="lead">{weights}{cell(digest(run.saved.get("weights_sha256")))}</p>'
        else:
            whose = f"{run.label}: " if len(runs) > 1 else ""
            body += missing(f"{whose}The saved weights have not been verified.", verification_command(run))
    fars = _fars(result for *_, result in results)
    rows = [
        [
            *_names(runs, index, name),
            *(str(result.get("protocol")), f"{target.get('num_pairs')} in {target.get('num_folds')} folds"),
            f"{percent(result.get('accuracy'))} ± {percent(result.get('accuracy_std'))}",
            *(percent(result.get("auc"), 3), percent(result.get("eer"))),
            *(percent(tars(result).get(far)) for far in fars),
            digest(target.get("data_sha256")),
        ]
        for index, name, target, result in sorted(
            results, key=lambda entry: _order(entry[0], entry[1], str(entry[3].get("protocol")))
        )
    ]
    header = [*_titles(runs), "protocol", "pairs", "accuracy", "AUC", "EER", *_far_titles(fars), "data sha256"]
    body += _fold_warnings((name, target) for _, name, target, _ in results)
    return body + table("Verification of the saved model", header, rows)


def best_by_set(run: RunRecords) -> dict[str, Record]:
    """The first record of the highest accuracy per set, in protocol insightface."""
    return {name: record for (name, protocol), record in _best(run.verification).items() if protocol == "insightface"}


def run_name(index: int, run: RunRecords) -> str:
    """A run's name with its line, for the first cell of a row."""
    return Markup(f'<span class="run">{sample(index)} {cell(run.label)}</span>')


def tars(record: Mapping[str, Any]) -> Mapping[str, float | None]:
    """TAR by FAR; empty where there is none."""
    return record.get("tar_at_far") or {}


def _fold_warnings(found: Iterable[tuple[str, Record]]) -> str:
    """A line for each set whose accuracy says little because of its folds."""
    lonely = {name: int(record.get("folds_of_one_kind", 0)) for name, record in found}
    return "".join(missing(f"{name}: {one_kind_warning(folds)}") for name, folds in sorted(lonely.items()) if folds)


def _tile_entries(run: RunRecords) -> list[tuple[str, str, str]]:
    entries = []
    tested = best_test(run)
    if tested is not None:
        entries.append((percent(tested.get("top1")), "top-1 on the test images", f"best, at step {tested.get('step')}"))
    for name, record in list(best_by_set(run).items())[: MAX_TILES - 2]:
        at = f"best, at step {record.get('step')}"
        entries.append((percent(record.get("accuracy")), f"{name}, accuracy", at))
    for name, record in best_by_set(run).items():
        known = [far for far, rate in tars(record).items() if rate is not None]
        if known and len(entries) < MAX_TILES - 1:
            far = min(known, key=float)
            entries.append((percent(tars(record)[far]), f"{name}, TAR at FAR {number(float(far))}", "at that step"))
    speed = throughput(run)
    if "images per second, median" in speed:
        detail = f"data wait {speed['data wait, median']}" if "data wait, median" in speed else "median"
        entries.append((speed["images per second, median"], "images per second", detail))
    return entries


def _progress(run: RunRecords) -> str:
    last = max((record.get("step", 0) for record in [*run.train, *run.verification, *run.classification]), default=0)
    return f"{last} steps" if last else "no step logged yet"


def _set(record: Record) -> tuple[str, str]:
    return str(record.get("dataset")), str(record.get("protocol"))


def _best(verification: Sequence[Record]) -> dict[tuple[str, str], Record]:
    """The first record of the highest accuracy, per set and protocol."""
    best: dict[tuple[str, str], Record] = {}
    for record in verification:
        value = record.get("accuracy")
        if value is not None and (_set(record) not in best or value > best[_set(record)]["accuracy"]):
            best[_set(record)] = record
    return best


def _order(index: int, name: str, protocol: str) -> tuple[str, bool, str, int]:
    """Sets by name, the protocol that others use first, then runs as they were given."""
    return name, protocol != "insightface", protocol, index


def _names(runs: Sequence[RunRecords], index: int, name: str) -> tuple[str, ...]:
    return (name, run_name(index, runs[index])) if len(runs) > 1 else (name,)


def _titles(runs: Sequence[RunRecords]) -> tuple[str, ...]:
    return ("set", "run") if len(runs) > 1 else ("set",)


def _fars(records: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({far for record in records for far in tars(record)}, key=float, reverse=True)


def _far_titles(fars: Iterable[str]) -> list[str]:
    return [f"TAR at FAR {number(float(far))}" for far in fars]
