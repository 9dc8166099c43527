"""Writing .rec/.idx: the bytes MXNet would write, complete or not there at all. No images, no labels."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from utils.files import sync_folder
from utils.record_framing import MAX_LENGTH, RecordError, frame

_SPARSE = 1 << 31  # keys from here on are remembered one by one, the others in a bitmap of 1 bit each


class RecordWriter:
    """Writes a record set beside its final name and moves it there on close.

    As a context manager, an exception discards everything; so does a writer that is never closed, but for its
    `.partial` files, which the next writer of the same set replaces.
    """

    def __init__(self, rec: str | Path, idx: str | Path) -> None:
        """Opens both files under temporary names in their own folders, which must exist."""
        self.path, self.index_path = Path(rec), Path(idx)
        self._partial_rec = _partial(self.path)
        self._partial_idx = _partial(self.index_path)
        self._rec = self._partial_rec.open("wb")
        try:
            self._idx = self._partial_idx.open("wb")
        except OSError:
            self._rec.close()
            self._partial_rec.unlink()
            raise
        self._offset = 0
        self._bitmap = bytearray()
        self._sparse: set[int] = set()

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


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")
