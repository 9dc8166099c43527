"""Embeddings as Parquet, for tables and databases; needs pyarrow, which nothing else here does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from utils.errors import DataError

_KEY = b"marginface"
_COLUMNS = ("name", "identity", "detector_score", "embedding")
_ROWS = 1 << 14  # of a row group: 32 MiB of 512 floats
_FACTOR, _ALLOWANCE = 100, 64 << 20  # what a file's columns may take beyond its own bytes, see eval/npz_arrays.py


class ParquetError(DataError):
    """A Parquet file that cannot be read or written; the text says what was found and what is needed."""


def write_parquet(
    stream: BinaryIO,
    embeddings: NDArray[np.float32],
    names: Sequence[str],
    identities: Sequence[str | None],
    detector_scores: NDArray[np.float32],
    about: str,
) -> None:
    """Writes one row per embedding; `about` goes into the file's metadata. NaN scores become null.

    One row group of 16,384 rows is in memory at a time.

    Raises:
        ParquetError: pyarrow is not installed.
    """
    arrow, parquet = require_pyarrow()
    count, width = embeddings.shape
    vector = arrow.list_(arrow.float32(), width)
    kinds = zip(_COLUMNS, (arrow.string(), arrow.string(), arrow.float32(), vector), strict=True)
    schema = arrow.schema(list(kinds), metadata={_KEY: about.encode()})
    # floats never repeat: a dictionary of them would be tried for nothing
    with parquet.ParquetWriter(stream, schema, use_dictionary=["identity"]) as writer:
        for start in range(0, max(count, 1), _ROWS):
            rows = slice(start, start + _ROWS)
            scores = np.asarray(detector_scores[rows], dtype=np.float32)
            flat = arrow.array(np.ascontiguousarray(embeddings[rows]).reshape(-1))
            columns = [
                arrow.array(names[rows], arrow.string()),
                arrow.array(identities[rows], arrow.string()),
                arrow.array(scores, arrow.float32(), mask=np.isnan(scores)),
                arrow.FixedSizeListArray.from_arrays(flat, width) if count else arrow.array([], vector),
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an embedding set, from any Parquet file with a column `embedding` of equally long lists of floats.

    Raises:
        ParquetError: damage, other columns, contents of over 100 times the file's bytes, or pyarrow is not installed.
    """
    arrow, parquet = require_pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            metadata, there = file.schema_arrow.metadata or {}, file.schema_arrow.names
            if "embedding" not in there:
                raise ParquetError(f"{path}: has no column `embedding`; its columns are {', '.join(there)[:300]}")
            columns = _columns(file, [name for name in _COLUMNS if there.count(name) == 1], path)
    except (OSError, ValueError, MemoryError, arrow.ArrowException) as error:
        raise ParquetError(f"{path}: not a Parquet file, or damaged: {str(error)[:300]}") from None
    except DataError:
        raise
    embeddings = columns["embedding"]
    count = len(embeddings)
    found = columns.get("identity", [None] * count)
    identities = sorted({identity for identity in found if identity is not None})
    places: dict[str | None, int] = {None: -1, **{identity: place for place, identity in enumerate(identities)}}
    scores = columns.get("detector_score", [None] * count)
    return {
        "embeddings": embeddings,
        "names": np.array(["" if name is None else name for name in columns.get("name", [None] * count)], np.str_),
        "labels": np.array([places[identity] for identity in found], dtype=np.int64),
        "identities": np.array(identities, dtype=np.str_),
        "detector_scores": np.array([np.nan if score is None else score for score in scores], dtype=np.float32),
        "about": np.array(metadata.get(_KEY, b"{}").decode("utf-8", "replace")),
    }


def _columns(file: Any, names: list[str], path: Path) -> dict[str, Any]:
    """Embeddings (N, D) and lists of the other columns' values, read in blocks and never beyond the limit."""
    budget = _FACTOR * path.stat().st_size + _ALLOWANCE
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    announced = sum(group.total_byte_size for group in groups)
    if announced > budget or file.metadata.num_rows > budget:
        raise _too_much(path)
    blocks: list[NDArray[np.float32]] = []
    values: dict[str, list[Any]] = {name: [] for name in names if name != "embedding"}
    taken = 0
    for batch in file.iter_batches(_ROWS, columns=names, use_threads=False):
        taken += batch.nbytes
        if taken > budget:
            raise _too_much(path)
        blocks.append(_vectors(batch.column("embedding"), path))
        for name, found in values.items():
            found += _plain(batch.column(name), name, path)
    if len({block.shape[1] for block in blocks}) > 1:
        raise ParquetError(f"{path}: `embedding` must hold equally long lists of floats")
    return {**values, "embedding": np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32)}


def _vectors(column: Any, path: Path) -> NDArray[np.float32]:
    """(rows, D) of a list column; its rows must be whole and equally long."""
    arrow, _ = require_pyarrow()
    kind = column.type
    is_list = any(
        test(kind) for test in (arrow.types.is_list, arrow.types.is_large_list, arrow.types.is_fixed_size_list)
    )
    if not is_list or not arrow.types.is_floating(kind.value_type) or column.null_count:
        raise ParquetError(f"{path}: `embedding` must hold lists of floats in every row; it is {str(kind)[:100]}")
    flat = column.flatten()
    if flat.null_count or (len(column) and len(flat) % len(column)):
        raise ParquetError(f"{path}: `embedding` must hold equally long lists of floats")
    width = len(flat) // max(1, len(column))
    if not arrow.types.is_fixed_size_list(kind):
        offsets = np.diff(column.offsets.to_numpy())
        if (offsets != width).any():
            raise ParquetError(f"{path}: `embedding` must hold equally long lists of floats")
    vectors: NDArray[np.float32] = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), width)
    return vectors


def _plain(column: Any, name: str, path: Path) -> list[Any]:
    arrow, _ = require_pyarrow()
    kind = column.type
    if name == "detector_score":
        if not arrow.types.is_floating(kind):
            raise ParquetError(f"{path}: `detector_score` must be floats; it is {str(kind)[:100]}")
        return list(column.to_pylist())
    if arrow.types.is_nested(kind):
        raise ParquetError(f"{path}: `{name}` must be text or numbers; it is {str(kind)[:100]}")
    return [None if value is None else str(value) for value in column.to_pylist()]


def _too_much(path: Path) -> ParquetError:
    size = path.stat().st_size
    return ParquetError(f"{path}: {size} bytes unpack to more than {_FACTOR} times as much, which is refused")


def require_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet; ParquetError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ParquetError(f"Parquet needs pyarrow ({error}): pip install pyarrow, or use .npz") from None
    return pyarrow, pyarrow.parquet
