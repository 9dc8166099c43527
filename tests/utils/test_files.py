"""Whole files: the new one or the old one, never a piece."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from utils.files import lock_folder, remove_partial, unlock_folder, whole_file, write_text_whole

ROOT = Path(__file__).resolve().parents[2]


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


def test_a_folder_is_one_process_s_alone_until_it_ends(tmp_path: Path) -> None:
    held = lock_folder(tmp_path)
    assert held is not None
    asks = f"from pathlib import Path; from utils.files import lock_folder; lock_folder(Path({str(tmp_path)!r}))"
    refused = subprocess.run([sys.executable, "-c", asks], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert f"BlockingIOError: [Errno 11] {tmp_path} is in use by another run" in refused.stderr
    held.close()
    assert subprocess.run([sys.executable, "-c", asks], cwd=ROOT, timeout=60).returncode == 0


def test_a_lock_that_went_while_it_was_opened_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl", reason="no locks of this kind on this system")
    lockf, inodes = fcntl.lockf, []

    def late(stream: BinaryIO, operation: int) -> None:
        inodes.append(os.fstat(stream.fileno()).st_ino)
        if len(inodes) <= 2:  # its holder lets go between opening and locking; the second time another one is there
            (tmp_path / ".lock").unlink()
            if len(inodes) == 2:
                (tmp_path / ".lock").touch()
        lockf(stream, operation)

    monkeypatch.setattr(fcntl, "lockf", late)
    held = lock_folder(tmp_path)
    assert held is not None
    assert len(inodes) == 3
    assert os.fstat(held.fileno()).st_ino == (tmp_path / ".lock").stat().st_ino
    unlock_folder(tmp_path, held)
    assert held.closed
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".model.pt.123.partial").write_bytes(b"half")
    (tmp_path / ".lock").touch()
    (tmp_path / "model.pt").touch()
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "model.pt"]
