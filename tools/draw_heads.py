"""Draws every registered head, one SVG each, and writes the table of docs/heads.md. Command line only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.head_pictures.canvas import to_svg
from tools.head_pictures.recipes import picture_of
from tools.head_pictures.table import names_of, write_table
from utils.command_line import Outcome, command_parser, run_command


def draw_heads(out: Path) -> list[Path]:
    """Writes out/NAME.svg for every head of the registry; the same bytes each time.

    Args:
        out: folder, made where it is missing.

    Returns:
        The files.

    Raises:
        OSError: the folder or a file in it cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name in names_of():
        path = out / f"{name}.svg"
        path.write_bytes(to_svg(picture_of(name)))
        files.append(path)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where something cannot be written."""
    parser = command_parser(
        "python -m tools.draw_heads",
        "Draw every registered head, one SVG each, and write the table of docs/heads.md.",
        ["python -m tools.draw_heads --page docs/heads.md"],
    )
    parser.add_argument("--out", type=Path, default=Path("docs/heads"), help="folder of the pictures (docs/heads)")
    parser.add_argument("--page", type=Path, help="page whose table is written anew, usually docs/heads.md")
    given = parser.parse_args(arguments)
    return run_command(given, lambda: _draw(given), (OSError, ValueError))


def _draw(given: argparse.Namespace) -> Outcome:
    files = draw_heads(given.out)
    if given.page is not None:
        write_table(given.page)
    words = f"{len(files)} pictures in {given.out}" + (f", table in {given.page}" if given.page else "")
    return Outcome(words, {"pictures": files, "page": given.page})


if __name__ == "__main__":
    sys.exit(main())
