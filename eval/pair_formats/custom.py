"""Lists of one's own: a line per pair, two images, whether they are the same identity, and perhaps the fold."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.pair_formats.pair_list import Lines, ListedImage, PairList, blocks, finish, is_number
from eval.safe_pickle import PairError

FLAGS = {"1": True, "true": True, "same": True, "0": False, "-1": False, "false": False, "different": False}
_FORM = "image, image, is_same (1/0, true/false, same/different) and perhaps a fold (a whole number)"


def parse_csv(path: Path) -> PairList:
    """Comma-separated lines; a first line whose third word is no flag is a header. Otherwise as parse_rows."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [
            (number, [word.strip() for word in row])
            for number, row in enumerate(csv.reader(io.StringIO(text)), start=1)
            if any(word.strip() for word in row)
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PairError(f"{path}: the pair list cannot be read: {error}") from error
    if rows and len(rows[0][1]) >= 3 and rows[0][1][2].lower() == "is_same":
        rows = rows[1:]
    if not rows:
        raise PairError(f"{path}: the pair list is empty")
    return parse_rows(path, rows)


def parse_rows(path: Path, rows: Lines) -> PairList:
    """Lines of `image image is_same` or `image image is_same fold`; all have a fold, or none has.

    Folds may be any whole numbers; they count in the order of their size. Without them: ten contiguous blocks. The
    identity of an image is its folder; images that lie directly in the folder of images have none.

    Raises:
        PairError: a line of another form; folds on some lines only.
    """
    images: list[ListedImage] = []
    flags: list[bool] = []
    for number, words in rows:
        sound = len(words) == len(rows[0][1]) in (3, 4) and words[2].lower() in FLAGS and words[0] and words[1]
        if not sound or (len(words) == 4 and not is_number(words[3])):
            same_form = "" if number == rows[0][0] else ", as many words on every line"
            raise PairError(f"{path}: line {number}: expected {_FORM}{same_form}; got {' '.join(words)[:80]!r}")
        for file in words[:2]:
            images.append(ListedImage(file, path, number, file.rpartition("/")[0]))
        flags.append(FLAGS[words[2].lower()])
    return finish(images, flags, _folds(rows), (path,))


def _folds(rows: Lines) -> NDArray[np.int64]:
    if len(rows[0][1]) == 3:
        return blocks(len(rows))
    given = np.array([int(words[3]) for _, words in rows], dtype=np.int64)
    return np.unique(given, return_inverse=True)[1].astype(np.int64)
