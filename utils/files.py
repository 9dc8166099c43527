"""Files that appear whole or not at all. What is in them is their writers' business."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing that takes its name only when the block has ended without an error.

    A crash, a full disk or an exception leaves what was there before. Writers of the same file in several processes do
    not disturb each other; the last one to finish wins.

    Yields:
        A binary stream.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text_whole(text: str, path: Path) -> None:
    """Writes UTF-8 text as a whole file."""
    with whole_file(path) as stream:
        stream.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` survive a power cut, where the system allows opening a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
