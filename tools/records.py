"""Command line for record sets: pack, unpack, inspect, verify, shuffle, bin, merge, subset. No work is done here.

Every command is a file in tools/record_commands; the formats themselves are utils' and sources'.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tools.record_commands import bin as bin_command
from tools.record_commands import inspect, merge, pack, shuffle, subset, unpack, verify
from tools.record_commands.pack import resized
from utils.command_line import examples_text, run_command
from utils.errors import DataError

__all__ = ["main", "resized"]

COMMANDS = (pack, unpack, inspect, verify, shuffle, merge, subset, bin_command)
EXAMPLES = (
    "python -m tools.records pack photos data/mine",
    "python -m tools.records verify data/mine",
    "python -m tools.records COMMAND --help",
)


def parser() -> argparse.ArgumentParser:
    """The command line of all commands."""
    whole = argparse.ArgumentParser(
        prog="python -m tools.records",
        description="Builds, looks at and changes record sets (train.rec, train.idx, train.lst, property).",
        epilog=examples_text(EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add(commands)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 where a set is damaged, 2 where the command cannot be done."""
    options = parser().parse_args(arguments)
    return run_command(options, lambda: options.run(options), (DataError, OSError))


if __name__ == "__main__":
    sys.exit(main())
