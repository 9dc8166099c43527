"""Records of runs -> a whole page: order of the parts, navigation, style and script inlined, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

from eval.charts import of_run, sample
from eval.report_input import RunRecords
from eval.report_parts import classes, curves, differences, results, running, scores
from eval.report_parts.markup import Section

_HERE = Path(__file__).parent
STYLE, SCRIPT = _HERE / "report.css", _HERE / "report.js"


def render_page(runs: Sequence[RunRecords]) -> str:
    """The page of one run, or of several compared; labels of several must differ.

    The page needs no network and no other file, and works without its script; a policy in its head forbids to load
    or to run anything else.
    """
    sections = [section for section in _sections(runs) if section.body]
    title = runs[0].label if len(runs) == 1 else " | ".join(run.label for run in runs)
    style, script = STYLE.read_text(encoding="utf-8"), SCRIPT.read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.short or s.title)}</a></li>' for s in sections)
    body = "".join(section.render() for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{style}</style></head>\n'
        f'<body>\n<a class="skip" href="#main">Skip to the content</a>\n<header>{results.heading(runs)}</header>\n'
        f'<div class="bar"><nav aria-label="Parts of this page"><ul>{links}</ul></nav>{_switches(runs)}</div>\n'
        f'<main id="main" tabindex="-1">\n{results.summary(runs)}{body}</main>\n'
        f'<p id="status" role="status"></p>\n<script>{script}</script></body></html>\n'
    )


def _sections(runs: Sequence[RunRecords]) -> list[Section]:
    config = Section("Config" if len(runs) == 1 else "Config differences", differences.config_section(runs), "Config")
    is_verified = not all(run.config.get("task") == "classification" for run in runs)
    verified = results.during_training(runs) + results.of_saved_model(runs) if is_verified else ""
    parts = [
        Section("Classification", classes.classification_section(runs)),
        Section("Verification", verified),
        Section("Curves", curves.curves(runs)),
        Section("ROC and scores", scores.score_section(runs) if is_verified else ""),
        Section("Hardest pairs", scores.hardest_section(runs) if is_verified else ""),
        Section("Throughput", running.speed_table(runs)),
        Section("Data", differences.data_section(runs)),
        Section("Commands", running.commands(runs)),
        Section("Environment and code", differences.environment_section(runs), "Environment"),
    ]
    return [config, *parts] if len(runs) > 1 else [*parts, config]


def _switches(runs: Sequence[RunRecords]) -> str:
    """One for each run; buttons once the script has run, before that the legend of the whole page."""
    if len(runs) == 1:
        return ""
    entries = "".join(
        f"<li{of_run(index)}>{sample(index)} <span>{escape(run.label)}</span></li>" for index, run in enumerate(runs)
    )
    return f'<ul class="switches" aria-label="Runs">{entries}</ul>'


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
