"""Text files that a run appends to for days: whole lines, bounded size, full disks. Knows no metrics and no console."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path

_MAX_WAITING = 1 << 20  # bytes of lines kept in memory while the file cannot be written


class LineFile:
    """A file of whole lines that is appended to, rotates, and keeps what it could not write for another attempt.

    A line is in the file as a whole or not at all, also where the disk fills in the middle of it. With ``max_bytes``
    the full file becomes NAME.1, which replaces an older one: never more than twice that many bytes. Nothing is
    buffered: what was appended survives the process (not a power cut, before ``sync``).

    Args:
        path: made where it is missing; a torn last line in it, of a run that crashed, is removed.
        max_bytes: size at which the file is put aside; None for never.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None) -> None:
        self.path, self._max_bytes = path, max_bytes
        self.lines_lost = 0
        self._waiting: deque[bytes] = deque()
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        status = os.fstat(self._descriptor)
        self._is_regular = stat.S_ISREG(status.st_mode)
        self._size = status.st_size if self._is_regular else 0
        if self._size:
            with mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ) as content:
                whole = content.rfind(b"\n") + 1
            if whole < self._size:
                os.ftruncate(self._descriptor, whole)
                self._size = whole

    @property
    def is_waiting(self) -> bool:
        """Whether lines are kept in memory, because the last attempt to write them failed."""
        return bool(self._waiting)

    def append(self, line: str) -> None:
        """Writes one line (its end is added) after those that wait.

        Raises:
            OSError: this line and those before it wait for the next call; beyond 1 MiB the oldest are lost.
        """
        self._waiting.append(line.encode(errors="backslashreplace") + b"\n")
        self.write_waiting()

    def write_waiting(self) -> None:
        """Tries again to write what waits.

        Raises:
            OSError: it waits on.
        """
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except OSError:
            while sum(map(len, self._waiting)) > _MAX_WAITING:
                self._waiting.popleft()
                self.lines_lost += 1
            raise

    def sync(self) -> None:
        """Makes everything written survive a power cut."""
        self.write_waiting()
        if self._is_regular:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Ends it; safe to call twice. Lines that still wait are lost."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: bytes) -> None:
        if self._descriptor < 0:  # the last rotation failed between closing and opening
            self._open()
        if self._max_bytes is not None and self._size and self._size + len(data) > self._max_bytes:
            os.replace(self.path, self.path.with_name(f"{self.path.name}.1"))
            self.close()
            self._open()
        try:
            written = os.write(self._descriptor, data)
            if written < len(data):  # a disk that fills takes what still fits
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            if self._is_regular:
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)


def cut_lines(path: Path, is_last: Callable[[bytes], bool]) -> int:
    """Shortens a file of lines to end with its last whole line that `is_last` accepts; returns how many lines left it.

    Looks at no more lines than it drops and one, through a memory map: files of any size cost the same memory. The file
    is shortened in place and synced, so a crash leaves the old end or the new one, and a full disk is no obstacle.

    Args:
        path: an existing file.
        is_last: called with lines from the end on, without their line break; none is longer than 1 MiB.

    Raises:
        OSError: it cannot be opened for writing.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return 0
        dropped, end = 0, size
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            whole = content.rfind(b"\n") + 1
            if whole < end:
                dropped, end = 1, whole
            while end:
                start = content.rfind(b"\n", 0, end - 1) + 1
                if end - start <= _MAX_WAITING and is_last(content[start : end - 1]):
                    break
                dropped, end = dropped + 1, start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
    return dropped
