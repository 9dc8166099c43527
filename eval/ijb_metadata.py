"""IJB-B's and IJB-C's metadata as text files: templates, media, landmarks, pairs, galleries. No image, no embedding."""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.errors import DataError

_PAIR = np.dtype([("first", "<i4"), ("second", "<i4"), ("label", "i1")])
_MAX_ID = np.iinfo(np.int32).max
_HELP = (
    "give the folder of a set as insightface packs it (IJBC/meta/ijbc_face_tid_mid.txt, ...), or its meta folder alone"
)


class IjbError(DataError):
    """Metadata that is missing, does not parse or contradicts itself; the text names file and line."""


@dataclass(frozen=True)
class IjbImages:
    """The N face images of a set, in the order of its lists.

    Attributes:
        names: N file names in loose_crop, "1.jpg".
        templates: (N,) int64.
        media: (N,) int64; frames of one video share one.
        landmarks: (N, 5, 2) float32, pixels (x, y) in the loose crop: the eyes as seen from left to right, the nose's
            tip, the corners of the mouth.
        detector_scores: (N,) float32, in [0, 1].
    """

    names: list[str]
    templates: NDArray[np.int64]
    media: NDArray[np.int64]
    landmarks: NDArray[np.float32]
    detector_scores: NDArray[np.float32]


@dataclass(frozen=True)
class IjbPairs:
    """Pairs of templates of the 1:1 protocol: two template ids (M,) int32 each, and is_same (M,) bool."""

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    is_same: NDArray[np.bool_]


@dataclass(frozen=True)
class IjbTemplates:
    """Distinct templates of a gallery or of the probes, (T,) int64, and the subject of each, (T,) int64."""

    templates: NDArray[np.int64]
    subjects: NDArray[np.int64]


@dataclass(frozen=True)
class IjbFiles:
    """Where a set's lists lie; those of a protocol that is not there are None.

    Attributes:
        name: "ijbb" or "ijbc", as the files begin.
        media: NAME_face_tid_mid.txt.
        landmarks: NAME_name_5pts_score.txt.
        pairs: NAME_template_pair_label.txt.
        galleries: NAME_1N_gallery_G1.csv and G2 (IJB-B: S1 and S2).
        probes: NAME_1N_probe_mixed.csv.
    """

    name: str
    media: Path
    landmarks: Path
    pairs: Path | None
    galleries: tuple[Path, Path] | None
    probes: Path | None


def find_ijb(location: str | Path) -> IjbFiles:
    """Looks for a set's lists.

    Raises:
        IjbError: not exactly one set there, or a list that every protocol needs is missing.
    """
    given = Path(location).expanduser()
    folder = given / "meta" if (given / "meta").is_dir() else given
    found = sorted(folder.glob("*_face_tid_mid.txt")) if folder.is_dir() else []
    if len(found) != 1:
        what = f"{len(found)} files *_face_tid_mid.txt" if folder.is_dir() else "no such folder"
        raise IjbError(f"{given}: {what}; {_HELP}")
    name = found[0].name.removesuffix("_face_tid_mid.txt")
    landmarks = folder / f"{name}_name_5pts_score.txt"
    if not landmarks.is_file():
        raise IjbError(f"{landmarks}: no such file, and it names the images; {_HELP}")
    pairs = folder / f"{name}_template_pair_label.txt"
    probes = folder / f"{name}_1N_probe_mixed.csv"
    galleries = None
    for letter in "GS":
        both = (folder / f"{name}_1N_gallery_{letter}1.csv", folder / f"{name}_1N_gallery_{letter}2.csv")
        if all(path.is_file() for path in both):
            galleries = both
    return IjbFiles(
        name,
        found[0],
        landmarks,
        pairs if pairs.is_file() else None,
        galleries,
        probes if probes.is_file() else None,
    )


