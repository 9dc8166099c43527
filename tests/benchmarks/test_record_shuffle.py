"""The shuffle benchmark: contestants do what they say, and the table names them all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import record_shuffle
from utils.recordio import RecordReader


def test_a_small_run_writes_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record_shuffle, "run_child", lambda *_, **__: {"peak": 1 << 20})
    monkeypatch.setattr(record_shuffle, "PASSES", {"one": ("keep", 1 << 30), "two": ("plain", 1 << 12)})
    record_shuffle.main(["--images=300", "--bytes=200", "--rounds=1", f"--results={tmp_path}"])
    result = json.loads((tmp_path / "record_shuffle.json").read_text())
    assert set(result["bytes_per_second"]) == {"plain copy", "one", "two"}
    assert (result["records"], result["title"][:9]) == (304, "Shuffling")
    assert "| plain copy |" in capsys.readouterr().out


def test_the_copy_is_a_copy(tmp_path: Path) -> None:
    record_shuffle.make_set(tmp_path, 50, 100)
    record_shuffle.copy(tmp_path / "train.rec", tmp_path / "copy.rec")
    assert (tmp_path / "copy.rec").read_bytes() == (tmp_path / "train.rec").read_bytes()
    with RecordReader(tmp_path / "train.rec") as reader:
        assert len(reader.image_keys) == 50
