"""Benchmarks as they are distributed, made small: lists in their own formats over made-up images. No tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from eval.pairs import write_bin
from tests.eval.faces import face, jpeg_pairs
from utils.images import encode_jpeg


def write_image(path: Path, identity: int, shot: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(face(identity, shot)))


def write_flagged(folder: Path, name: str, images: str, flags: Sequence[int], per_kind: int, pattern: str) -> None:
    """CALFW and CPLFW: all same pairs first, then all different ones; `flags` are those of the same pairs."""
    lines = []
    for pair in range(per_kind):
        for shot in (1, 2):
            write_image(folder / images / pattern.format(pair, shot), pair, shot)
            lines.append(f"{pattern.format(pair, shot)} {flags[pair]}")
    for pair in range(per_kind):
        lines += [f"{pattern.format(pair, 1)} 0", f"{pattern.format((pair + 1) % per_kind, 2)} 0"]
    (folder / name).write_text("\n".join(lines) + "\n")


def write_cfp(root: Path, same_per_fold: int = 2, different_per_fold: int = 1) -> None:
    """Two people a fold, three frontal images and two profiles each."""
    frontal, profile = [], []
    for person in range(20):
        for shot in range(3):
            frontal.append((person, f"Data/Images/{person + 1:03d}/frontal/{shot + 1:02d}.jpg"))
        for shot in range(2):
            profile.append((person, f"Data/Images/{person + 1:03d}/profile/{shot + 1:02d}.jpg"))
    for listed, name in ((frontal, "Pair_list_F.txt"), (profile, "Pair_list_P.txt")):
        for shot, (person, file) in enumerate(listed):
            write_image(root / file, person, shot)
        (root / "Protocol").mkdir(parents=True, exist_ok=True)
        lines = [f"{i} ../{file}" for i, (_, file) in enumerate(listed, start=1)]
        (root / "Protocol" / name).write_text("\n".join(lines) + "\n")
    for kind, second, per_person in (("FF", frontal, 3), ("FP", profile, 2)):
        for fold in range(10):
            one, other = 2 * fold, 2 * fold + 1
            same = [f"{3 * one + 1},{per_person * one + 2}", f"{3 * other + 1},{per_person * other + 2}"]
            different = [f"{3 * one + 1},{per_person * other + 1}"]
            assert len(second) == 20 * per_person
            place = root / "Protocol" / "Split" / kind / f"{fold + 1:02d}"
            place.mkdir(parents=True)
            (place / "same.txt").write_text("\n".join(same[:same_per_fold]) + "\n")
            (place / "diff.txt").write_text("\n".join(different[:different_per_fold]) + "\n")


def write_agedb(root: Path, years: int = 30, splits: int = 10, *, as_cells: bool = True) -> None:
    """Two same and two different pairs a split, of three people, in the structure of AgeDB's protocols."""
    folds = [_agedb_split(root, 3 * number, as_cells) for number in range(splits)]
    content = _cell((splits, 1), folds) if as_cells else np.array([tuple(fold.values()) for fold in folds], _SPLIT)
    scipy.io.savemat(root / f"04_FINAL_protocol_{years}_years.mat", {"splits": content}, do_compression=True)


_SPLIT = [("pairs", object), ("annot", object)]


def _agedb_split(root: Path, first: int, as_cells: bool) -> dict[str, Any]:
    names = []
    for person in range(first, first + 3):
        for shot, age in ((1, 20), (2, 50)):
            names.append(f"{person}_NameOf{person}_{shot}_A_{age}")
            write_image(root / "03_Protocol_Images" / f"{names[-1]}.jpg", person, shot)
    chosen = [names[i] for i in (0, 1, 2, 3, 0, 3, 2, 5)]  # two rows, column after column
    images: Any = [{"name": name, "age": float(name[-2:])} for name in chosen]
    if not as_cells:
        images = [tuple(image.values()) for image in images]
        pairs = np.array(images, [("name", object), ("age", object)]).reshape((2, 4), order="F")
        return {"pairs": pairs, "annot": np.array([[1, 1, 0, 0]], np.uint8)}
    return {"pairs": _cell((2, 4), images), "annot": np.array([[1.0], [1.0], [0.0], [0.0]])}


def _cell(shape: tuple[int, int], values: Sequence[Any]) -> np.ndarray:
    cell = np.empty(len(values), object)
    for place, value in enumerate(values):
        cell[place] = value
    return cell.reshape(shape, order="F")


def write_rfw_lists(root: Path, groups: Sequence[str]) -> None:
    """Twenty pairs a group, same and different ones in turn, in the layout of RFW's test.tar."""
    for group in groups:
        people = [f"m.0{group[:2].lower()}{i}" for i in range(11)]
        for number, person in enumerate(people):
            for shot in (1, 2):
                write_image(root / "data" / group / person / f"{person}_{shot:04d}.jpg", number, shot)
        lines = [line for a, b in pairwise(people) for line in (f"{a}\t1\t2", f"{a}\t2\t{b}\t1")]
        (root / "txts" / group).mkdir(parents=True)
        (root / "txts" / group / f"{group}_pairs.txt").write_text("\n".join(lines) + "\n")


def write_rfw_bins(root: Path, groups: Sequence[str], num_pairs: int = 6) -> None:
    root.mkdir(exist_ok=True)
    for group in groups:
        write_bin(root / f"{group}_test.bin", *jpeg_pairs(num_pairs))