def read_ijb_images(media: Path, landmarks: Path) -> IjbImages:
    """Reads both lists of images, which have a line for each in the same order.

    `NAME_face_tid_mid.txt`: image, template, media. `NAME_name_5pts_score.txt`: image, x and y of five points, detector
    score. Both separated by spaces, without a header.

    Raises:
        IjbError: a line that does not parse, a number out of range, or lists of different images.
    """
    names: list[str] = []
    ids: list[tuple[int, int]] = []
    for number, words in _lines(media):
        if len(words) != 3 or not all(_is_id(word) for word in words[1:]):
            raise _wrong(media, number, "`image template media`", words)
        names.append(words[0])
        ids.append((int(words[1]), int(words[2])))
    points = np.empty((len(names), 11), dtype=np.float32)
    count = 0
    for number, words in _lines(landmarks):
        if count < len(names) and words[0] != names[count]:
            raise IjbError(
                f"{landmarks}: line {number} is of image {words[0][:80]!r}, and {media.name} has {names[count][:80]!r} "
                "there: both lists must name the same images in the same order"
            )
        if len(words) != 12:
            raise _wrong(landmarks, number, "`image x1 y1 ... x5 y5 score`", words)
        if count < len(names):
            try:
                points[count] = [float(word) for word in words[1:]]
            except (ValueError, OverflowError):
                raise _wrong(landmarks, number, "`image x1 y1 ... x5 y5 score`", words) from None
        count += 1
    if count != len(names) or not names:
        raise IjbError(f"{landmarks}: has {count} lines, {media.name} {len(names)}: they must be of the same images")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1) | (points[:, 10] < 0))
    if len(bad):
        raise IjbError(f"{landmarks}: the numbers of image {names[bad[0]][:80]!r} are not finite, or its score is < 0")
    numbers = np.array(ids, dtype=np.int64)
    return IjbImages(names, numbers[:, 0], numbers[:, 1], points[:, :10].reshape(-1, 5, 2), points[:, 10])


def read_ijb_pairs(path: Path) -> IjbPairs:
    """Reads `NAME_template_pair_label.txt`: two templates and 1 (same subject) or 0 a line, without a header.

    9 bytes a pair are kept: the 15.7 million of IJB-C are 141 MB.

    Raises:
        IjbError: a line that does not parse, or another label than 0 and 1.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file, which is an error of ours
            table = np.loadtxt(path, dtype=_PAIR, comments=None, ndmin=1, encoding="utf-8")
    except (OSError, ValueError, OverflowError) as error:
        raise IjbError(f"{path}: expected `template template label` on every line: {error}") from None
    if not len(table):
        raise IjbError(f"{path}: the list of pairs is empty")
    labels = table["label"]
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if len(wrong):
        raise IjbError(f"{path}: pair {wrong[0] + 1} has label {labels[wrong[0]]}; allowed are 1 (same subject) and 0")
    return IjbPairs(table["first"].copy(), table["second"].copy(), labels == 1)


def read_ijb_templates(path: Path) -> IjbTemplates:
    """Reads a 1:N list, a CSV with a header whose first two columns are the template and its subject.

    The official lists have a row for each image; the rows of a template are one here, in the order of first occurrence.

    Raises:
        IjbError: a row that does not parse, or a template of two subjects.
    """
    subjects: dict[int, int] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = csv.reader(stream)
            next(rows, None)
            for row in rows:
                if not row:
                    continue
                if len(row) < 2 or not (_is_id(row[0].strip()) and _is_id(row[1].strip())):
                    raise _wrong(path, rows.line_num, "`TEMPLATE_ID,SUBJECT_ID,...`", row)
                template, subject = int(row[0]), int(row[1])
                if subjects.setdefault(template, subject) != subject:
                    raise IjbError(
                        f"{path}: line {rows.line_num}: template {template} is of subject {subjects[template]} above "
                        f"and of subject {subject} here"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise IjbError(f"{path}: cannot be read: {error}") from None
    if not subjects:
        raise IjbError(f"{path}: has no row below its header")
    return IjbTemplates(np.array(list(subjects), dtype=np.int64), np.array(list(subjects.values()), dtype=np.int64))


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8") as stream:
            return [(number, words) for number, line in enumerate(stream, start=1) if (words := line.split())]
    except (OSError, UnicodeDecodeError) as error:
        raise IjbError(f"{path}: cannot be read: {error}") from None


def _is_id(word: str) -> bool:
    """Whether int() takes it and it is no id that anyone gave out; isdigit alone accepts superscripts."""
    return word.isascii() and word.isdigit() and len(word) <= 10 and int(word) <= _MAX_ID


def _wrong(path: Path, number: int, expected: str, got: list[str]) -> IjbError:
    return IjbError(f"{path}: line {number}: expected {expected}, got {' '.join(got)[:80]!r}")
