"""What all command lines share: examples in --help, words or JSON, exit status, errors as text."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

DONE = 0
FOUND = 1  # done, and something is wrong with what was looked at: damage, misses, a difference
REFUSED = 2  # not done: the command, its files or its options must change first
INTERRUPTED = 130  # as a shell reports Ctrl-C


@dataclass(frozen=True)
class Outcome:
    """What a command has to say at its end.

    Attributes:
        words: for people; no line break at the end.
        facts: the same for programs, as JSON-able values (numpy's numbers and arrays, paths and None included).
        status: DONE or FOUND.
    """

    words: str
    facts: dict[str, Any] = field(default_factory=dict)
    status: int = DONE


def command_parser(prog: str, description: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """A parser with examples at the end of its help, and with --json.

    Args:
        prog: as it is typed, "python -m tools.align".
        description: a sentence or two.
        examples: whole command lines, each of which runs as it stands once its files are there.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=examples_text(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_json(parser)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds --json, for parsers of sub-commands, which `command_parser` does not make."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout; words and progress go to stderr"
    )


def examples_text(examples: Sequence[str]) -> str:
    """The epilog of a help page."""
    return "\n".join(["example:" if len(examples) == 1 else "examples:", *(f"  {line}" for line in examples)])


def say(options: argparse.Namespace, words: str) -> None:
    """Tells people something on the way: on stdout, or on stderr where stdout belongs to the JSON."""
    stream = sys.stderr if options.json else sys.stdout
    print(_printable(words, stream), file=stream, flush=True)


def _printable(text: str, stream: TextIO) -> str:
    """Text that the stream can take, whatever bytes the names in it have."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _print_json(facts: Any) -> None:
    try:
        text = to_json(facts)
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=2)  # in ASCII, with escapes
    print(text, flush=True)


def run_command(
    options: argparse.Namespace,
    work: Callable[[], Outcome | None],
    expected: tuple[type[Exception], ...],
) -> int:
    """Does the work of a command and tells the outcome.

    Args:
        options: of a parser with --json.
        work: does it; None where there is nothing to tell, as on ranks that are not the main one.
        expected: errors that a user can cause and mend; told in words, without a traceback, with status 2.

    Returns:
        The exit status: the outcome's, 2 after an expected error, 130 after Ctrl-C.
    """
    try:
        outcome = work()
        if outcome is None:
            return DONE
        if outcome.words:
            say(options, outcome.words)
        if options.json:
            _print_json(outcome.facts)
    except BrokenPipeError:  # the reader, head or a pager, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except expected as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if options.json:
            _print_json({"error": str(error)})
        return REFUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED
    return outcome.status


def to_json(facts: Any) -> str:
    """Indented JSON; numbers that JSON lacks (NaN, infinity) become null."""
    return json.dumps(_plain(facts), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value
