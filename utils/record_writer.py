"""Writing .rec/.idx: the bytes MXNet would write, complete or not there at all. No images, no labels."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from utils.files import sync_folder
from utils.record_framing import MAX_LENGTH, RecordError, frame
from utils.record_index import read_index

_SPARSE = 1 << 31  # keys from here on are remembered one by one, the others in a bitmap of 1 bit each


class RecordWriter:
    """Writes a record set beside its final name and moves it there on close.

    As a context manager, an exception discards everything; so does a writer that is never closed, but for its
    `.partial` files, which the next writer of the same set replaces.
    """

    def __init__(self, rec: str | Path, idx: str | Path, *, after: tuple[int, int] | None = None) -> None:
        """Opens both files under temporary names in their own folders, which must exist.

        Args:
            rec: the .rec file to be.
            idx: the .idx file to be.
            after: what `sync` told an interrupted writer of the same files: what was written before stays, and what
                came later goes.

        Raises:
            RecordError: with `after`, where the interrupted writer's files are not as it left them.
        """
        self.path, self.index_path = Path(rec), Path(idx)
        self._partial_rec = partial_path(self.path)
        self._partial_idx = partial_path(self.index_path)
        self._bitmap = bytearray()
        self._sparse: set[int] = set()
        self._offset = 0
        if after is not None:
            self._take_over(after)
        self._rec = self._partial_rec.open("ab" if after else "wb")
        try:
            self._idx = self._partial_idx.open("ab" if after else "wb")
        except OSError:
            self._rec.close()
            self._partial_rec.unlink()
            raise

    def _take_over(self, after: tuple[int, int]) -> None:
        for path, size in zip((self._partial_rec, self._partial_idx), after, strict=True):
            found = path.stat().st_size if path.is_file() else 0
            if found < size:
                raise RecordError(path, None, None, f"it had {size} bytes when it was last saved, now {found}")
            os.truncate(path, size)
        if after[1]:
            for key in read_index(self._partial_idx)[0].tolist():
                self._remember(key)
        self._offset = after[0]

    def write(self, key: int, record: bytes) -> int:
        """Appends one record (as pack_record makes them) and returns the byte at which it begins.

        Raises:
            RecordError: a key that is negative or was written before, or a record of 2**29 bytes or more.
        """
        if key < 0 or self._seen(key):
            reason = "the key was written before" if key >= 0 else "a key is a whole number >= 0"
            raise RecordError(self.path, key, self._offset, reason)
        if len(record) > MAX_LENGTH:
            raise RecordError(self.path, key, self._offset, f"{len(record)} bytes; the format allows {MAX_LENGTH}")
        offset = self._offset
        for chunk in frame(record):
            self._rec.write(chunk)
            self._offset += len(chunk)
        self._idx.write(b"%d\t%d\n" % (key, offset))
        self._remember(key)
        return offset

    def _seen(self, key: int) -> bool:
        if key >= _SPARSE:
            return key in self._sparse
        byte = key >> 3
        return byte < len(self._bitmap) and bool(self._bitmap[byte] >> (key & 7) & 1)

    def _remember(self, key: int) -> None:
        if key >= _SPARSE:
            self._sparse.add(key)
            return
        byte = key >> 3
        if byte >= len(self._bitmap):
            self._bitmap.extend(bytes(byte + 1 - len(self._bitmap)))
        self._bitmap[byte] |= 1 << (key & 7)

    def sync(self) -> tuple[int, int]:
        """Brings everything written so far to the disk; returns the bytes of both files, for a writer `after` this."""
        for file in (self._rec, self._idx):
            file.flush()
            os.fsync(file.fileno())
        return self._rec.tell(), self._idx.tell()

    def close(self) -> None:
        """Syncs both files to disk and gives them their names; does nothing the second time.

        An older index is removed first: between the renames a set without index may be seen, whose offsets readers
        rebuild, but never a new .rec with an old .idx.
        """
        if self._rec.closed:
            return
        try:
            for file in (self._rec, self._idx):
                file.flush()
                os.fsync(file.fileno())
                file.close()
            self.index_path.unlink(missing_ok=True)
            os.replace(self._partial_rec, self.path)
            os.replace(self._partial_idx, self.index_path)
        except BaseException:
            self.discard()
            raise
        sync_folder(self.path.parent)

    def leave(self) -> None:
        """Closes both files and leaves them, under their temporary names, to a writer `after` this one."""
        for file in (self._rec, self._idx):
            file.close()

    def discard(self) -> None:
        """Throws away what was written."""
        for file, partial in ((self._rec, self._partial_rec), (self._idx, self._partial_idx)):
            file.close()
            partial.unlink(missing_ok=True)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def partial_path(path: Path) -> Path:
    """The name that a set's file bears until the set is complete."""
    return path.with_name(path.name + ".partial")
