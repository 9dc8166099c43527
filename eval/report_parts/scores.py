"""What saved scores show: ROC curves, histograms, errors that runs share, and the hardest pairs as pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np
from sklearn.metrics import roc_auc_score

from eval.charts import Series, line_chart
from eval.hardest_pairs import KINDS, HardestPairs, HardPair
from eval.report_input import RunRecords, ScoredSet
from eval.report_parts.markup import Markup, folded, missing, percent, table
from eval.report_parts.results import run_name
from eval.report_parts.running import verification_command
from eval.score_charts import as_steps, noise_limit, roc_points, score_histogram, score_range, shares

Scored = list[tuple[int, RunRecords, ScoredSet]]  # of one set: index of the run, the run, its scores

SHOWN_OF_SEVERAL = 4  # hardest pairs of each kind and run on a page of several runs; a run's own page shows all
_HEADINGS = {
    "false_accept": "False accepts: two people taken for one",
    "false_reject": "False rejects: one person taken for two",
}


def score_section(runs: Sequence[RunRecords]) -> str:
    """For each set the ROC of all runs in one figure, then a histogram for each run; those of a set share both axes."""
    charts = "".join(
        _roc(name, scored, runs) + _histograms(name, scored, runs) for name, scored in _by_set(runs).items()
    )
    grid = f'<div class="charts">{charts}</div>' if charts else ""
    return grid + _origins(runs) + _missing(runs) + shared_errors(runs)


def _roc(name: str, scored: Scored, runs: Sequence[RunRecords]) -> str:
    lines = []
    for index, run, found in scored:
        points = [(far, 100 * tar) for far, tar in roc_points(found.scores, found.is_same)]
        note = f"AUC {roc_auc_score(found.is_same, found.scores):.4f}" if points else ""
        label = run.label if len(runs) > 1 else name
        lines.append(Series(label, as_steps(points), style=index, run=_switch(runs, index), note=note, is_exact=True))
    limit = percent(max(noise_limit(found.is_same) for *_, found in scored))
    note = f"Left of FAR {limit} fewer than 10 pairs are accepted wrongly: there the curve is mostly chance."
    return line_chart(
        f"{name}: ROC, true over false accept rate",
        lines, x_label="false accept rate (logarithmic)", unit="%", is_log_x=True, note=note,
    )  # fmt: skip


def _histograms(name: str, scored: Scored, runs: Sequence[RunRecords]) -> str:
    bounds = score_range([found.scores for *_, found in scored])
    halves = [found.scores[chosen] for *_, found in scored for chosen in (found.is_same, ~found.is_same)]
    highest = max(float(shares(half, bounds).max()) for half in halves)
    return "".join(
        score_histogram(
            f"{name}: scores of {run.label}" if len(runs) > 1 else f"{name}: scores",
            found.scores, found.is_same, threshold=found.hardest.threshold if found.hardest else None,
            bounds=bounds, highest=highest, run=_switch(runs, index),
        )
        for index, run, found in scored
    )  # fmt: skip


def shared_errors(runs: Sequence[RunRecords]) -> str:
    """Which errors of a set are one run's alone and which are every run's; nothing for a single run."""
    body = ""
    for name, scored in _by_set(runs).items():
        comparable = [entry for entry in scored if entry[2].hardest is not None]
        if len(comparable) < 2 or any(
            not np.array_equal(entry[2].is_same, comparable[0][2].is_same) for entry in comparable
        ):
            continue
        wrong = np.stack([_is_wrong(found) for *_, found in comparable])
        times = wrong.sum(axis=0)
        rows = [
            [
                run_name(index, run),
                str(int(errors.sum())),
                *(str(found.hardest.num_errors[kind]) for kind in KINDS if found.hardest),
                str(int((errors & (times == 1)).sum())),
            ]
            for (index, run, found), errors in zip(comparable, wrong, strict=True)
        ]
        rows.append(["every run", str(int((times == len(comparable)).sum())), "", "", ""])
        header = ["errors of", "pairs", "false accepts", "false rejects", "of this run alone"]
        body += table(f"{name}: wrong pairs of {wrong.shape[1]:,}, each run at its own threshold", header, rows)
    return body


def hardest_section(runs: Sequence[RunRecords]) -> str:
    """The worst errors of each set and run, as pictures."""
    body = ""
    for name, scored in _by_set(runs).items():
        for index, run, found in scored:
            if found.hardest is None:
                continue
            if len(runs) == 1:
                body += f"<h3>{escape(name)}</h3>{_pairs(found.hardest, None, 4)}"
            else:
                title = Markup(f"{escape(name)}: {run_name(index, run)}")
                body += folded(title, _pairs(found.hardest, SHOWN_OF_SEVERAL, 3))
    return body or _missing(runs, "No hardest pairs are saved here.")


def _pairs(hardest: HardestPairs, limit: int | None, level: int) -> str:
    body = ""
    for kind in KINDS:
        shown = [pair for pair in hardest.pairs if pair.kind == kind][:limit]
        count = hardest.num_errors[kind]
        body += f"<h{level}>{_HEADINGS[kind]}</h{level}>"
        if not shown:
            none = "none" if count == 0 else f"{count}, of which none is kept"
            body += f'<p class="note">{none.capitalize()} at threshold {hardest.threshold:.3f}.</p>'
            continue
        figures = "".join(map(_figure, shown))
        body += (
            f'<p class="note">{count} at threshold {hardest.threshold:.3f}; the worst {len(shown)}.</p>'
            f'<div class="pairs">{figures}</div>\n'
        )
    return body


def _figure(pair: HardPair) -> str:
    images = ""
    for place, name, data in zip(("first", "second"), pair.names, pair.images, strict=True):
        alt = escape(f"{place} image of pair {pair.pair}{f': {name}' if name else ''}")
        code = base64.b64encode(data).decode("ascii")
        images += f'<img alt="{alt}" width="112" height="112" src="data:image/jpeg;base64,{code}">'
    names = "<br>".join(_breakable(name) for name in pair.names if name)
    return (
        f'<figure class="pair"><div>{images}</div><figcaption><b>cosine {pair.cosine:.3f}</b><br>pair {pair.pair}'
        f"{f'<br>{names}' if names else ''}</figcaption></figure>"
    )


def _breakable(name: str) -> str:
    """A file's name, which may go on in the next line behind / and _ before it does so anywhere."""
    return escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def _is_wrong(found: ScoredSet) -> np.ndarray:
    threshold = found.hardest.threshold if found.hardest else 0.0
    wrong: np.ndarray = (found.scores >= threshold) != found.is_same
    return wrong


def _by_set(runs: Sequence[RunRecords]) -> dict[str, Scored]:
    names = dict.fromkeys(name for run in runs for name in run.scored)
    return {name: [(i, run, run.scored[name]) for i, run in enumerate(runs) if name in run.scored] for name in names}


def _switch(runs: Sequence[RunRecords], index: int) -> int | None:
    return index if len(runs) > 1 else None


def _origins(runs: Sequence[RunRecords]) -> str:
    """Whose scores these are: the last weights' or a checkpoint's."""
    lines = [
        f"{f'{run.label}, ' if len(runs) > 1 else ''}{name}: scores of {found.hardest.origin}"
        for run in runs
        for name, found in run.scored.items()
        if found.hardest and found.hardest.origin
    ]
    return f'<p class="note">{escape("; ".join(lines))}.</p>' if lines else ""


def _missing(runs: Sequence[RunRecords], text: str = "No scores of pairs are saved here.") -> str:
    body = ""
    for run in runs:
        whose = f"{run.label}: " if len(runs) > 1 else ""
        for problem in run.problems:
            body += missing(f"{whose}{problem}.", verification_command(run))
        if not run.scored and not run.problems:
            body += missing(whose + text, verification_command(run))
    return body
