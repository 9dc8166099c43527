"""How fast runs were, which commands made them and make what is missing. Formats what runs wrote."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from statistics import median

from eval.chart_axes import number
from eval.report_input import RunRecords
from eval.report_parts.markup import missing, percent, table


def throughput(run: RunRecords) -> dict[str, str]:
    """Images per second, waiting, memory and time as words; what was not logged is left out."""
    speeds, waits, memory, times = (
        [record[key] for record in run.train if record.get(key) is not None]
        for key in ("images_per_second", "data_wait", "memory_bytes", "time")
    )
    facts = {}
    if speeds:
        facts["images per second, median"] = number(median(speeds))
        facts["slowest and fastest line"] = f"{number(min(speeds))} to {number(max(speeds))}"
    if waits:
        facts["data wait, median"] = percent(median(waits), 1)
        facts["data wait, worst line"] = percent(max(waits), 1)
    if memory:
        facts["memory of the main rank, highest"] = f"{max(memory) / 1e9:.2f} GB"
    if len(times) > 1:
        facts["first to last logged step"] = _duration(max(times) - min(times))
    return facts


def speed_table(runs: Sequence[RunRecords]) -> str:
    """A column for each run: speed, waiting, memory, time, and on what."""
    columns = []
    for run in runs:
        place = {
            key: str(run.origin[key]) for key in ("ranks", "device", "hardware") if run.origin.get(key) is not None
        }
        columns.append(throughput(run) | place if throughput(run) else {})
    if not any(columns):
        return missing("No training step was logged.", training_command(runs[0]))
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = [[key, *(column.get(key, "n/a") for column in columns)] for key in keys]
    header = ["measure", *(run.label for run in runs)] if len(runs) > 1 else ["measure", "value"]
    return table("Throughput, images of all ranks together", header, rows, is_wrapped=True)


def commands(runs: Sequence[RunRecords]) -> str:
    """The lines that repeat the training, verify, export, and write this page again; each can be copied."""
    body, level = "", 4 if len(runs) > 1 else 3
    for run in runs:
        if len(runs) > 1:
            body += f"<h3>{escape(run.label)}</h3>"
        commit = run.origin.get("commit")
        body += _command(level, f"Train, at commit {commit}" if commit else "Train", training_command(run))
        if run.config.get("task") == "classification":
            body += _command(level, "Classify", f"python -m eval.classification {_place(run)}")
            body += _command(level, "Draw", f"python -m tools.visualize {_place(run)}")
        else:
            body += _command(level, "Verify", str(run.saved.get("command") or verification_command(run)))
        body += _command(level, "Export", f"python -m tools.export_onnx {_place(run)}")
    places = " ".join(_place(run) for run in runs)
    return body + _command(3, "Write this page again", f"python -m eval.report {places}")


def training_command(run: RunRecords) -> str:
    """As run.json has it; else from the config."""
    source = run.config.get("source") or run.config.get("name")
    return str(run.origin.get("command") or f"python train.py {shlex.quote(str(source or 'configs/NAME'))}")


def verification_command(run: RunRecords) -> str:
    """The command that scores the run's weights on its sets, and leaves what the page's score parts show."""
    data = shlex.quote(str(run.config.get("val_dir") or run.config.get("rec") or "DATA"))
    targets = shlex.quote(",".join(run.config.get("val_targets") or ()) or "NAME")
    return f"python -m eval.verification --model {_place(run)} --data {data} --targets {targets}"


def _place(run: RunRecords) -> str:
    return shlex.quote(str(run.config.get("output") or run.folder))


def _command(level: int, title: str, line: str) -> str:
    return f'<div class="command"><h{level}>{escape(title)}</h{level}><pre><code>{escape(line)}</code></pre></div>\n'


def _duration(seconds: float) -> str:
    whole = int(max(0.0, min(seconds, 1e12)))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d} h"
