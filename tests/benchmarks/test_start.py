"""The start benchmark: its record set, its log reading, its arithmetic; train.py itself is not timed here."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import start
from sources import open_source


def test_the_set_fills_two_batches(tmp_path: Path) -> None:
    source = open_source(str(start.draw_records(tmp_path / "data")))
    assert (len(source), source.num_classes) == (128, 16)


def test_moments_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that took 5 s to its first step and 2 s for the second spent 3 s on starting."""

    def pretend(_: object) -> float:
        lines = ['{"kind": "verification", "time": 101.0}', '{"kind": "train", "time": 105.0}']
        (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "train", "time": 107.0}']))
        (tmp_path / "config.json").write_text("{}")
        return 0.0

    monkeypatch.setattr(start, "run", pretend)
    monkeypatch.setattr(start.time, "time", lambda: 100.0)
    built: list[float] = []
    prepared: list[float] = []
    assert start.first_step("c", tmp_path, tmp_path, built, prepared) == 5.0
    assert prepared == [3.0]
    assert built == [pytest.approx((tmp_path / "config.json").stat().st_mtime - 100.0)]


def test_what_is_beyond_torch_by_hand() -> None:
    text = start.figures({start.TORCH: [2.0, 1.0, 4.0], start.STEP: [5.0, 6.0, 8.0]})
    assert f"| {start.STEP} | 6.00 | 5.00 .. 8.00 | 4.00 | 2.50 |" in text


def test_imports_by_package() -> None:
    found = start.slowest_imports(["-c", "import json.decoder, email.message"], count=50)
    assert {"json", "email"} <= set(found)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_failing_child_tells_why() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        start.run(["-c", "raise SystemExit('no such thing')"])
