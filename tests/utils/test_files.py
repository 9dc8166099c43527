"""Whole files: the new one or the old one, never a piece."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from utils.files import whole_file, write_text_whole


def test_the_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with whole_file(path) as stream:
        torch.save({"weight": torch.ones(2)}, stream)
    with pytest.raises(Exception, match="pickle"), whole_file(path) as stream:
        torch.save({"weight": lambda: None}, stream)
    assert torch.load(path, weights_only=True)["weight"].tolist() == [1.0, 1.0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]


def test_nothing_has_the_name_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with whole_file(path) as stream:
        stream.write(b"half")
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"


def test_text_replaces_text(tmp_path: Path) -> None:
    write_text_whole("a", tmp_path / "a.txt")
    write_text_whole("ä", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ä"
