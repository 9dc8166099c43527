"""The parts of a set of embeddings that is being made: kept beside it, and put together at the end. No model here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from eval.embedding_set import EmbeddingSet, save_embedding_set
from eval.image_set import ImageSet
from eval.npz_arrays import NpzError, read_npz
from utils.errors import DataError
from utils.files import lock_folder, remove_partial, whole_file, write_text_whole

_PLAN = "plan.json"
_NAMES = 1 << 14  # names turned into an array at a time


class PartsError(DataError):
    """Parts that do not belong to what is to be made; the text says what differs and what to do."""


@dataclass(frozen=True)
class Part:
    """A slice of the images, embedded.

    Attributes:
        embeddings: (K, D) float32, of the images that could be read.
        indices: (K,) int64, which images they are.
        scores: (K,) float32, the detector's; NaN where none ran.
        skipped: index and reason of the images that could not be read.
    """

    embeddings: NDArray[np.float32]
    indices: NDArray[np.int64]
    scores: NDArray[np.float32]
    skipped: Sequence[tuple[int, str]]


def parts_folder(output: Path) -> Path:
    """Where the parts of `output` are kept until it is whole."""
    return output.with_name(f".{output.name}.parts")


class PartFolder:
    """The parts of one set, each a file that is there whole or not at all.

    Args:
        output: the set's file.
        plan: JSON-able; everything that the parts depend on.
        count: images in all.
        size: images a part.
        stamp: of a slice of images, text for a file's name that changes when they do: their part is made anew then.
    """

    def __init__(
        self, output: Path, plan: dict[str, Any], count: int, size: int, stamp: Callable[[range], str] = lambda _: ""
    ) -> None:
        self.output, self.folder = output, parts_folder(output)
        self._plan, self._count, self._size = plan, count, size
        self._stamp = stamp
        self._paths: dict[int, Path] = {}
        self._lock: BinaryIO | None = None

    def open(self, *, restart: bool) -> None:
        """Makes the folder, or goes on in one that a stopped run has left; by one process, which keeps others out.

        Raises:
            PartsError: that run was another one, or is still at work; the text says what differs.
        """
        try:
            self._lock = lock_folder(self.folder)
        except BlockingIOError:
            raise PartsError(f"{self.output} is being made by another process; wait for it, or stop it") from None
        if restart:
            for path in self.folder.glob("[!.]*"):
                path.unlink()
        remove_partial(self.folder)
        path = self.folder / _PLAN
        if path.is_file():
            try:
                known = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, RecursionError):
                known = {}
            if known != self._plan:
                known = known if isinstance(known, dict) else {}
                different = [
                    f"{key}: {known.get(key)!r}, now {value!r}"
                    for key, value in self._plan.items()
                    if known.get(key) != value
                ]
                raise PartsError(
                    f"{self.folder} holds parts of another run ({'; '.join(different) or 'unknown'}): give the same "
                    "options to go on with it, or --restart to throw its parts away"
                )
            return
        write_text_whole(json.dumps(self._plan), path)

    def missing(self) -> list[range]:
        """The slices of images that are not embedded yet."""
        there = {path.name for path in self.folder.glob("*.npz")}
        slices = [self._slice(start) for start in range(0, self._count, self._size)]
        return [part for part in slices if self._path(part.start).name not in there]

    def save(self, start: int, part: Part) -> None:
        """Keeps a part."""
        with whole_file(self._path(start)) as stream:
            np.savez(
                stream,
                embeddings=part.embeddings,
                indices=part.indices,
                scores=part.scores,
                skipped=np.array(json.dumps(list(part.skipped))),
            )

    def load(self, start: int) -> Part:
        """A part that was kept.

        Raises:
            PartsError: its file is damaged.
        """
        path = self._path(start)
        if not path.is_file():
            raise PartsError(f"images {start} .. were changed while they were embedded: give the same command again")
        try:
            arrays, _ = read_npz(path, ("embeddings", "indices", "scores", "skipped"))
            skipped = [(int(index), str(reason)) for index, reason in json.loads(str(arrays["skipped"]))]
            return Part(arrays["embeddings"], arrays["indices"], arrays["scores"], skipped)
        except (NpzError, OSError, KeyError, ValueError) as error:
            raise PartsError(f"{path}: damaged ({error}); remove it, and the same command makes it anew") from None

    def assemble(self, images: ImageSet, about: dict[str, Any]) -> list[tuple[int, str]]:
        """Puts all parts together as the set's file and removes them.

        Memory does not grow with the embeddings: they and the names go through memory-mapped files among the parts.

        Args:
            images: supplies names, labels and identities.
            about: of the set; "skipped" is added where images were skipped.

        Returns:
            Index and reason of the images that were skipped.

        Raises:
            PartsError: a damaged part, or no image that could be embedded.
        """
        indices, scores = [], []
        skipped: list[tuple[int, str]] = []
        width = 0
        with (self.folder / "embeddings").open("wb") as stream:
            for start in range(0, self._count, self._size):
                part = self.load(start)
                part.embeddings.tofile(stream)
                indices.append(part.indices)
                scores.append(part.scores)
                skipped += part.skipped
                width = part.embeddings.shape[1] or width
        kept = np.concatenate(indices)
        if not len(kept):
            raise PartsError(f"none of the {self._count} images could be embedded; the first: {skipped[0][1]}")
        if skipped:
            about = {**about, "skipped": [[_printable(str(images.names[index])), why] for index, why in skipped]}
        embedding_set = EmbeddingSet(
            np.memmap(self.folder / "embeddings", np.float32, "r", shape=(len(kept), width)),
            self._names(images, kept),
            images.labels[kept],
            np.array([_printable(name) for name in images.identities], dtype=np.str_),
            np.concatenate(scores),
            about,
        )
        save_embedding_set(self.output, embedding_set)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
        return skipped

    def _names(self, images: ImageSet, kept: NDArray[np.int64]) -> NDArray[np.str_]:
        """Names of the kept images, (K,) text in a memory map; a text array is as wide as the longest of all."""
        longest = max(len(_printable(images.names[index])) for index in kept.tolist())
        dtype = np.dtype(f"<U{max(1, longest)}")
        with (self.folder / "names").open("wb") as stream:
            for start in range(0, len(kept), _NAMES):
                block = [_printable(images.names[index]) for index in kept[start : start + _NAMES].tolist()]
                np.array(block, dtype=dtype).tofile(stream)
        return np.memmap(self.folder / "names", dtype, "r", shape=(len(kept),))

    def _slice(self, start: int) -> range:
        return range(start, min(start + self._size, self._count))

    def _path(self, start: int) -> Path:
        if start not in self._paths:
            self._paths[start] = self.folder / f"{start:012d}-{self._stamp(self._slice(start))}.npz"
        return self._paths[start]


def _printable(name: str) -> str:
    """Names of any bytes as text that every program can read."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
