"""`unpack`: record set -> a folder of images per identity and a list; the bytes of the images stay as they are."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from sources.base import SourceError
from tools.record_commands.image_kinds import suffix_of
from tools.record_commands.in_order import counted
from tools.record_commands.options import add_command, open_set, release_output
from utils.command_line import Outcome
from utils.files import lock_folder, remove_partial, sync_folder, whole_file, write_text_whole
from utils.record_names import RecordNames, identity_names, names_beside
from utils.record_stream import RecordStream, image_labels
from utils.recordio import RecordError, RecordReader

LIST = "images.lst"
_STAMP = ".unpacking"
EXAMPLES = (
    "python -m tools.records unpack data/mine photos",
    "python -m tools.records unpack data/mine photos --numbered",
)


def add(commands: Any) -> None:
    """Adds the command's options."""
    parser = add_command(commands, "unpack", "record set -> a folder of images per identity, and a list", EXAMPLES, run)
    parser.add_argument("set", type=Path, help="folder with train.rec, or a .rec file")
    parser.add_argument("output", type=Path, help="folder to make; must not be there yet")
    parser.add_argument(
        "--numbered", action="store_true", help="number folders and files, whatever the .lst calls them"
    )


def run(options: argparse.Namespace) -> Outcome:
    """Unpacks, or goes on unpacking."""
    output: Path = options.output
    if output.exists():
        raise SourceError(f"{output} is already there: name a folder that is not, it appears when it is complete")
    if not output.absolute().parent.is_dir():
        raise SourceError(f"{output.absolute().parent}: no such folder; make it first")
    with open_set(options.set) as reader:
        named, why, kept = unpack(reader, output, numbered=options.numbered)
        images, identities = len(reader.image_keys), reader.num_classes
    words = [f"{output}: {images} images of {identities} identities"]
    words += [f"{kept} of them were there from an interrupted run"] if kept else []
    if not named:
        words.append(f"folders are the labels, files the keys: {why}")
    facts = {
        "folder": output, "images": images, "identities": identities, "named": named, "why_numbered": why,
        "kept": kept, "list": output / LIST,
    }  # fmt: skip
    return Outcome("\n".join(words), facts)


def unpack(reader: RecordReader, output: Path, *, numbered: bool) -> tuple[bool, str, int]:
    """Writes every image as a file below `output`, which appears when all are there.

    Names come from the .lst beside the set where they lead to one folder per identity, so that a packed folder comes
    back as it was; otherwise a folder is the label and a file the key, with zeros in front so that sorting keeps the
    order. An interrupted run is continued: files in `.NAME.partial` that hold the right bytes are kept.

    Returns:
        Whether names were used; if not, why; and how many files were there already.

    Raises:
        RecordError: damage, or a label that is no class.
    """
    keys, labels = reader.image_keys, image_labels(reader)
    partial = output.with_name(f".{output.name}.partial")
    names = None if numbered else names_beside(reader.path)
    why = "--numbered" if numbered else "there is no .lst beside the set"
    if names is not None:
        why = _why_unusable(names, keys, labels, reader.num_classes)
    usable = names if names is not None and not why else None
    lock = _begin(reader, partial, usable is not None)
    kept, made, widest = 0, set[Path](), int(keys.max())
    with RecordStream(reader) as stream, whole_file(partial / LIST) as lines:
        samples = zip(stream.samples(keys), labels.tolist(), strict=True)
        for (key, header, payload), label in counted(samples, len(keys), "unpack"):
            if header.first_label != label:
                raise RecordError(
                    reader.path, key, reader.offset(key),
                    f"the image's label is {header.first_label:g}, the identity records say {label}: run `verify`",
                )  # fmt: skip
            name = usable.name(key) if usable else None
            if name is None:
                name = _number_name(key, label, widest, reader.num_classes) + suffix_of(payload)
            path = partial / name
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            kept += _write(path, payload)
            lines.write(f"{key}\t{label}\t{name}\n".encode("utf-8", "surrogateescape"))
    os.sync()
    os.replace(partial, output)
    (output / _STAMP).unlink()  # not before: a folder without it could not be continued
    release_output(output, lock)
    sync_folder(output.absolute().parent)
    return usable is not None, why, kept


def _why_unusable(names: RecordNames, keys: np.ndarray, labels: np.ndarray, num_classes: int) -> str:
    """Why the .lst's names cannot be file names; empty where they can."""
    try:
        identity_names(names, keys, labels, num_classes)
        seen = set[bytes]()
        for key in keys.tolist():
            name = names.name(key) or ""
            parts = name.split("/")
            if name.startswith("/") or "\0" in name or {"", ".", ".."} & set(parts) or len(os.fsencode(name)) > 1024:
                raise RecordError(names.path, key, None, f"{name[:80]!r} leads out of the folder")
            if parts[0] in (LIST, _STAMP, ".lock") or max(len(os.fsencode(part)) for part in parts) > 255:
                raise RecordError(names.path, key, None, f"{name[:80]!r} is no name that a file can have there")
            digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
            if digest in seen:
                raise RecordError(names.path, key, None, f"{name[:80]!r} is another record's name too")
            seen.add(digest)
    except RecordError as error:
        return str(error)
    return ""


def _begin(reader: RecordReader, partial: Path, named: bool) -> Any:
    """Makes the unfinished folder, or refuses one that belongs to another set; returns what keeps others out of it."""
    stat = reader.path.stat()
    stamp = json.dumps([str(reader.path.resolve()), stat.st_size, stat.st_mtime_ns, named])
    try:
        lock = lock_folder(partial)
    except BlockingIOError:
        raise SourceError(f"{partial}: another process is unpacking there; wait for it, or stop it") from None
    if (partial / _STAMP).is_file() or any(not path.name.startswith(".") for path in partial.iterdir()):
        found = (partial / _STAMP).read_text() if (partial / _STAMP).is_file() else ""
        if found != stamp:
            raise SourceError(f"{partial} is left from unpacking another set, or this one before it changed: remove it")
        remove_partial(partial)
        return lock
    write_text_whole(stamp, partial / _STAMP)
    return lock


def _number_name(key: int, label: int, last_key: int, num_classes: int) -> str:
    return f"{label:0{len(str(num_classes - 1))}d}/{key:0{len(str(last_key))}d}"


def _write(path: Path, payload: memoryview) -> bool:
    """Writes a file; True where an interrupted run has written it whole: a power cut may have left the length alone."""
    try:
        if path.stat().st_size == len(payload) and path.read_bytes() == payload:
            return True
    except OSError:
        pass
    path.write_bytes(payload)
    return False
