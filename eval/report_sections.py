"""The parts of a run's report, each from plain records to an HTML fragment; no files but the plots it embeds."""

from __future__ import annotations

import base64
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from eval.charts import Point, Series, line_chart, number

Record = Mapping[str, Any]

SHOWN_HASH = 16  # characters of a SHA-256 in a table; its title holds all 64

# metrics.jsonl key, title, unit, factor
TRAIN_CURVES = (
    ("loss", "Loss", "", 1.0),
    ("lr", "Learning rate", "", 1.0),
    ("images_per_second", "Images per second", "", 1.0),
    ("data_wait", "Share of time spent waiting for data", "%", 100.0),
    ("target_cosine", "Mean cosine with the own prototype", "", 1.0),
    ("grad_norm", "Gradient norm", "", 1.0),
    ("loss_scale", "Loss scale", "", 1.0),
)


def section(title: str, body: str) -> str:
    """A headed section; nothing where the body is empty."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n" if body else ""


def heading(name: str, config: Record, train: Sequence[Record], verification: Sequence[Record]) -> str:
    """Name, one line on what was trained and how far, and the best accuracy per set."""
    facts = [f"{key} {config[key]}" for key in ("head", "network", "rec", "seed") if config.get(key) is not None]
    last = max((r.get("step", 0) for r in [*train, *verification]), default=0)
    facts.append(f"{last} steps" if last else "no step logged yet")
    best = [
        f"{dataset} {_percent(record.get('accuracy'))} at step {record.get('step')}"
        for (dataset, protocol), record in _best(verification).items()
        if protocol == "insightface"
    ]
    summary = f'<p class="lead">Best: {escape("; ".join(best))}</p>' if best else ""
    return f'<h1>{escape(name)}</h1><p class="lead">{escape(" · ".join(facts))}</p>{summary}\n'


def verification_table(verification: Sequence[Record]) -> str:
    """Last and best result per set and protocol, with the hash of the data they were measured on."""
    last = {_set(record): record for record in verification}
    best = _best(verification)
    fars = sorted({far for r in last.values() for far in _tars(r)}, key=float, reverse=True)
    header = ["set", "protocol", "flip", "last", "step", "best", "step", "AUC", "EER"]
    header += [*_far_titles(fars), "data sha256"]
    rows = []
    for key, record in last.items():
        top = best.get(key, record)
        rows.append(
            [
                *(key[0], key[1], "on" if record.get("flip") else "off"),
                f"{_percent(record.get('accuracy'))} ± {_percent(record.get('accuracy_std'))}",
                *(str(record.get("step", "")), _percent(top.get("accuracy")), str(top.get("step", ""))),
                *(_percent(record.get("auc"), 3), _percent(record.get("eer"))),
                *(_percent(_tars(record).get(far)) for far in fars),
                str(record.get("data_sha256", "")),
            ]
        )
    return _table(header, rows)


def saved_table(saved: Record) -> str:
    """What `python -m eval.verification` measured on the run's saved weights."""
    rows = []
    targets: Mapping[str, Record] = saved.get("targets") or {}
    results = [(name, target, r) for name, target in targets.items() for r in target.get("protocols", {}).values()]
    fars = sorted({far for _, _, r in results for far in _tars(r)}, key=float, reverse=True)
    for name, target, result in results:
        rows.append(
            [
                *(name, str(result.get("protocol")), f"{target.get('num_pairs')} in {target.get('num_folds')} folds"),
                f"{_percent(result.get('accuracy'))} ± {_percent(result.get('accuracy_std'))}",
                *(_percent(result.get("auc"), 3), _percent(result.get("eer"))),
                *(_percent(_tars(result).get(far)) for far in fars),
                str(target.get("data_sha256", "")),
            ]
        )
    header = ["set", "protocol", "pairs", "accuracy", "AUC", "EER", *_far_titles(fars), "data sha256"]
    flip = "with" if saved.get("flip") else "without"
    weights = f"{saved.get('weights')}, sha256 {saved.get('weights_sha256')}, {flip} the mirrored image"
    return f'<p class="lead">{escape(weights)}</p>{_table(header, rows)}' if rows else ""


