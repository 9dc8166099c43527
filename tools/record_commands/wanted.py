"""What `subset` is told to keep: keys and identities, in options or files, as numbers of the set. Nothing is drawn."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sources.base import SourceError
from utils.record_names import identity_names, names_beside
from utils.recordio import RecordError, RecordReader

KINDS = ("auto", "labels", "names")


def wanted_keys(path: Path | None, reader: RecordReader) -> np.ndarray | None:
    """Keys of a file, one a line, int64; None without a file.

    Raises:
        SourceError: no such file, a line that is no key, or a key of no image of the set: the file is of another one.
    """
    keys = read_keys(path)
    strangers = unknown_keys(keys, reader)
    if keys is not None and len(strangers):
        there = reader.image_keys
        raise SourceError(
            f"--keys {path}: {len(strangers)} of its {len(keys)} keys are of no image of {reader.path}, such as "
            f"{strangers[0]}; its images have keys in {there.min()} .. {there.max()}"
        )
    return keys


def read_keys(path: Path | None) -> np.ndarray | None:
    """Keys of a file, one a line, int64; None without a file.

    Raises:
        SourceError: no such file, or a line that is no key.
    """
    if path is None:
        return None
    words = _lines(path)
    wrong = next((word for word in words if not (word.isascii() and word.isdigit() and len(word) <= 18)), None)
    if wrong is not None:
        raise SourceError(f"{path}: {wrong[:80]!r} is no key; one whole number a line is expected")
    return np.array([int(word) for word in words], dtype=np.int64)


def unknown_keys(keys: np.ndarray | None, reader: RecordReader) -> np.ndarray:
    """Those that no image of the set has, in their order, int64."""
    given = np.empty(0, dtype=np.int64) if keys is None else keys
    return given[~np.isin(given, reader.image_keys)]


def wanted_identities(text: str | None, reader: RecordReader, labels: np.ndarray, kind: str) -> np.ndarray | None:
    """Labels from `0-99,205`, or from a file of labels or names.

    Args:
        text: of the option; a file where there is one of that name.
        reader: the set.
        labels: of its images, int (N,).
        kind: of KINDS; "auto" takes numbers for labels unless the file's could be names as well.

    Raises:
        SourceError: a label or name that the set does not have, names that it does not tell, or numbers of a file that
            are labels and names of different identities.
    """
    if text is None:
        return None
    is_file = os.path.isfile(text)  # Path's would fail on a long list
    parts = _lines(Path(text)) if is_file else text.split(",")
    spans = [part.split("-") if set(part) <= set("0123456789-") else [part] for part in parts]
    are_labels = all(len(span) <= 2 and all(word.isdigit() and len(word) <= 9 for word in span) for span in spans)
    if kind == "names" or (kind == "auto" and not are_labels):
        return _labels_of_names(text, parts, reader, labels)
    if not are_labels:
        raise SourceError(f"--identities {text}: not all of it are labels, which are numbers like 7 or 0-99")
    if kind == "auto" and is_file:
        _refuse_names_of_others(text, parts, reader, labels)
    found = [np.arange(int(span[0]), min(int(span[-1]), reader.num_classes - 1) + 1) for span in spans]
    beyond = [span[-1] for span in spans if int(span[-1]) >= reader.num_classes or int(span[0]) > int(span[-1])]
    if beyond:
        raise SourceError(f"--identities: {beyond[0]} is no label; the set has 0 .. {reader.num_classes - 1}")
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _labels_of_names(text: str, parts: list[str], reader: RecordReader, labels: np.ndarray) -> np.ndarray:
    try:
        places = _places(reader, labels)
    except RecordError as error:
        raise SourceError(f"--identities {text}: names of identities are not known: {error}") from None
    if places is None:
        raise SourceError(
            f"--identities {text}: there is no .lst beside {reader.path} that names identities: give labels"
        )
    strangers = [part for part in parts if part not in places]
    if strangers:
        raise SourceError(f"--identities {text}: no identity is named {strangers[0]!r} ({len(strangers)} such names)")
    return np.array([places[part] for part in parts], dtype=np.int64)


def _refuse_names_of_others(text: str, parts: list[str], reader: RecordReader, labels: np.ndarray) -> None:
    """Folders are often called by numbers: 0000045 may be the name of the identity with the label 0."""
    try:
        places = _places(reader, labels) or {}
    except RecordError:
        return  # names that nobody could have meant
    for part in parts:
        label = places.get(part)
        if label is not None and str(label) != part.lstrip("0").rjust(1, "0"):
            raise SourceError(
                f"--identities {text}: {part!r} is a label and also the name of the identity with label {label}: say "
                "which is meant with --identities-are labels or --identities-are names"
            )


def _places(reader: RecordReader, labels: np.ndarray) -> dict[str, int] | None:
    """The label of each name, None where no .lst is beside the set."""
    names = names_beside(reader.path)
    if names is None:
        return None
    with names:
        known = identity_names(names, reader.image_keys, labels, reader.num_classes)
    return {name: label for label, name in enumerate(known) if name is not None}


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
