"""Files that appear whole or not at all, and hashes of them. What is in them is their writers' business."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK = 1 << 20  # bytes read or written at a time


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
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot sync a folder
            raise
    finally:
        os.close(descriptor)


class HashedFile(io.BufferedWriter):
    """A file opened for writing that hashes what is written, from first byte to last.

    The hash is of the bytes as the program had them: what a disk or a network changes on the way differs from it.
    Large blocks are hashed without holding Python's lock.

    Attributes:
        size: bytes written so far.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "wb"), _BLOCK)
        self.size = 0
        self._hash = hashlib.sha256()

    def write(self, data: Any, /) -> int:
        """Appends bytes; returns their number."""
        view = memoryview(data).cast("B")
        written = super().write(view)
        self._hash.update(view)
        self.size += written
        return written

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Always fails: a file written out of order would have another hash than this one's."""
        raise io.UnsupportedOperation("a hashed file is written from its first byte to its last")

    def hexdigest(self) -> str:
        """SHA-256 of everything written so far, hexadecimal."""
        return self._hash.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; memory is constant."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def lock_folder(folder: Path) -> BinaryIO | None:
    """Keeps other processes that ask, on any machine that shares the disk, out of a folder until this process ends.

    A lock of the process, not of the file: children do not inherit it, and it goes with the process however that ends.

    Returns:
        What holds the lock as long as it is kept; None where the disk has no locks.

    Raises:
        BlockingIOError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    path = folder / ".lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("wb")
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(error.errno, f"{folder} is in use by another run") from error
            return None
        # one that was removed by its holder after it was opened here keeps nobody out: the next would make another
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        stream.close()


def unlock_folder(folder: Path, lock: BinaryIO | None) -> None:
    """Lets others in, and takes away what kept them out.

    Args:
        folder: as it was given to `lock_folder`.
        lock: what that returned.
    """
    if lock is not None:
        (folder / ".lock").unlink(missing_ok=True)  # while it is held: afterwards it could be another's
        lock.close()


def remove_partial(folder: Path) -> None:
    """Removes what writers of whole files have left behind that were killed; nobody else may be writing there."""
    for leftover in folder.glob(".*.partial"):
        if leftover.is_file():
            with contextlib.suppress(OSError):
                leftover.unlink()
