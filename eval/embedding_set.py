"""Saved embeddings with names and identities, as .npz or Parquet; how they were made is told, not checked, here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from eval.npz_arrays import read_npz
from eval.parquet_embeddings import read_parquet, write_parquet
from utils.errors import DataError
from utils.files import whole_file

UNKNOWN = -1
SUFFIXES = (".npz", ".parquet")
_ARRAYS = ("embeddings", "names", "labels", "identities", "detector_scores", "about")


class EmbeddingSetError(DataError):
    """A file of embeddings that cannot be read or written; the text says what was found and what is allowed."""


@dataclass(frozen=True)
class EmbeddingSet:
    """N embeddings with what is known of each.

    Attributes:
        embeddings: (N, D) float32, not normalised: norms tell quality.
        names: (N,) text, where each image came from.
        labels: (N,) int64, positions in `identities`; -1 where nothing says who it is.
        identities: (identities,) text.
        detector_scores: (N,) float32, confidence of the face detector, NaN where none ran.
        about: how it was made: JSON-able values, such as command, weights_sha256, data_sha256, flip.
    """

    embeddings: NDArray[np.float32]
    names: NDArray[np.str_]
    labels: NDArray[np.int64]
    identities: NDArray[np.str_]
    detector_scores: NDArray[np.float32]
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.embeddings)
        if self.embeddings.ndim != 2 or not len(self.names) == len(self.labels) == len(self.detector_scores) == count:
            raise EmbeddingSetError(
                f"embeddings of shape {self.embeddings.shape} with {len(self.names)} names, {len(self.labels)} labels "
                f"and {len(self.detector_scores)} detector scores: one of each is needed for every row"
            )
        if count and not -1 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.identities):
            raise EmbeddingSetError(
                f"labels lie in {self.labels.min()} .. {self.labels.max()}, {len(self.identities)} identities allow "
                f"-1 .. {len(self.identities) - 1}"
            )

    def __len__(self) -> int:
        return len(self.embeddings)


def save_embedding_set(path: str | Path, embedding_set: EmbeddingSet) -> None:
    """Writes a set, whole or not at all; the suffix says how.

    .npz holds the attributes under their names, `about` as JSON text. Parquet has a row per embedding: name, identity
    (null where unknown), detector_score (null where none), embedding (a list of D float32); `about` is in the file's
    metadata under "marginface". Arrays that are memory maps are written block by block, without being read whole.

    Raises:
        EmbeddingSetError: another suffix. ParquetError: Parquet without pyarrow.
    """
    target = Path(path)
    _require_suffix(target)
    about = json.dumps(embedding_set.about)
    with whole_file(target) as stream:
        if target.suffix == ".parquet":
            names, identities = _Texts(embedding_set.names), _Identities(embedding_set)
            write_parquet(stream, embedding_set.embeddings, names, identities, embedding_set.detector_scores, about)
            return
        np.savez(
            stream,
            embeddings=embedding_set.embeddings,
            names=np.asarray(embedding_set.names, dtype=np.str_),
            labels=embedding_set.labels,
            identities=np.asarray(embedding_set.identities, dtype=np.str_),
            detector_scores=embedding_set.detector_scores,
            about=np.array(about),
        )


def load_embedding_set(path: str | Path) -> EmbeddingSet:
    """Reads what `save_embedding_set` wrote, or any .npz with `embeddings` (N, D); what else is missing is unknown.

    Raises:
        EmbeddingSetError: no such file, damage, or arrays that do not fit each other.
    """
    source = Path(path)
    _require_suffix(source)
    if not source.is_file():
        raise EmbeddingSetError(f"{source}: no such file; `python -m tools.embed` writes one")
    try:
        if source.suffix == ".parquet":
            return _from_arrays(read_parquet(source), [])
        return _from_arrays(*read_npz(source, _ARRAYS))
    except DataError as error:
        raise error.within(str(source)) from None


class _Texts(Sequence[str]):
    """Names as Python texts, made when asked for."""

    def __init__(self, names: NDArray[np.str_]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return np.asarray(self._names[index]).tolist()


class _Identities(Sequence[str | None]):
    """Identities by embedding, made when asked for; None where unknown."""

    def __init__(self, embedding_set: EmbeddingSet) -> None:
        self._labels, self._known = embedding_set.labels, embedding_set.identities

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str | None]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str | None] | None:
        if isinstance(index, slice):
            return [None if label == UNKNOWN else str(self._known[label]) for label in self._labels[index].tolist()]
        return self[index : index + 1][0]


def _require_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise EmbeddingSetError(f"{path}: embeddings are kept in {' or '.join(SUFFIXES)}; got {path.suffix!r}")


def _from_arrays(arrays: dict[str, NDArray[Any]], described: list[str]) -> EmbeddingSet:
    embeddings = arrays.get("embeddings")
    if embeddings is None or embeddings.ndim != 2 or embeddings.dtype.kind != "f":
        raise EmbeddingSetError(
            f"`embeddings` must be floats (N, D); the file holds {', '.join(described) or 'nothing'}"
        )
    count = len(embeddings)
    names = arrays.get("names")
    if names is None:
        names = np.array([str(index) for index in range(count)], dtype=np.str_)
    labels = arrays.get("labels", np.full(count, UNKNOWN))
    scores = arrays.get("detector_scores", np.full(count, np.nan))
    if names.dtype.kind != "U" or labels.dtype.kind not in "iu" or scores.dtype.kind != "f":
        raise EmbeddingSetError(
            f"names must be text, labels whole numbers and detector scores floats; they are {names.dtype}, "
            f"{labels.dtype}, {scores.dtype}"
        )
    if not names.shape == labels.shape == scores.shape == (count,):
        raise EmbeddingSetError(
            f"{count} embeddings with names of shape {names.shape}, {len(labels) if labels.ndim else 0} labels of "
            f"{labels.shape}, detector scores of {scores.shape}: one of each is needed for every row"
        )
    highest = int(labels.max(initial=0)) if labels.dtype.kind == "u" else int(labels.max(initial=UNKNOWN))
    identities = arrays.get("identities")
    if identities is None:
        if highest > 10 * count + 1000:  # the labels are numbers of other things, and would be as many names
            raise EmbeddingSetError(f"labels reach {highest} for {count} embeddings; give `identities` beside them")
        identities = np.array([str(index) for index in range(highest + 1)], dtype=np.str_)
    if identities.dtype.kind != "U" or identities.ndim != 1:
        raise EmbeddingSetError(f"identities must be a list of texts; they are {identities.dtype} {identities.shape}")
    if count and highest >= max(1, len(identities)):  # before numbers beyond int64 are made ones that fit
        raise EmbeddingSetError(
            f"labels lie in {labels.min()} .. {highest}, {len(identities)} identities allow -1 .. {len(identities) - 1}"
        )
    return EmbeddingSet(
        np.ascontiguousarray(embeddings, dtype=np.float32),
        names,
        labels.astype(np.int64, copy=False),
        identities,
        scores.astype(np.float32, copy=False),
        _about(arrays.get("about")),
    )


def _about(text: NDArray[Any] | None) -> dict[str, Any]:
    """Anything but a JSON object is nothing: how a set was made is told, not relied upon."""
    try:
        about = json.loads(str(text)) if text is not None and text.dtype.kind == "U" and text.ndim == 0 else {}
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}
