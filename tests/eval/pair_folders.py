"""Benchmarks as they are distributed, made small: lists in their own formats over made-up images. No tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

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
