"""`inspect`: what is in a record set, in figures and in pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sources.base import SourceError
from tools.record_commands.options import add_command, rec_file
from tools.record_report import inspect_set, report_text
from utils.command_line import DONE, FOUND, Outcome

EXAMPLES = (
    "python -m tools.records inspect data/mine",
    "python -m tools.records inspect data/mine --contact-sheet sheet.png --histogram identities.png",
    "python -m tools.records inspect data/mine --decode -1 --json",
)


def add(commands: Any) -> None:
    """Adds the command's options."""
    parser = add_command(
        commands, "inspect", "counts, layout, sizes, colours and damage of a record set", EXAMPLES, run
    )
    parser.add_argument("set", type=Path, help="folder with train.rec, or a .rec file")
    parser.add_argument("--decode", type=int, default=1000, help="images to decode, evenly spread; 0 none, -1 all")
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG", help="draw images of twelve identities")
    parser.add_argument("--histogram", type=Path, metavar="FILE", help="draw images per identity, as .png or .svg")


def run(options: argparse.Namespace) -> Outcome:
    """Inspects a set."""
    for path, allowed in ((options.contact_sheet, (".png",)), (options.histogram, (".png", ".svg"))):
        if path is not None and path.suffix not in allowed:
            raise SourceError(f"{path}: pictures are written as {' or '.join(allowed)}; choose such a name")
        if path is not None and not path.absolute().parent.is_dir():
            raise SourceError(f"{path.absolute().parent}: no such folder; make it first")
    report = inspect_set(
        rec_file(options.set), decode=options.decode, sheet=options.contact_sheet, histogram=options.histogram
    )
    return Outcome(report_text(report), report.to_dict(), FOUND if report.damage else DONE)
