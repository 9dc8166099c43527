"""Scores of a pair set and its hardest errors as files, written and read back trusting nothing. No HTML here."""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from eval.hardest_pairs import Flags, HardestPairs, Scores, describe_hardest, parse_hardest
from eval.pair_metrics import PairResult
from eval.pairs import PairSet
from utils.errors import DataError
from utils.files import whole_file, write_text_whole

SCORES, HARDEST = "_scores.npz", "_hardest.json"
_MAX_SCORES_BYTES, _MAX_HARDEST_BYTES = 1 << 29, 1 << 24  # 59 million pairs; some 3,000 faces
_MAX_NAME_BYTES = 199
# what zipfile and numpy raise on files that are none of theirs
_DAMAGE = (
    zipfile.BadZipFile, OSError, EOFError, ValueError, LookupError, RuntimeError, struct.error, TypeError, SyntaxError,
    tokenize.TokenError,
)  # fmt: skip


class SavedScoresError(DataError):
    """A file of scores or of hardest pairs that is damaged, or a set's name that cannot be a file's."""


def write_scores(
    folder: str | Path, name: str, pair_set: PairSet, result: PairResult, *, num_hardest: int = 12, origin: str = ""
) -> None:
    """Writes NAME_scores.npz (scores float64 (N,), is_same bool (N,)) and NAME_hardest.json, each whole or not at all.

    An error is a pair on the wrong side of the mean of the folds' thresholds. The hardest false accepts are the
    different pairs of the highest cosine, the hardest false rejects the same pairs of the lowest.

    Args:
        folder: must exist.
        name: of the set, for the files; no path.
        pair_set: (N) pairs; the images of errors that are kept are decoded once more.
        result: of these pairs.
        num_hardest: errors kept of each kind, at most 100.
        origin: which weights were scored, in words, for the reader of a report.

    Raises:
        SavedScoresError: a name that leads elsewhere, or scores of other pairs. PairError: an unreadable image.
    """
    place = Path(folder)
    if result.scores.shape != pair_set.is_same.shape:
        raise SavedScoresError(f"{name}: {len(pair_set.is_same)} pairs, but scores of shape {result.scores.shape}")
    document = describe_hardest(pair_set, result, num_hardest, origin)
    scores_path, hardest_path = _file(place, name, SCORES), _file(place, name, HARDEST)
    hardest_path.unlink(missing_ok=True)  # a crash in between must not leave new scores beside old errors
    with whole_file(scores_path) as stream:
        np.savez(stream, scores=result.scores.astype("<f8"), is_same=pair_set.is_same.astype(bool))
    write_text_whole(document, hardest_path)


def saved_names(folder: Path) -> list[str]:
    """Names of the sets whose scores lie in a folder; they come from its listing, so they lead nowhere else."""
    if not folder.is_dir():
        return []
    files = (path.name for path in folder.iterdir() if path.name.endswith(SCORES))
    return sorted(name for file in files if (name := file.removesuffix(SCORES)))


def read_scores(folder: Path, name: str) -> tuple[Scores, Flags]:
    """Scores (N,) in [-1, 1] and is_same (N,) of a set, as `write_scores` left them; no more memory than the file.

    Raises:
        SavedScoresError: there is no such file, or another layout: the text says what was expected.
    """
    path = _file(folder, name, SCORES)
    content = _read(path, _MAX_SCORES_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            scores = _array(archive, "scores.npy", np.dtype("<f8"))
            is_same = _array(archive, "is_same.npy", np.dtype(bool))
    except _DAMAGE as error:
        raise SavedScoresError(
            f"{path}: no scores of pairs ({str(error)[:200] or type(error).__name__}): expected an .npz with scores "
            "(float64) and is_same (bool), stored without compression. Verify the model again"
        ) from error
    if len(scores) != len(is_same) or len(scores) == 0:
        raise SavedScoresError(f"{path}: {len(scores)} scores and {len(is_same)} flags; expected one each for a pair")
    if not (np.abs(scores) <= 1.0 + 1e-6).all():  # false for NaN too
        raise SavedScoresError(f"{path}: scores that are no cosines in [-1, 1]. Verify the model again")
    return scores, is_same


def read_hardest(folder: Path, name: str, scores: Scores, is_same: Flags) -> HardestPairs | None:
    """The errors that lie beside a set's scores; None where there is no such file.

    Args:
        folder: see `write_scores`.
        name: of the set.
        scores: (N,) from `read_scores`; a pair whose cosine is another one there belongs to other scores.
        is_same: (N,).

    Raises:
        SavedScoresError: damage, or errors that belong to other scores; the text says where.
    """
    path = _file(folder, name, HARDEST)
    if not path.is_file():
        return None
    content = _read(path, _MAX_HARDEST_BYTES)
    try:
        return parse_hardest(content, scores, is_same)
    except ValueError as error:
        raise SavedScoresError(
            f"{path}: no list of hardest pairs ({str(error)[:200]}). Verify the model again"
        ) from error


def _file(folder: Path, name: str, ending: str) -> Path:
    is_plain = (
        name
        and not any(letter in name for letter in "/\\\0")
        and len(name.encode("utf-8", "replace")) <= _MAX_NAME_BYTES
    )
    if not is_plain:
        raise SavedScoresError(
            f"a set called {name[:60]!r} cannot have files of its own: allowed are 1 to {_MAX_NAME_BYTES} bytes "
            "without / and \\. Rename the set's file or folder"
        )
    return folder / f"{name}{ending}"


def _read(path: Path, limit: int) -> bytes:
    try:
        if not path.is_file():  # a pipe would never end
            raise SavedScoresError(f"{path}: there is no such file")
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise SavedScoresError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise SavedScoresError(f"{path}: more than {limit:,} bytes; what verification writes is smaller")
    return content


def _array(archive: zipfile.ZipFile, member: str, dtype: np.dtype[Any]) -> np.ndarray:
    """A flat array of an .npz. Its header is compared with the bytes that are there before anything is allocated."""
    info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{member} is compressed")
    data = archive.read(info)
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"{member} has an array header of version {version}")
    shape, _, found = np.lib.format.read_array_header_1_0(stream)
    start = stream.tell()
    if len(shape) != 1 or found != dtype or shape[0] * dtype.itemsize != len(data) - start:
        raise ValueError(f"{member} is {found} of shape {shape} in {len(data)} bytes; expected {dtype} of shape (N,)")
    array: np.ndarray = np.frombuffer(data, dtype, offset=start)
    if dtype == np.dtype(bool) and array.view(np.uint8).max(initial=0) > 1:
        raise ValueError(f"{member} holds bytes that are neither 0 nor 1")
    return array
