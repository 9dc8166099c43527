"""Names of images from the .lst beside a record set: which file each record was made from. No records are read here."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import numpy as np

from utils.record_framing import RecordError

_MAX_LINE = 1 << 16


class RecordNames:
    """The lines `key<TAB>label<TAB>...<TAB>path` of a .lst; 16 bytes of memory a line, the text stays in the file.

    Attributes:
        path: the .lst file.
    """

    def __init__(self, path: Path) -> None:
        """Notes where each line is.

        Raises:
            RecordError: a line without a key, or a key that stands twice.
        """
        self.path = path
        keys, starts = array("q"), array("q")
        offset = 0
        with path.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE), b""), start=1):
                fields = line.split(b"\t")
                if line.strip():
                    if len(fields) < 3 or not fields[0].isdigit() or len(fields[0]) > 18 or len(line) == _MAX_LINE:
                        shown = line[:60].decode("utf-8", "replace")
                        reason = f"line {number} is {shown!r}, expected `key<TAB>label<TAB>path`"
                        raise RecordError(path, None, offset, reason)
                    keys.append(int(fields[0]))
                    starts.append(offset)
                offset += len(line)
        found = np.array(keys, dtype=np.int64)
        order = np.argsort(found, kind="stable")
        self._keys, self._starts = found[order], np.array(starts, dtype=np.int64)[order]
        twice = np.flatnonzero(np.diff(self._keys) == 0)
        if len(twice):
            raise RecordError(path, int(self._keys[twice[0]]), None, "the key stands on two lines")
        self._file = os.open(path, os.O_RDONLY)

    def __enter__(self) -> RecordNames:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, key: int) -> str | None:
        """The path in the key's line, None where there is no such line."""
        place = int(np.searchsorted(self._keys, key))
        if place == len(self._keys) or self._keys[place] != key:
            return None
        line = os.pread(self._file, 512, int(self._starts[place]))
        if b"\n" not in line:
            line = os.pread(self._file, _MAX_LINE, int(self._starts[place]))
        text = line.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "surrogateescape")
        return text.rsplit("\t", 1)[1]


def names_beside(rec: Path) -> RecordNames | None:
    """The names of a set, from the .lst that bears its .rec file's name; None where there is none."""
    path = rec.with_suffix(".lst")
    return RecordNames(path) if path.is_file() else None


def identity_names(names: RecordNames, keys: np.ndarray, labels: np.ndarray, num_classes: int) -> list[str | None]:
    """The folder that each identity's images were in, by label; None for an identity without images.

    Args:
        names: of the set.
        keys: of the images, int64 (N,).
        labels: of the images, int (N,).
        num_classes: of the set.

    Raises:
        RecordError: an image without a name or a folder, an identity of two folders, or a folder of two identities:
            then folders are no names of identities.
    """
    found: list[str | None] = [None] * num_classes
    owner: dict[str, int] = {}
    for key, label in zip(keys.tolist(), labels.tolist(), strict=True):
        name = names.name(key)
        folder = (name or "").rpartition("/")[0]
        if not folder:
            raise RecordError(names.path, key, None, f"no folder tells who this is: its name is {name!r}")
        if found[label] not in (None, folder):
            reason = f"identity {label} has images in {found[label]!r} and in {folder!r}"
            raise RecordError(names.path, key, None, reason)
        if owner.setdefault(folder, label) != label:
            reason = f"{folder!r} holds images of the identities {owner[folder]} and {label}"
            raise RecordError(names.path, key, None, reason)
        found[label] = folder
    return found
