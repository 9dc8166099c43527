"""A run folder -> report.html, one self-contained page; reads what the run wrote, computes no score of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from eval import report_sections as sections
from eval.report_input import Record, ReportError, read_config, read_metrics, read_origin, read_results
from utils.files import write_text_whole

__all__ = ["ReportError", "main", "read_metrics", "write_report"]

REPORT = "report.html"
STYLE = Path(__file__).with_name("report.css")


def write_report(run_dir: str | Path) -> Path:
    """Build report.html of a run from its config.json, run.json, metrics.jsonl and verification/.

    The page needs no network and no other file: charts are inline SVG, plots are embedded. What is not there yet is
    left out, so the page can be written at any time of a run; it replaces the old one in one step.

    Args:
        run_dir: the folder that training wrote.

    Returns:
        The path of the page.

    Raises:
        ReportError: neither config.json nor metrics.jsonl is there, or one of the files is damaged.
    """
    folder = Path(run_dir)
    if not (folder / "config.json").is_file() and not (folder / "metrics.jsonl").is_file():
        there = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "there is no such folder"
        raise ReportError(f"{folder}: a run folder holds config.json and metrics.jsonl; here: {there or 'nothing'}")
    config, origin = read_config(folder / "config.json"), read_origin(folder / "run.json")
    train, verification = read_metrics(folder / "metrics.jsonl")
    saved = read_results(folder / "verification" / "results.json")
    name = str(config.get("name") or folder.resolve().name)
    body = "".join(
        [
            sections.heading(name, config, train, verification),
            sections.section("Verification during training", sections.verification_table(verification)),
            sections.section("Curves", sections.curves(train, verification)),
            sections.section(
                "Verification of the saved model",
                sections.saved_table(saved) + sections.plots(folder / "verification", saved),
            ),
            sections.section("Commands", sections.commands(folder, config, origin, saved)),
            sections.section("Where it ran", sections.key_values(_without(origin, "fingerprint", "changes"))),
            sections.section("Reproducibility", sections.reproducibility(origin)),
            sections.section("Config", sections.key_values(config)),
        ]
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}</title>\n<style>{STYLE.read_text(encoding='utf-8')}</style></head>\n"
        f"<body>\n{body}</body></html>\n"
    )
    write_text_whole(page, folder / REPORT)
    return folder / REPORT


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eval.report RUN_DIR ...`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m eval.report", description="Write report.html of finished runs.")
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR")
    try:
        for run_dir in parser.parse_args(arguments).run_dirs:
            print(write_report(run_dir))
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _without(record: Record, *names: str) -> Record:
    return {key: value for key, value in record.items() if key not in names}


if __name__ == "__main__":
    sys.exit(main())
