"""AgeDB's protocols as their authors give them: MATLAB files of ten splits of 600 pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eval.pair_formats.pair_list import ListedImage, PairList, finish, require_agreement
from eval.safe_pickle import PairError
from sources.base import SourceError
from sources.mat_file import MatValue, read_mat_values

_FORM = "expected `splits`, structures with `pairs`, 2 x n structures with `name` (`ID_NAME_..._A_AGE`), and `annot`"


def parse_agedb(path: Path) -> PairList:
    """A protocol such as `04_FINAL_protocol_30_years.mat`, over the images of `03_Protocol_Images`.

    The variable `splits` holds the folds. In each, `pairs` has one structure per image, two rows by one column per
    pair, and `annot` is 1 for a pair of one person. An image is `name` + `.jpg`, its identity the number `name` begins
    with. `age` is not read: it is the end of `name`.
    Source: the reader that insightface made agedb_30.bin with (pairs, image files, identities; it writes the pairs in
    this order, so the .bin's ten blocks are these folds), and a public study of the protocols (`annot`).

    Raises:
        PairError: no such file, another structure, a name of another form, a flag that contradicts the names; with
            split and pair.
    """
    try:
        splits = read_mat_values(path, ("splits",))["splits"]
    except (SourceError, OSError) as error:
        raise PairError(f"{path}: the pair list cannot be read: {error}; {_FORM}") from error
    images: list[ListedImage] = []
    flags: list[bool] = []
    sizes: list[int] = []
    for number, split in enumerate(_items(splits), start=1):
        place = f"split {number}"
        pairs, annotations = (_field(path, place, split, field) for field in ("pairs", "annot"))
        if not isinstance(pairs, np.ndarray) or pairs.dtype != object or pairs.shape[0] != 2:
            raise PairError(f"{path}: {place}: pairs is no array of two rows of structures; {_FORM}")
        if not isinstance(annotations, np.ndarray) or annotations.dtype == object:
            raise PairError(f"{path}: {place}: annot is no array of numbers; {_FORM}")
        listed, is_same = _items(pairs), annotations.reshape(-1)
        if len(listed) != 2 * len(is_same) or not listed:
            raise PairError(f"{path}: {place}: {len(listed)} images and {len(is_same)} numbers in annot; {_FORM}")
        for index, image in enumerate(listed):
            where = f"{place}, pair {index // 2 + 1}"
            images.append(_image(path, where, _field(path, where, image, "name")))
        flags += (is_same == 1).tolist()
        sizes.append(len(is_same))
    require_agreement(images, flags)
    return finish(images, flags, np.repeat(np.arange(len(sizes)), sizes), (path,))


def _items(value: MatValue) -> list[MatValue]:
    """Elements of a cell or of an array of structures, column after column; one structure is one element."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return list(value.reshape(-1, order="F"))
    return [value]


def _field(path: Path, where: str, value: MatValue, name: str) -> MatValue:
    if not isinstance(value, dict) or name not in value:
        raise PairError(f"{path}: {where}: there is no {name}; {_FORM}")
    return value[name]


def _image(path: Path, where: str, name: MatValue) -> ListedImage:
    identity, separator, rest = name.partition("_") if isinstance(name, str) else ("", "", "")
    if not (identity.isascii() and identity.isdigit() and separator and rest):
        raise PairError(f"{path}: {where}: the name is {str(name)[:80]!r}; {_FORM}")
    return ListedImage(f"{name}.jpg", path, where, identity)
