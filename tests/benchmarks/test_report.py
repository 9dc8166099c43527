"""The benchmarks page: order, contents, origins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.measure import save


def fill(folder: Path) -> None:
    save("zebra", "Stripes", "| a |\n|---|\n| 1 |\n", {"commit": "abc"}, folder)
    save("growth", "Growth, by size", "grows", {}, folder)
    save("head", "Head step, cosface", "fast", {"threads": 2, "peer": {"commit": "def", "sha256": "0"}}, folder)
    (folder / "growth.svg").write_text("<svg/>")


def test_sections_stand_in_the_fixed_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    out = tmp_path / "benchmarks.md"
    assert report.main([f"--results={tmp_path}", f"--out={out}"]) == 0
    text = out.read_text()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# Benchmarks", "## Head step, cosface", "## Growth, by size", "## Stripes"]
    assert "- [Head step, cosface](#head-step-cosface)" in text
    assert "[head.json](benchmarks/head.json); threads 2; arcface_torch commit def sha256 0" in text
    assert "[zebra.json](benchmarks/zebra.json); commit abc" in text
    assert "**Method.**" in text
    assert "head, growth, zebra" in capsys.readouterr().out
    before = text
    report.main([f"--results={tmp_path}", f"--out={out}"])
    assert out.read_text() == before


def test_nothing_to_report_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report.main([f"--results={tmp_path}"])
    assert "holds no result" in capsys.readouterr().err


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"other\.json: a result has `title` and `markdown`"):
        report.read_results(tmp_path)