def plots(folder: Path, saved: Record) -> str:
    """The ROC and score plots of the saved verification, embedded."""
    figures = []
    for name in saved.get("targets") or {}:
        for kind, words in (("roc", "ROC"), ("scores", "scores")):
            path = folder / f"{name}_{kind}.png"
            # a name from a file leads nowhere but into this folder
            if "/" not in name and len(name.encode()) < 200 and path.is_file():
                data = base64.b64encode(path.read_bytes()).decode("ascii")
                alt = escape(f"{name}: {words}")
                figures.append(f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"></figure>')
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def curves(train: Sequence[Record], verification: Sequence[Record]) -> str:
    """Accuracy, loss, learning rate, throughput and whatever else the training lines hold, over steps."""
    accuracy = []
    for dataset, protocol in dict.fromkeys(map(_set, verification)):
        if protocol == "insightface":
            chosen = [record for record in verification if _set(record) == (dataset, protocol)]
            accuracy.append(Series(dataset, _points(chosen, "accuracy", 100.0), is_marked=True))
    charts = [line_chart("Verification accuracy", accuracy, unit="%")]
    for key, title, unit, factor in TRAIN_CURVES:
        charts.append(line_chart(title, [Series(title, _points(train, key, factor))], unit=unit))
    drawn = "".join(charts)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def commands(folder: Path, config: Record, origin: Record, saved: Record) -> str:
    """The lines that repeat the training, verify, export, and rewrite this page."""
    run = shlex.quote(str(config.get("output") or folder))
    source = config.get("source") or config.get("name")
    lines = []
    if origin.get("command"):
        lines += [f"# at commit {origin.get('commit') or 'unknown'}", str(origin["command"])]
    elif source:
        lines.append(f"python train.py {shlex.quote(str(source))}")
    if saved.get("command"):
        lines.append(str(saved["command"]))
    else:
        data = shlex.quote(str(config.get("val_dir") or config.get("rec") or "DATA"))
        targets = shlex.quote(",".join(config.get("val_targets") or ()) or "NAME")
        lines.append(f"python -m eval.verification --model {run} --data {data} --targets {targets}")
    lines += [f"python -m tools.export_onnx {run}", f"python -m eval.report {run}"]
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def key_values(record: Record) -> str:
    """A table of names and values, long ones wrapped."""
    rows = [
        f'<tr><th>{escape(str(key))}</th><td class="wrap">'
        f"{escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}</td></tr>"
        for key, value in record.items()
    ]
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>' if rows else ""


def reproducibility(origin: Record) -> str:
    """The fingerprint of what made the run, and what changed at each continuation; nothing for older runs."""
    fingerprint = origin.get("fingerprint")
    if not isinstance(fingerprint, Mapping):
        return ""
    parts = []
    for group, facts in fingerprint.items():
        if isinstance(facts, Mapping):
            shown = {key: value for key, value in facts.items() if key != "files"}
            shown |= {"files": f"{len(facts['files'])} hashed, listed in run.json"} if "files" in facts else {}
            parts.append(f"<h3>{escape(str(group).capitalize())}</h3>{key_values(shown)}")
    changed = [
        f"# {entry.get('command')}\n" + "\n".join(str(line) for line in entry.get("changed", ()))
        for entry in origin.get("changes") or ()
    ]
    if changed:
        parts.append(f"<h3>Changed when the run went on</h3><pre>{escape(chr(10).join(changed))}</pre>")
    return "".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = []
    for row in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[:-1])
        digest = escape(row[-1])
        lines.append(f'<tr>{cells}<td><code title="{digest}">{digest[:SHOWN_HASH]}</code></td></tr>')
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


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


def _tars(record: Record) -> Mapping[str, float | None]:
    return record.get("tar_at_far") or {}


def _far_titles(fars: Iterable[str]) -> list[str]:
    return [f"TAR at FAR {number(float(far))}" for far in fars]


def _percent(value: Any, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:.{digits}%}"


def _points(records: Sequence[Record], key: str, factor: float) -> list[Point]:
    """(step, value) of the records that hold a finite number there."""
    points = []
    for record in records:
        value, step = record.get(key), record.get("step")
        if isinstance(value, (int, float)) and isinstance(step, (int, float)) and math.isfinite(value):
            points.append((float(step), float(value) * factor))
    return points
