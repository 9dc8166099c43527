"""Files of five points per image: our CSV, CelebA's lists and tables. No images and no detection here."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from tools.alignment.detector import Face
from tools.alignment.template import LandmarkError, is_mirrored
from utils.files import whole_file

POINT_COLUMNS = tuple(f"{axis}{number}" for number in range(1, 6) for axis in "xy")
BOX_COLUMNS = ("box_left", "box_top", "box_width", "box_height")
COLUMNS = ("path", *POINT_COLUMNS, *BOX_COLUMNS, "score")
# CelebA's own names; its left eye is the one further left in the picture
_CELEBA = tuple(
    f"{part}_{axis}" for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)
_PATH_NAMES = ("path", "image_id", "image", "file")
_FARTHEST = 1e6  # pixels; no photograph is that wide
_WIDTH = len(COLUMNS) - 1
FORMATS = (
    "a CSV with the columns path, x1, y1 .. x5, y5 (and box_left, box_top, box_width, box_height, score), as "
    "tools.align writes, or CelebA's; or text with `path x1 y1 .. x5 y5` a line, with or "
    "without a score in 0 .. 1 behind them"
)


class Landmarks:
    """Five points for each of many images, by the images' names; some 200 bytes an image.

    Attributes:
        path: the file they are from, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, int] = {}
        self._values = array("d")

    def __len__(self) -> int:
        return len(self._rows)

    def names(self) -> Iterable[str]:
        """The images, in the file's order."""
        return self._rows

    def get(self, name: str) -> Face | None:
        """The face of an image; None where the file does not name it."""
        row = self._rows.get(name)
        return None if row is None else face_of(self._values[row * _WIDTH : (row + 1) * _WIDTH])

    def add(self, name: str, values: Sequence[float]) -> None:
        """Adds an image's 15 numbers: points, box, score."""
        if name in self._rows:
            raise LandmarkError(f"{name[:200]!r} is named twice; one face an image is what this file is for")
        self._rows[name] = len(self._rows)
        self._values.extend(values)


def face_of(values: Sequence[float]) -> Face:
    """Points, box and score, 15 numbers in a row."""
    left, top, width, height, score = values[10:]
    return Face(np.array(values[:10]).reshape(5, 2), (left, top, width, height), score)


def numbers_of(face: Face) -> list[float]:
    """The 15 numbers of `face_of`."""
    return [*face.points.reshape(-1).tolist(), *face.box, face.score]


def read_landmarks(path: str | Path) -> Landmarks:
    """Reads a CSV with a header line, or text with `path x1 y1 .. x5 y5` a line; CelebA publishes both, IJB the latter
    with a score behind it.

    Raises:
        LandmarkError: no such file, or a line that is neither; names the line, and what is allowed.
    """
    source = Path(path)
    if not source.is_file():
        raise LandmarkError(f"{source}: no such file; landmarks are {FORMATS}")
    landmarks = Landmarks(source)
    line = 0
    try:
        with source.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            start = stream.readline(1 << 16)
            stream.seek(0)
            for row in _table_rows(stream) if "," in start else _text_rows(stream):
                line = row[0]
                landmarks.add(row[1], row[2])
    except OSError as error:
        raise LandmarkError(f"{source}: cannot be read: {error.strerror or error}") from None
    except LandmarkError as error:
        raise error.within(f"{source}, after line {line}") from None
    if not len(landmarks):
        raise LandmarkError(f"{source}: no landmarks in it; they are {FORMATS}")
    return landmarks


def require_order(landmarks: Landmarks, names: Iterable[str]) -> None:
    """Refuses a file most of whose points have left and right swapped: every crop would be tiny or upside down.

    Raises:
        LandmarkError: see above; `names` are the images that are looked at.
    """
    faces = [face for face in map(landmarks.get, names) if face is not None]
    swapped = sum(is_mirrored(face.points) for face in faces)
    if 2 * swapped > len(faces):
        raise LandmarkError(
            f"{landmarks.path}: left and right are swapped in {swapped} of {len(faces)} faces: of the two eyes and of "
            "the two mouth corners the one further left in the picture must come first (the person's right)"
        )


