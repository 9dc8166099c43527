"""The growth benchmark: its rows, exponents against hand-made ones, what does not fit, the same plot twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import growth

SMALL = ["--dim=16", "--batch=8", "--steps=1", "--threads=1", "--sampled=50"]


def test_exponents_by_hand() -> None:
    assert growth.exponent([1, 10, 100], [2, 20, 200]) == pytest.approx(1)
    assert growth.exponent([1, 10, 100], [3, 3, 3]) == pytest.approx(0)
    assert growth.exponent([1, 4], [1, 2]) == pytest.approx(0.5)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert growth.main(["--classes=100,50,200", *SMALL, f"--out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "growth.json").read_text())
    rows = [(row["classes"], row["active_classes"], row["is_sampled"]) for row in found["rows"]]
    assert rows == [(50, 50, False), (100, 100, False), (100, 50, True), (200, 200, False), (200, 50, True)]
    assert [row["gradient_bytes"] for row in found["rows"]] == [active * 16 * 4 for _, active, _ in rows]
    plot = (tmp_path / "growth.svg").read_text()
    assert plot == growth.drawn(found["rows"])
    assert plot.startswith("<?xml")
    assert "With 50 sampled classes" in found["markdown"]
    assert "(benchmarks/growth.svg)" in found["markdown"]
    assert found["markdown"] in capsys.readouterr().out


def test_what_does_not_fit_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "free_bytes", lambda: (1 << 30) + 100 * 16 * 4 * 3)
    assert growth.main(["--classes=100", *SMALL, f"--out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "growth.json").read_text())
    assert [row["is_sampled"] for row in found["rows"]] == [True]
    assert "Left out: 100 classes need 1.0 GiB, 1.0 are free." in found["markdown"]
    monkeypatch.setattr(growth, "free_bytes", lambda: 0)
    with pytest.raises(SystemExit):
        growth.main(["--classes=100", *SMALL, f"--out={tmp_path}"])


def test_free_memory_is_known() -> None:
    assert growth.free_bytes() > 1 << 20
