"""The long run's arithmetic by hand, what a look at a process sees, and the command itself on a few steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import long_run
from benchmarks.process_tree import find_tree, folder_bytes, sample

ROW = dict.fromkeys([*long_run.SERIES, *long_run.GROWING], 7.0)
# Opens 5 files, starts 2 threads, touches 64 MiB, forks a child, and says so.
PROGRAM = """
import os, sys, threading, time
files = [open(os.devnull) for _ in range(5)]
block = bytearray(os.urandom(1)) * (64 << 20) if sys.argv[1] == "more" else None
for _ in range(2):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
if os.fork() == 0:
    time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_line_through_points() -> None:
    assert long_run.fitted([(0, 1), (1, 3), (2, 5)]) == pytest.approx((2, 0))
    slope, error = long_run.fitted([(0, 0), (1, 1), (2, 0), (3, 1)])
    assert slope == pytest.approx(0.2)
    assert error == pytest.approx(np.sqrt(0.8 / 2 / 5))


def rows(count: int, leak: float = 0.0) -> list[dict[str, float]]:
    return [{**ROW, "step": 10.0 * at, "files": 30 + leak * 10 * at} for at in range(count)]


def test_what_stays_is_flat_and_a_leak_shows() -> None:
    steps = [{"step": 10 * at, "step_seconds": 0.5} for at in range(1, 101)]
    flat = long_run.summarize(rows(100), steps)
    assert flat.keys() == long_run.SERIES.keys()
    assert flat["files"] == {"first": 30, "last": 30, "largest": 30, "slope": 0, "slope_error": 0}
    leaking = long_run.summarize(rows(100, leak=0.01), steps)["files"]
    assert leaking["slope"] == pytest.approx(10)  # handles per 1,000 steps
    assert leaking["last"] - leaking["first"] == pytest.approx(0.01 * 1000 * 0.9 * 0.75, rel=0.1)
    with pytest.raises(RuntimeError, match="too few, take more steps"):
        long_run.summarize(rows(8), steps)


def test_many_rows_become_few() -> None:
    few = long_run.thinned(rows(1000, leak=1), most=10)
    assert len(few) == 10
    assert few[0]["files"] == 30 + 10 * 49.5
    assert long_run.thinned(few) == few


def test_the_same_figures_draw_the_same_plot() -> None:
    steps = [{"step": 10 * at, "step_seconds": 0.5} for at in range(1, 101)]
    plot = long_run.drawn(rows(20), steps)
    assert plot == long_run.drawn(rows(20), steps)
    assert "readers, resident, MiB" in plot


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_look_sees_memory_handles_threads_and_children(tmp_path: Path) -> None:
    found = []
    for kind in ("less", "more"):
        with subprocess.Popen([sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            look, tree = sample(process.pid, tmp_path), find_tree(process.pid)
            assert look is not None
            found.append(look)
            assert tree.ranks == [process.pid]
            for reader in tree.readers:
                subprocess.run(["kill", str(reader)], check=True)
            process.kill()
        assert len(tree.readers) == 1
        assert (look["ranks"], look["readers"]) == (1, 1)
        assert look["rank_threads"] == 3
        assert look["reader_threads"] == 1
        assert look["threads"] == 4
        assert look["rank_files"] == look["reader_files"] == 3 + 5
        assert sample(process.pid, tmp_path) is None
    for name in ("rank_rss_bytes", "reader_rss_bytes", "anonymous_bytes"):
        # The child shares its parent's pages: each has them, all together once.
        assert found[1][name] - found[0][name] == pytest.approx(64 << 20, rel=0.05), name


def test_a_folder_by_what_is_in_it(tmp_path: Path) -> None:
    for name, size in {
        "metrics.jsonl": 1, "training.log": 2, "training.log.1": 4, "checkpoints/step_1/a": 8, "checkpoints/.x/b": 16,
        "tensorboard/events": 32, "model.pt": 64,
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert folder_bytes(tmp_path) == {
        "checkpoint_bytes": 24, "board_bytes": 32, "metrics_bytes": 1, "text_bytes": 6, "other_bytes": 64,
        "disk_bytes": 127,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--steps=100", "--epoch=50", "--verbose=50", "--save=25", "--every=0.05", "--batch=2", "--workers=1"]
    assert long_run.main([*arguments, "--keys", "threads=1", "frequent=5", f"--out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "long_run.json").read_text())
    assert found["figures"].keys() == long_run.SERIES.keys()
    assert found["figures"]["files"]["last"] > 10
    assert found["figures"]["checkpoint_bytes"]["last"] > 100_000
    assert 50 < found["bytes_per_step"]["metrics_bytes"] < 200
    assert found["step_seconds"][-1]["step"] == 100
    assert all(row["readers"] == 1 for row in found["rows"])
    assert (tmp_path / "long_run.svg").read_text().startswith("<?xml")
    assert found["markdown"] in capsys.readouterr().out
