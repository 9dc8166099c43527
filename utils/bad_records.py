"""Images that could not be read: what is known of each, and their number over all ranks. Reads no data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from utils.distributed import broadcast_object, gather_objects
from utils.errors import DataError

BAD_RECORDS = "bad_records.jsonl"
_TOLD = 20  # log lines before only powers of two get one
_NAMED = 3  # in the error about too many


class ReaderError(DataError):
    """Reading stopped for another reason than what the data holds: a reader died, memory or a disk gave out."""


@dataclass(frozen=True)
class BadImage:
    """One image that could not be used.

    Attributes:
        index: its number in the source.
        file: where it is, as far as known.
        key: of the record, None where there are no records.
        offset: the record's byte in the file, likewise.
        reason: what is wrong.
    """

    index: int
    file: str
    key: int | None
    offset: int | None
    reason: str

    @classmethod
    def from_error(cls, index: int, error: DataError, file: str) -> BadImage:
        """What `error`, met while image `index` was read, says; `file` where it names none."""
        named = {name: getattr(error, name, None) for name in ("path", "key", "offset", "reason")}
        return cls(index, named["path"] or file, named["key"], named["offset"], named["reason"] or str(error))

    def __str__(self) -> str:
        record = "" if self.key is None else f", record {self.key}"
        byte = "" if self.offset is None else f", byte {self.offset}"
        return f"image {self.index}: {self.file}{record}{byte}: {self.reason}"


class Reported(Protocol):
    """What a batch tells of the reading."""

    @property
    def failure(self) -> DataError | None: ...

    @property
    def bad(self) -> tuple[BadImage, ...]: ...


class BadRecords:
    """The different images that a run met and could not read: the same set on all ranks, on file for a resumed run.

    A rank reads only its own part of a batch, so a step's exchange carries how many it has to report (nearly always
    none), and only where somebody has, the texts are exchanged. So no rank goes on alone and none is waited for.

    Attributes:
        say: takes a line for the log; called on the main rank.
    """

    def __init__(
        self, limit: int = 1000, path: Path | None = None, *, is_main: bool = True, resume: bool = False
    ) -> None:
        """An empty set, or the one on file; collective where `resume`.

        Args:
            limit: different images over all ranks with which a run goes on.
            path: one line of JSON for each image; None keeps no file.
            is_main: whether this rank writes it.
            resume: begin with what the file holds; else it is replaced when the first image is found.

        Raises:
            DataError: on all ranks, where the file holds more than `limit`.
        """
        self._limit, self._path, self._is_main = limit, path, is_main
        self._is_kept = resume
        self._seen: dict[int, BadImage] = {}
        self.say: Callable[[str], None] = print
        if resume and path is not None:
            known = broadcast_object(_read(path) if is_main else None)
            self._seen = {image.index: image for image in known}
            self._refuse_too_many()

    @property
    def count(self) -> int:
        """Different images so far, over all ranks."""
        return len(self._seen)

    def reports(self, batches: Sequence[Reported]) -> int:
        """How much this rank's batches have to say that not all ranks know; 0 nearly always."""
        if all(batch.failure is None and not batch.bad for batch in batches):
            return 0
        return len(self._news(batches))

    def _news(self, batches: Sequence[Reported]) -> list[DataError | BadImage]:
        failures = [batch.failure for batch in batches if batch.failure is not None]
        found = {image.index: image for batch in batches for image in batch.bad if image.index not in self._seen}
        return [*failures, *found.values()]

    def settle(self, batches: Sequence[Reported]) -> None:
        """Tells all ranks what any of them has to report; collective, for a step in which somebody has.

        Raises:
            DataError: the same on all ranks: what the first of them met that cannot be skipped, or too many bad images.
        """
        reports = gather_objects(self._news(batches))
        failures = [(rank, item) for rank, items in enumerate(reports) for item in items if isinstance(item, DataError)]
        if failures:
            rank, error = failures[0]
            others = [f"also on rank {other}: {text}" for other, text in failures[1:] if other != rank]
            raise error.within("; ".join([f"rank {rank}", *others]))
        self._add(item for items in reports for item in items if isinstance(item, BadImage))
        self._refuse_too_many()

    def _add(self, images: Iterable[BadImage]) -> None:
        new = [image for image in {image.index: image for image in images}.values() if image.index not in self._seen]
        for image in new:
            self._seen[image.index] = image
            number = len(self._seen)
            if self._is_main and (number <= _TOLD or number & (number - 1) == 0):
                note = (
                    f"; from here on each power of two gets a line, all are in {self._path}" if number == _TOLD else ""
                )
                self.say(f"bad record {number} of at most {self._limit}, replaced by another image: {image}{note}")
        if self._is_main and self._path is not None and new:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                _append(self._path, new, is_kept=self._is_kept)
                self._is_kept = True
            except OSError as error:  # training does not depend on this file: the set in memory counts
                self.say(f"{self._path} could not be written: {error.strerror or error}")

    def _refuse_too_many(self) -> None:
        if len(self._seen) <= self._limit:
            return
        first = "; ".join(str(image) for image in list(self._seen.values())[:_NAMED])
        raise DataError(
            f"{len(self._seen)} different images could not be read, and max_bad_records = {self._limit}: {first}; all "
            f"are in {self._path}. What to do: repair the data (of record sets `python -m tools.records inspect SET "
            "--decode -1` finds all damage) and remove that file, or set a larger max_bad_records; then resume=True"
        )


def _append(path: Path, images: Sequence[BadImage], *, is_kept: bool) -> None:
    with path.open("ab" if is_kept else "wb") as file:
        if file.tell() and not _ends_line(path):  # a line that was being written when the machine went down
            file.write(b"\n")
        file.write("".join(json.dumps(asdict(image)) + "\n" for image in images).encode())


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _read(path: Path) -> list[BadImage]:
    """The images on file; lines that are no such thing (cut short by a crash) are left out."""
    if not path.is_file():
        return []
    images = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            image = BadImage(**json.loads(line))
        except (ValueError, TypeError, RecursionError):
            continue
        if type(image.index) is int:
            images.append(image)
    return images
