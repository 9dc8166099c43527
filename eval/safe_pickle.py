"""Verification pickles, read without trusting them, and the error of everything about pairs; knows no layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from utils.errors import DataError
from utils.numpy_pickle import PickledArray, load_arrays
from utils.pickle_grammar import PickleError

__all__ = ["PairError", "PickledArray", "load_pickle"]


class PairError(DataError):
    """A set of pairs that cannot be read; the text names the file, what was found and what is allowed."""


def load_pickle(path: Path, content: bytes) -> Any:
    """Unpickle lists, tuples, byte strings, numbers, bools and PickledArray; nothing else can be built.

    Args:
        path: named in errors only.
        content: the whole file.

    Raises:
        PairError: a refused global or opcode (named), or damage.
    """
    try:
        return load_arrays(content, "a verification file")
    except PickleError as error:
        raise PairError(f"{path}: {error}") from None
