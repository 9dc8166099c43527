"""CFP's protocol folder: two lists of numbered images, and ten folders of same and different pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eval.pair_formats.pair_list import ListedImage, PairList, finish, is_number, read_lines, require_agreement
from eval.safe_pickle import PairError

NUM_FOLDS = 10


def parse_cfp(root: Path, kind: str) -> PairList:
    """Frontal-frontal (FF) or frontal-profile (FP) pairs: Protocol/Split/KIND/01 .. 10 with same.txt and diff.txt.

    A line is `i,j`: image i of Pair_list_F.txt and image j of Pair_list_F.txt (FF) or Pair_list_P.txt (FP), whose lines
    are `i ../Data/Images/001/frontal/01.jpg`. The folder is the fold, the image's number of a person its identity.
    Source: the readme of the set (contents, folds, which list a number belongs to).

    Args:
        root: the folder with Protocol/ and Data/; it is also the folder of images.
        kind: "FF" or "FP".

    Raises:
        PairError: a missing list, a line of another form, a number without an image, a name outside the set, a pair in
            same.txt with two identities or in diff.txt with one; all with the line.
    """
    protocol = root / "Protocol"
    names = ("Pair_list_F.txt", "Pair_list_F.txt" if kind == "FF" else "Pair_list_P.txt")
    lists = [protocol / name for name in dict.fromkeys(names)]
    numbered = {path.name: _numbered_images(path) for path in lists}
    images: list[ListedImage] = []
    flags: list[bool] = []
    sizes: list[int] = []
    for fold in range(1, NUM_FOLDS + 1):
        before = len(flags)
        for file, same in (("same.txt", True), ("diff.txt", False)):
            path = protocol / "Split" / kind / f"{fold:02d}" / file
            for number, words in read_lines(path):
                chosen = _numbers(path, number, "".join(words))
                images += [_image(path, number, i, name, numbered[name]) for i, name in zip(chosen, names, strict=True)]
                flags.append(same)
            lists.append(path)
        sizes.append(len(flags) - before)
    require_agreement(images, flags)
    return finish(images, flags, np.repeat(np.arange(NUM_FOLDS), sizes), lists)


def _numbered_images(path: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for number, words in read_lines(path):
        file = words[1].removeprefix("../") if len(words) == 2 and is_number(words[0]) else ""
        if len(file.split("/")) < 3:
            raise PairError(
                f"{path}: line {number}: expected `1 ../Data/Images/001/frontal/01.jpg`, got {' '.join(words)[:80]!r}"
            )
        found[int(words[0])] = file
    return found


def _numbers(path: Path, number: int, text: str) -> tuple[int, int]:
    words = text.split(",")
    if len(words) != 2 or not all(is_number(word) for word in words):
        raise PairError(f"{path}: line {number}: expected `i,j`, two numbers of images; got {text[:80]!r}")
    return int(words[0]), int(words[1])


def _image(path: Path, number: int, index: int, name: str, numbered: dict[int, str]) -> ListedImage:
    if index not in numbered:
        raise PairError(f"{path}: line {number}: {name} names no image {index}")
    return ListedImage(numbered[index], path, number, numbered[index].split("/")[-3])
