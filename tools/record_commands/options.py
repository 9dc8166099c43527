"""What the record commands share on the command line: sub-parsers, values that are checked, sets that are opened."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sources.base import SourceError
from utils.command_line import Outcome, add_json, examples_text
from utils.files import lock_folder, remove_partial, unlock_folder
from utils.recordio import RecordReader

_UNITS = {"k": 10, "m": 20, "g": 30}
IMAGE_FORMATS = ("jpg", "png", "webp")


def add_command(
    commands: Any, name: str, summary: str, examples: Sequence[str], run: Callable[[argparse.Namespace], Outcome]
) -> argparse.ArgumentParser:
    """A sub-command with --json and runnable examples; `options.run` is its work."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=examples_text(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_json(parser)
    parser.set_defaults(run=run)
    return parser


def add_output(
    parser: argparse.ArgumentParser, what: str = "folder for train.rec, train.idx, train.lst, property"
) -> None:
    """The place a command writes to, and --overwrite."""
    parser.add_argument("output", type=Path, help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace what is already there")


def size(text: str) -> tuple[int, int]:
    """'112' or '112x96' (height x width)."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() and 0 < int(part) <= 8192 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give pixels as 112 or HEIGHTxWIDTH, like 112x96")
    return int(parts[0]), int(parts[-1])


def quality(text: str) -> int:
    """1 .. 100."""
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no JPEG quality: give a whole number in 1 .. 100")
    return int(text)


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) < 1 << 40:
        raise argparse.ArgumentTypeError(f"{text!r} is no number: give a whole number, at least 1")
    return int(text)


def seed(text: str) -> int:
    """A whole number from 0 on."""
    if not (text.isascii() and text.isdigit()) or int(text) >= 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: give a whole number from 0 on")
    return int(text)


def share(text: str) -> float:
    """A part of the whole, above 0 and at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: give a number above 0 and at most 1, like 0.1")
    return value


def memory(text: str) -> int:
    """Bytes, like 512M or 2G; at least 1 MiB."""
    digits, unit = (text[:-1], text[-1:].lower()) if text[-1:].lower() in _UNITS else (text, "")
    value = int(digits) << _UNITS.get(unit, 0) if digits.isascii() and digits.isdigit() and len(digits) < 16 else 0
    if value < 1 << 20:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no amount of memory: give bytes, or like 512M or 2G; at least 1M"
        )
    return value


def rec_file(location: Path) -> Path:
    """The .rec file of a set, named itself or by its folder.

    Raises:
        SourceError: there is none.
    """
    rec = location / "train.rec" if location.is_dir() else location
    if not rec.is_file():
        raise SourceError(f"{rec}: no such file; give a folder that holds train.rec, or a .rec file")
    return rec


def open_set(location: Path) -> RecordReader:
    """Opens a set that is to be read as a whole.

    Raises:
        SourceError: no set there, or one without images.
        RecordError: damage.
    """
    reader = RecordReader(rec_file(location))
    if not len(reader.image_keys):
        raise SourceError(f"{reader.path}: the record set holds no images")
    return reader


def check_output(output: Path, *, overwrite: bool, sources: Sequence[Path] = ()) -> None:
    """Refuses, before the work begins, a place where a set cannot be written.

    Raises:
        SourceError: a set is there already, it is a source's folder, or a file.
    """
    for source in sources:
        # a link to a .rec has two folders: its own, with the .idx that is read, and the file's
        if output.resolve() in (source.resolve().parent, source.parent.resolve()):
            raise SourceError(f"{output}: the set that is read lies there; choose another folder for the new one")
    if output.exists() and not output.is_dir():
        raise SourceError(f"{output}: is a file; name a folder to write to")
    if (output / "train.rec").exists() and not overwrite:
        raise SourceError(f"{output}/train.rec is already there: choose another folder, or add --overwrite")


def prepare_output(output: Path, *, overwrite: bool, sources: Sequence[Path] = ()) -> Any:
    """Makes the folder that a set is written to, and takes away what killed writers have left in it.

    Returns:
        What keeps other processes out of it; see `release_output`.

    Raises:
        SourceError: as check_output, or somebody else is writing there.
    """
    check_output(output, overwrite=overwrite, sources=sources)
    output.mkdir(parents=True, exist_ok=True)
    try:
        lock = lock_folder(output)
    except BlockingIOError:
        raise SourceError(
            f"{output}: another process is writing there; wait for it, or choose another folder"
        ) from None
    try:
        check_output(output, overwrite=overwrite, sources=sources)  # another one may have ended in between
        remove_partial(output)
    except BaseException:
        release_output(output, lock)
        raise
    return lock


def release_output(output: Path, lock: Any) -> None:
    """Lets others write to a folder, and takes away what kept them out."""
    unlock_folder(output, lock)