def write_landmarks(path: Path, rows: Iterable[tuple[str, Face]]) -> None:
    """Writes our CSV, whole or not at all; what is not known (NaN) is left empty."""
    with whole_file(path) as stream:
        stream.write(csv_line(COLUMNS))
        for name, face in rows:
            stream.write(csv_line([name, *("" if math.isnan(v) else repr(round(v, 4)) for v in numbers_of(face))]))


def csv_line(fields: Sequence[str]) -> bytes:
    """One line of CSV; names may be any that a file can have."""
    quoted = [f'"{field.replace(chr(34), chr(34) * 2)}"' if _needs_quotes(field) else field for field in fields]
    return (",".join(quoted) + "\n").encode("utf-8", "surrogateescape")


def _needs_quotes(field: str) -> bool:
    return any(letter in field for letter in ',"\n\r') or field != field.strip()


def _table_rows(stream: TextIO) -> Iterator[tuple[int, str, list[float]]]:
    lines = csv.reader(stream, strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        paths = [name for name in _PATH_NAMES if name in header]
        columns = POINT_COLUMNS if POINT_COLUMNS[0] in header else _CELEBA
        missing = [name for name in columns if name not in header]
        if not paths or missing:
            raise LandmarkError(f"its header lacks {', '.join(missing or ['path'])}; landmarks are {FORMATS}")
        place = header.index(paths[0])
        points = [header.index(name) for name in columns]
        rest = [header.index(name) if name in header else -1 for name in (*BOX_COLUMNS, "score")]
        for fields in lines:
            if not fields:
                continue
            if len(fields) != len(header):
                raise LandmarkError(f"a row of {len(fields)} fields under a header of {len(header)}: {_shown(fields)}")
            numbers = [_number(fields[column]) for column in points]
            optional = [_number(fields[c]) if c >= 0 and fields[c].strip() else math.nan for c in rest]
            yield lines.line_num, _name(fields[place]), numbers + optional
    except csv.Error as error:
        raise LandmarkError(f"no CSV: {error}") from None


def _text_rows(stream: TextIO) -> Iterator[tuple[int, str, list[float]]]:
    for number, line in enumerate(stream, start=1):
        scored = _scored(line)
        if scored is not None:
            yield number, *scored
            continue
        fields = line.strip().rsplit(None, 10)
        is_head = (number == 1 and line.strip().isdigit()) or (number <= 2 and tuple(line.split()) == _CELEBA)
        if is_head or not fields:
            continue
        if len(fields) != 11:
            raise LandmarkError(f"expected `path x1 y1 .. x5 y5`, got {_shown([line])}; landmarks are {FORMATS}")
        yield number, _name(fields[0]), [_number(field) for field in fields[1:]] + [math.nan] * 5


def _scored(line: str) -> tuple[str, list[float]] | None:
    """Name and numbers of a line `path x1 y1 .. x5 y5 score`, as IJB has them; None where it is no such line."""
    fields = line.strip().rsplit(None, 11)
    if len(fields) != 12:
        return None
    try:
        numbers = [float(field) for field in fields[1:]]
    except ValueError:  # the second word belongs to the name
        return None
    if not 0 <= numbers[-1] <= 1:  # nor is the last one a score: a name with a number behind a blank
        return None
    return _name(fields[0]), [_number(field) for field in fields[1:11]] + [math.nan] * 4 + [numbers[-1]]


def _name(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise LandmarkError(f"{text[:80]!r} is no name of an image")
    return text


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _FARTHEST:
        raise LandmarkError(f"{text[:40]!r} is no coordinate: numbers of pixels in -1000000 .. 1000000 are")
    return value


def _shown(fields: Sequence[str]) -> str:
    return repr(",".join(fields)[:80])
