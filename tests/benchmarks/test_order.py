"""The order benchmark: a tiny set through the command, its JSON, and ratios by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.order import OURS, SAMPLERS, THEIRS, figures, main, ratio


def test_the_command_without_the_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARCFACE_TORCH", raising=False)
    assert (
        main(["--images", "5000", "--classes", "50", "--batch", "16", "--rounds", "1", "--results", str(tmp_path)]) == 0
    )
    assert "arcface_torch left out" in capsys.readouterr().out
    written = json.loads((tmp_path / "order.json").read_text(encoding="utf-8"))
    (only,) = written["rounds"][OURS]
    assert only["epoch_seconds"] == pytest.approx(only["batch_seconds"] * (5000 // (8 * 16)))
    assert only["memory_bytes"] >= 0
    assert set(written["rounds"]) == set(SAMPLERS)


def test_ratios_by_hand() -> None:
    assert ratio({OURS: [1.0, 2.0, 4.0], THEIRS: [10.0, 10.0, 10.0]}) == "5.00"
    assert ratio({OURS: [0, 0], THEIRS: [10, 10]}) == "-"


def test_the_table_by_hand() -> None:
    run = {
        "index_seconds": 0.001,
        "first_seconds": 0.002,
        "batch_seconds": 3e-6,
        "epoch_seconds": 4.0,
        "memory_bytes": 2**20,
    }
    theirs = {"first_seconds": 0.02, "batch_seconds": 3e-6, "epoch_seconds": 2.0, "memory_bytes": 2**22}
    lines = figures({OURS: [run], THEIRS: [theirs]}).splitlines()
    assert lines[2] == "| ours | 1 | 2.00 | 3 | 4.0 | 1.0 | 2.00 .. 2.00 | 1 |"
    assert lines[4] == "| arcface_torch / ours |  | 10.00 | 1.00 | 0.50 | 4.00 |  |  |"
