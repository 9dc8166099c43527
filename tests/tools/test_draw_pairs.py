"""Pairs drawn from a folder: balanced, distinct, in folds that share nobody; what cannot be drawn is said."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tools.draw_pairs import DrawError, draw_pairs, main

LABELS = np.repeat(np.arange(20), [1, 9, 3, 3, 12, 4, 4, 3, 2, 5] * 2)


@pytest.mark.parametrize(("num_pairs", "num_folds"), [(40, 10), (60, 3), (60, 1), (2, 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_are_what_they_say(num_pairs: int, num_folds: int, seed: int) -> None:
    pairs = draw_pairs(LABELS, num_pairs=num_pairs, num_folds=num_folds, seed=seed)
    assert len(pairs) == num_pairs
    assert len({frozenset((pair.first, pair.second)) for pair in pairs}) == num_pairs
    folds_of_person: dict[int, set[int]] = {}
    for pair in pairs:
        assert pair.first != pair.second
        assert (LABELS[pair.first] == LABELS[pair.second]) == pair.is_same
        for image in (pair.first, pair.second):
            folds_of_person.setdefault(int(LABELS[image]), set()).add(pair.fold)
    assert all(len(folds) == 1 for folds in folds_of_person.values())
    kinds = Counter((pair.fold, pair.is_same) for pair in pairs)
    assert set(kinds.values()) == {num_pairs // num_folds // 2}
    order = [(pair.fold, not pair.is_same) for pair in pairs]
    assert order == sorted(order)


def test_the_seed_decides() -> None:
    first = draw_pairs(LABELS, num_pairs=40, num_folds=2, seed=3)
    assert first == draw_pairs(LABELS, num_pairs=40, num_folds=2, seed=3)
    assert first != draw_pairs(LABELS, num_pairs=40, num_folds=2, seed=4)


def test_nobody_with_many_images_makes_up_the_set() -> None:
    labels = np.repeat(np.arange(11), [100] + [3] * 10)
    pairs = draw_pairs(labels, num_pairs=44, num_folds=1)
    shares = Counter(int(labels[pair.first]) for pair in pairs if pair.is_same)
    assert set(shares.values()) == {2}


def test_all_pairs_there_are_can_be_drawn() -> None:
    pairs = draw_pairs(np.array([0, 0, 1, 1]), num_pairs=4, num_folds=1)
    assert {(pair.first, pair.second) for pair in pairs if pair.is_same} == {(0, 1), (2, 3)}
    everything = draw_pairs(np.array([0, 0, 0, 1, 1, -1]), num_pairs=8, num_folds=1)
    assert all(pair.first != 5 and pair.second != 5 for pair in everything)


@pytest.mark.parametrize(
    ("labels", "num_pairs", "num_folds", "words"),
    [
        (LABELS, 41, 10, "a multiple of 20"),
        (LABELS, 40, 0, "a multiple of 2"),
        (np.array([0, 0, 1, 1]), 6, 1, "make 2 pairs of one person; 3 are wanted: fewer --pairs"),
        (np.array([0, 0, 0]), 2, 1, "make 0 pairs of two; 1 are wanted"),
        (np.array([0, 0, 1, 2]), 4, 2, "make 0 pairs of one person"),
    ],
)
def test_what_cannot_be_drawn(labels: np.ndarray, num_pairs: int, num_folds: int, words: str) -> None:
    with pytest.raises(DrawError, match=words.replace("(", r"\(")):
        draw_pairs(labels, num_pairs=num_pairs, num_folds=num_folds)


def people(folder: Path) -> Path:
    for person in ("Ann, the first", "Bob", "Cid", "Dan"):
        (folder / person).mkdir(parents=True)
        for shot in range(3):
            (folder / person / f"{shot}.jpg").write_bytes(b"never opened")
    return folder


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = people(tmp_path / "faces")
    assert main([str(folder), "--pairs", "8", "--folds", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["pairs"] == 8
    assert "8 pairs in 2 folds, from 4 people" in err
    lines = (folder / "pairs.csv").read_text().splitlines()
    assert lines[0] == "first,second,is_same,fold"
    assert len(lines) == 9
    assert any(line.startswith('"Ann, the first/') for line in lines)
    assert main([str(folder)]) == 2
    assert "already there" in capsys.readouterr().err
    assert main([str(folder), "--overwrite"]) == 2
    assert "fewer --pairs" in capsys.readouterr().err
    assert len((folder / "pairs.csv").read_text().splitlines()) == 9
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
