"""Embeddings as Parquet, for tables and databases; needs pyarrow, which nothing else here does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from utils.errors import DataError

_KEY = b"marginface"
_COLUMNS = ("name", "identity", "detector_score", "embedding")


class ParquetError(DataError):
    """A Parquet file that cannot be read or written; the text says what was found and what is needed."""


def write_parquet(
    stream: BinaryIO,
    embeddings: NDArray[np.float32],
    names: list[str],
    identities: list[str | None],
    detector_scores: NDArray[np.float32],
    about: str,
) -> None:
    """Writes one row per embedding; `about` goes into the file's metadata. NaN scores become null.

    Raises:
        ParquetError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    count, width = embeddings.shape
    kind = arrow.list_(arrow.float32(), width)
    flat = arrow.array(np.ascontiguousarray(embeddings).reshape(-1))
    columns = [
        arrow.array(names, arrow.string()),
        arrow.array(identities, arrow.string()),
        arrow.array(detector_scores, arrow.float32(), mask=np.isnan(detector_scores)),
        arrow.FixedSizeListArray.from_arrays(flat, width) if count else arrow.array([], kind),
    ]
    table = arrow.table(columns, names=_COLUMNS).replace_schema_metadata({_KEY: about.encode()})
    parquet.write_table(table, stream)


def read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an embedding set, from any Parquet file with a column `embedding` of equally long lists of floats.

    Raises:
        ParquetError: damage, other columns, or pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise ParquetError(f"{path}: not a Parquet file, or damaged: {error}") from None
    if "embedding" not in table.column_names:
        raise ParquetError(f"{path}: has no column `embedding`; its columns are {', '.join(table.column_names)}")
    column = table.column("embedding").combine_chunks()
    try:
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        embeddings = flat.reshape(len(column), -1) if len(column) else np.empty((0, 0), np.float32)
    except (AttributeError, ValueError) as error:
        raise ParquetError(f"{path}: `embedding` must hold equally long lists of floats: {error}") from None

    def values(name: str) -> list[Any]:
        return table.column(name).to_pylist() if name in table.column_names else [None] * len(column)

    found = [None if identity is None else str(identity) for identity in values("identity")]
    identities = sorted({identity for identity in found if identity is not None})
    places: dict[str | None, int] = {None: -1, **{identity: place for place, identity in enumerate(identities)}}
    return {
        "embeddings": embeddings,
        "names": np.array(["" if name is None else str(name) for name in values("name")], dtype=np.str_),
        "labels": np.array([places[identity] for identity in found], dtype=np.int64),
        "identities": np.array(identities, dtype=np.str_),
        "detector_scores": np.array([np.nan if s is None else s for s in values("detector_score")], dtype=np.float32),
        "about": np.array((table.schema.metadata or {}).get(_KEY, b"{}").decode("utf-8", "replace")),
    }


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ParquetError(f"Parquet needs pyarrow ({error}): pip install pyarrow, or use .npz") from None
    return pyarrow, pyarrow.parquet
