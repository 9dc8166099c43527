"""The files of a run's log: what a line holds, what a resumed run drops, how they end, and what a full disk does."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from utils.logging import PATIENCE, RunLog, trim_metrics

# TensorBoard's thread dies where it cannot write; the log goes on without it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: like a full disk, it first takes what still fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_log_writes_text_metrics_and_tensorboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, is_main=True, total_steps=10) as log:
        log.info("first\nsecond")
        log.metrics("train", step=3, epoch=0, loss=1.5, grad_norm=float("inf"))
        log.metrics("verification", step=3, epoch=0, dataset="lfw", protocol="exact", tar_at_far={0.1: 0.5})
        log.advance(3)
        log.sync()
    assert capsys.readouterr().out == "first\nsecond\n"
    assert [line[20:] for line in (tmp_path / "training.log").read_text().splitlines()] == ["first", "second"]
    train, verification = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert list(train) == ["kind", "time", "step", "epoch", "loss", "grad_norm"]
    assert (train["kind"], train["step"], train["loss"], train["grad_norm"]) == ("train", 3, 1.5, None)
    assert verification["tar_at_far"] == {"0.1": 0.5}
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_other_ranks_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path / "run", is_main=False, total_steps=1) as log:
        log.info("x")
        log.metrics("train", step=1, epoch=0)
        log.advance(1)
        log.sync()
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_bar_only_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], is_terminal: bool) -> None:
    with RunLog(tmp_path, is_main=True, total_steps=4, first_step=1, is_terminal=is_terminal) as log:
        log.advance(4)
    assert ("4/4" in capsys.readouterr().err) is is_terminal


def test_resumed_run_drops_what_no_checkpoint_holds(tmp_path: Path) -> None:
    lines = [json.dumps({"kind": "train", "step": step}) for step in (1, 2, 3, 4)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "tra']))
    assert trim_metrics(tmp_path, 2) == 3
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert trim_metrics(tmp_path, 2) == 0
    assert trim_metrics(tmp_path / "nowhere", 2) == 0


def test_lines_of_another_way_of_counting_stay(tmp_path: Path) -> None:
    """Resumed at step 100 as step 50, since the batch is twice as large; then again from step 60."""
    steps = [*range(10, 101, 10), 55, 60, 65, 70]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in steps))
    assert trim_metrics(tmp_path, 60) == 2
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == steps[:-2]


DAMAGED_STEPS = ["null", '"1"', "[1]", "true", "NaN", "1e999", "1.0", "9" * 5000, "9" * 500, "[" * 100_000]
DAMAGED = [f'{{"step": {step}}}\n' for step in DAMAGED_STEPS] + ["\udcff" * 5 + "\n", "1\n"]


@pytest.mark.parametrize("end", [*DAMAGED, "", "{}\n", "[1]\n", "\0" * 3_000_000, "\0" * 3_000_000 + "\n"])
def test_damage_at_the_end_is_dropped(tmp_path: Path, end: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + end, errors="surrogateescape")
    assert trim_metrics(tmp_path, 5) == bool(end)
    assert path.read_text() == '{"step": 1}\n'
    assert trim_metrics(tmp_path, -1) == 1
    assert path.read_text() == ""


def test_a_metrics_file_of_any_size_is_cut_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    block = "".join(json.dumps({"kind": "train", "step": step, "x": "y" * 200}) + "\n" for step in range(4096))
    with path.open("w") as file:
        for _ in range(128):  # 136 MB
            file.write(block)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert trim_metrics(tmp_path, 4000) == 95
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32 << 10, "KiB"
    with path.open("rb") as file:
        file.seek(-300, os.SEEK_END)
        assert json.loads(file.read().splitlines()[-1])["step"] == 4000
    path.unlink()  # pytest would keep it


def test_the_log_rotates_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    for part in range(3):
        with RunLog(tmp_path, is_main=True, total_steps=10, max_log_size=1) as log:
            for number in range(2000):
                log.info(f"part {part} line {number} " + "x" * 300)
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("training.log*")}
    assert sizes.keys() == {"training.log", "training.log.1"}
    assert all(size <= 1 << 20 for size in sizes.values())
    lines = [line for name in ("training.log.1", "training.log") for line in (tmp_path / name).read_text().splitlines()]
    words = [tuple(line.split()[3:6:2]) for line in lines]
    everything = [(str(part), str(number)) for part in range(3) for number in range(2000)]
    assert words == everything[-len(words) :], "lines follow each other without a gap"
    assert len(words) > 3000


def test_a_torn_last_line_is_removed_before_new_ones(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste')
    with RunLog(tmp_path, is_main=True, total_steps=10) as log:
        log.metrics("train", step=2, epoch=0)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_a_disk_that_fills_is_told_once_and_lines_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, is_main=True, total_steps=100) as log:
        log.metrics("train", step=1, epoch=0, loss=1.0)
        size = (tmp_path / "metrics.jsonl").stat().st_size
        with full_disk(size + 20):
            for step in range(2, 6):
                log.metrics("train", step=step, epoch=0, loss=1.0)
                log.info(f"step {step}")
                log.advance(step)
            log.sync()
            assert (tmp_path / "metrics.jsonl").stat().st_size == size, "no torn line"
        assert log.failure is None
        log.advance(6)
    error = capsys.readouterr().err
    assert error.count("the log cannot be written: No space left on device. Training goes on and tries again") == 1
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
        4,
        5,
    ]
    text = (tmp_path / "training.log").read_text()
    assert [line[20:] for line in text.splitlines()][-5:-1] == [f"step {step}" for step in range(2, 6)]
    assert "the log can be written again, after 0 s; 0 of its lines are lost" in text


def test_a_disk_that_stays_full_asks_for_a_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    (tmp_path / "training.log").symlink_to("/dev/full")
    with RunLog(tmp_path, is_main=True, total_steps=100, clock=lambda: now[0]) as log:
        log.info("before")
        now[0] = PATIENCE - 1
        log.advance(1)
        assert log.failure is None
        now[0] = PATIENCE
        log.advance(2)
        assert log.failure == f"{tmp_path}: the log cannot be written: No space left on device"
        log.metrics("train", step=2, epoch=0)  # and what can be written still is
    assert capsys.readouterr().err.count("for 30 s: stopping") == 1
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1


def test_what_waits_for_a_full_disk_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "training.log").symlink_to("/dev/full")
    with RunLog(tmp_path, is_main=True, total_steps=100) as log:
        for _ in range(30):
            log.info("x" * 100_000)
        assert 19 <= log._text.lines_lost <= 21


def test_events_that_cannot_be_written_end_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, is_main=True, total_steps=100) as log:
        assert log._board is not None
        log._board.file_writer.close()  # as after an error in its thread: every later call raises
        for step in (1, 2):
            log.metrics("train", step=step, epoch=0, loss=1.0)
        assert log._board is None
        log.sync()
        assert log._board is not None
        log.metrics("train", step=3, epoch=0, loss=1.0)
    assert capsys.readouterr().err.count("TensorBoard's events cannot be written") == 1
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_console_that_is_gone_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe, RunLog(tmp_path, is_main=True, total_steps=100) as log:
        monkeypatch.setattr("sys.stdout", pipe)
        log.info("first")
        log.info("second")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # or closing the pipe would fail
    lines = [line[20:] for line in (tmp_path / "training.log").read_text().splitlines()]
    assert lines == ["the console cannot be written (Broken pipe); this file goes on", "first", "second"]


def test_tensorboard_gets_a_bounded_number_of_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.logging.MAX_POINTS", 50)
    with RunLog(tmp_path, is_main=True, total_steps=1000) as log:
        points: list[int] = []
        monkeypatch.setattr(log._board, "add_scalar", lambda name, value, step: points.append(step))
        for step in range(1, 1001):
            log.metrics("train", step=step, epoch=0)  # the epoch is the one scalar
        log.metrics("verification", step=1000, epoch=0, dataset="lfw", auc=0.5)
    train, verification = points[:50], points[50:]
    assert train == list(range(1, 1001, 20))
    assert verification == [1000, 1000]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1001
