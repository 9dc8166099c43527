"""The verification benchmark: its pair files, the tiny command without the peer, and its table by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.verification import EACH, OURS, THEIRS, figures, first_of_each, main, pair_file
from eval.pairs import load_bin
from tests.data import SHARED, needs_lfw


def test_without_lfw_faces_are_drawn_and_ours_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARCFACE_TORCH", raising=False)
    arguments = ["--data", str(tmp_path / "none"), "--pairs", "20", "--rounds", "1", "--threads", "1"]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    assert "arcface_torch left out" in capsys.readouterr().out
    written = json.loads((tmp_path / "verification.json").read_text(encoding="utf-8"))
    assert set(written["rounds"]) == set(written["twice"]) == {OURS, EACH}
    ours, each = (written["rounds"][name][0] for name in (OURS, EACH))
    assert ours["accuracy"] == each["accuracy"]
    assert each["images"] == 40
    assert ours["images"] <= 40


@needs_lfw
def test_half_of_lfw_pairs_are_the_same_person(tmp_path: Path) -> None:
    pair_set = load_bin(pair_file(tmp_path, SHARED / "lfw", 40))
    assert pair_set.is_same.tolist() == [True, False] * 20


def test_the_table_by_hand() -> None:
    ours = [{"seconds": s, "net_seconds": 1.0, "memory_bytes": 2**20, "accuracy": 0.9} for s in (2.0, 4.0, 5.0)]
    theirs = [{"seconds": s, "memory_bytes": 2**23, "accuracy": 0.9} for s in (10.0, 10.0, 10.0)]
    lines = figures({OURS: ours, THEIRS: theirs}, {OURS: 2**20, THEIRS: 2**24}).splitlines()
    assert lines[2] == "| ours | 4.00 | 2.00 .. 5.00 | 2.50 | 25% | 1 | 1 | 0.9000 |"
    assert lines[3] == "| arcface_torch | 10.00 | 10.00 .. 10.00 | 1.00 | - | 8 | 16 | 0.9000 |"


def test_interpolation_takes_the_first_of_equal_rates() -> None:
    line = first_of_each(np.array([0.0, 0.0, 0.5, 1.0]), np.array([1.0, 2.0, 3.0, 4.0]), "slinear")
    assert line(0.0) == 1.0
    assert line(0.25) == 2.0
