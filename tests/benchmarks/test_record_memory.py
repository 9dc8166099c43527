"""The memory benchmark: every command of tools.records runs on what it needs, a process is seen at its largest."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import record_memory
from tools.records import COMMANDS
from tools.records import main as records


def in_this_process(command: Sequence[str], folder: Path) -> int:
    """What `peak` runs, without the seconds that eighteen new processes would take."""
    assert command[:3] == [sys.executable, "-m", "tools.records"]
    if command[3] != "--help":
        assert records(command[3:]) == 0, f"{command} failed in {folder}"
    return 1 << 20


def test_every_command_runs_on_a_small_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {command.__name__.rpartition(".")[2] for command in COMMANDS}
    assert set(record_memory.COMMANDS) == names
    monkeypatch.setattr(record_memory, "peak", in_this_process)
    record_memory.main(["--images=60", "--records=200", "--factor=2", f"--results={tmp_path}"])
    result = json.loads((tmp_path / "record_memory.json").read_text())
    peaks = result["peak_bytes"]
    assert list(peaks) == ["60", "120", "200", "400"]
    assert set(peaks["60"]) == set(peaks["120"]) == {"--help", *names}
    assert set(peaks["200"]) == {"--help", *record_memory.WITHOUT_DECODING}
    assert "| verify | 60 | 1 | 120 | 1 | 0 |" in capsys.readouterr().out


def test_memory_that_is_held_for_a_moment_is_counted(tmp_path: Path) -> None:
    hold = "import time; block = b'x' * (64 << 20); time.sleep(0.5)"
    assert 64 << 20 <= record_memory.peak([sys.executable, "-c", hold], tmp_path) < 128 << 20


def test_a_command_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"ended with status 1:\n.*no photographs today"):
        record_memory.peak([sys.executable, "-c", "raise SystemExit('no photographs today')"], tmp_path)
