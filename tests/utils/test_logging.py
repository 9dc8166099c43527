"""The files of a run's log: what a line holds, what a resumed run drops, and how speed is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from utils.logging import Mean, Pace, RunLog, format_seconds, trim_metrics


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


def test_pace_counts_training_time_only() -> None:
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    for _ in range(2):
        with pace.waiting():
            now[0] += 1.0
        now[0] += 3.0
        pace.add(images=100)
    with pace.paused():
        now[0] += 50.0
    reading = pace.read(steps_left=10)
    assert (reading.images_per_second, reading.data_wait, reading.seconds_left) == (25.0, 0.25, 40.0)
    now[0] += 2.0
    pace.add(images=100)
    assert pace.read(steps_left=0).images_per_second == 50.0


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (3723, "1:02:03"), (90061, "1d 1:01:01")])
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_mean_of_what_came_since_the_last_reading() -> None:
    mean = Mean()
    mean.add(1.0)
    mean.add(4.0)
    assert mean.read() == 2.5
    mean.add(7.0)
    assert mean.read() == 7.0
