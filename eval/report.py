"""Run folders -> report.html of each, and one page that compares several; reads what runs wrote, measures nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.report_input import ReportError, read_metrics, read_run, tell_apart
from eval.report_parts.page import render_page
from utils.command_line import DONE, FOUND, Outcome, command_parser, run_command
from utils.files import write_text_whole

__all__ = ["ReportError", "main", "read_metrics", "write_comparison", "write_report"]

REPORT, COMPARISON = "report.html", "compare.html"
EXAMPLES = (
    "python -m eval.report work_dirs/quickstart",
    "python -m eval.report work_dirs/faces_small_cosface work_dirs/faces_small_svsoftmax -o compare.html",
)


def write_report(run_dir: str | Path) -> Path:
    """Build report.html of a run from its config.json, run.json, metrics.jsonl and verification/.

    The page needs no network and no other file: charts are inline SVG, pictures are embedded. What is not there yet is
    left out, so the page can be written at any time of a run; it replaces the old one in one step.

    Args:
        run_dir: the folder that training wrote.

    Returns:
        The path of the page.

    Raises:
        ReportError: neither config.json nor metrics.jsonl is there, or one of the JSON files is damaged.
    """
    folder = Path(run_dir)
    write_text_whole(render_page([read_run(folder)]), folder / REPORT)
    return folder / REPORT


def write_comparison(run_dirs: Sequence[str | Path], path: str | Path) -> Path:
    """Build one page on several runs: what differs in config, data, code and environment, and their results together.

    Args:
        run_dirs: folders that training wrote; none twice.
        path: of the page; its folder must exist.

    Returns:
        The path of the page.

    Raises:
        ReportError: as `write_report`, a run named twice, or no folder to write to.
    """
    page = Path(path)
    seen: dict[Path, str | Path] = {}
    for run_dir in run_dirs:
        place = Path(run_dir).resolve()
        if place in seen:
            raise ReportError(f"{run_dir} and {seen[place]} are the same run: name each run once")
        seen[place] = run_dir
    if page.is_dir() or not page.parent.is_dir():
        what = "is a folder" if page.is_dir() else f"cannot be written: there is no folder {page.parent}"
        raise ReportError(f"{page} {what}; -o names the page, such as {COMPARISON}")
    write_text_whole(render_page(tell_apart([read_run(run_dir) for run_dir in run_dirs])), page)
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eval.report RUN_DIR ...`; returns the exit status."""
    parser = command_parser(
        "python -m eval.report",
        "Write report.html into each run folder and, of several runs, one page that compares them.",
        EXAMPLES,
    )
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", help="folder that train.py wrote")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PAGE",
        help=f"the comparing page; default: {COMPARISON} beside the first run's folder",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    return run_command(options, lambda: _write(options), (ReportError, OSError))


def _write(options: argparse.Namespace) -> Outcome:
    """The comparison first: it is what was asked for, and it does not need the runs' folders to be writable."""
    run_dirs = [Path(run_dir) for run_dir in options.run_dirs]
    output, words, status = options.output, [], DONE
    if len(run_dirs) > 1 and output is None:
        output = run_dirs[0].resolve().parent / COMPARISON
    comparison = write_comparison(run_dirs, output) if output is not None else None
    pages = []
    for run_dir in run_dirs:
        try:
            pages.append(write_report(run_dir))
            words.append(str(pages[-1]))
        except OSError as error:
            if comparison is None:
                raise
            status = FOUND
            words.append(f"not written: {run_dir / REPORT}: {error.strerror}")
    if comparison is not None:
        words.append(str(comparison))
    return Outcome("\n".join(words), {"pages": pages, "comparison": comparison}, status)


if __name__ == "__main__":
    sys.exit(main())
