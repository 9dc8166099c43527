"""Sweeps: which runs, where, their table; runs that finish, fail, stop and go on."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.sweep import ROOT, main
from tools.sweep_plan import SweepError, check_plan, parse_vary, trials_of
from tools.sweep_table import csv_text, draw, markdown, read_trial, summarise


def test_values_are_parted_at_commas_outside_brackets_and_quotes() -> None:
    assert parse_vary("lr=0.1,0.2") == ("lr", ["0.1", "0.2"])
    assert parse_vary("lr_milestones=(1,2),(2,3)") == ("lr_milestones", ["(1,2)", "(2,3)"])
    assert parse_vary("head_options={'a': 1, 'b': 2},{}") == ("head_options", ["{'a': 1, 'b': 2}", "{}"])
    assert parse_vary("rec='a,b',c") == ("rec", ["'a,b'", "c"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr", r"must be KEY=V1,V2"),
        ("lr=", r"must be KEY=V1,V2"),
        ("=1", r"must be KEY=V1,V2"),
        ("lr=1,,2", "an empty value"),
        ("lr=1,1", "one twice"),
        ("lr=(1,2", "is not closed"),
        ("seed=1,2", "seeds are given with --seeds"),
        ("output=a", "the sweep itself sets output"),
    ],
)
def test_other_values_are_refused(text: str, words: str) -> None:
    with pytest.raises(SweepError, match=words):
        parse_vary(text)


def test_every_combination_has_a_folder_of_its_own_and_all_have_a_seed_before_the_next() -> None:
    trials = trials_of(Path("out"), {"head": ["softmax", "cosface"], "head_options.margin": ["0.1", "0.2"]}, seeds=2)
    assert [trial.seed for trial in trials] == [1] * 4 + [2] * 4
    assert len({trial.folder for trial in trials}) == 8
    assert trials[1].overrides == ["head=softmax", "head_options.margin=0.2", "seed=1"]
    odd = trials_of(Path("out"), {"rec": ["a/b", "a:b", "x" * 300]}, seeds=1)
    assert len({trial.folder for trial in odd}) == 3, "names that look alike once they are made safe"
    assert all(trial.folder.parent == Path("out") and len(trial.name) <= 80 for trial in odd)


def test_other_settings_are_kept_out_of_a_sweeps_folder(tmp_path: Path) -> None:
    check_plan(tmp_path / "new", "configs/digits_softmax", ["lr=1", "a=2"], write=True)
    check_plan(tmp_path / "new", "digits_softmax", ["a=2", "lr=1"], write=True)
    with pytest.raises(SweepError, match=r"holds a sweep of .*lr=1.*another folder with --out"):
        check_plan(tmp_path / "new", "configs/digits_softmax", ["lr=2"], write=False)


def finished_run(folder: Path, error: float) -> None:
    """What read_trial looks at, of a run that ended."""
    folder.mkdir(parents=True)
    lines = [
        {"kind": "train", "time": 100.0, "images_per_second": 50.0},
        {"kind": "classification", "time": 101.0, "dataset": "test", "error": 0.9, "class_margin": 1.0},
        {"kind": "train", "time": 130.0, "images_per_second": 70.0},
        {"kind": "classification", "time": 160.0, "dataset": "test", "error": error, "class_margin": None},
        {"kind": "classification", "time": 160.0, "dataset": "train", "error": 0.0},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"kind": "tr'
    (folder / "metrics.jsonl").write_text(text)
    for name in ("report.html", "model.pt"):
        (folder / name).write_text("")


def test_the_table_has_mean_and_spread_of_the_last_test(tmp_path: Path) -> None:
    varied = {"head_options.margin": ["0", "1"], "head": ["soft_margin"]}
    trials = trials_of(tmp_path, varied, seeds=2)
    for trial, error in zip(trials, (0.02, 0.01, 0.04, None), strict=True):
        if error is not None:
            finished_run(trial.folder, error)
    rows = summarise([(trial, read_trial(trial.folder)) for trial in trials])
    assert [row["runs"] for row in rows] == [2, 1]
    assert rows[0]["test_error"] == {"mean": pytest.approx(0.03), "std": pytest.approx(math.sqrt(2) / 100), "n": 2}
    assert rows[1]["test_error"]["std"] is None
    assert rows[0]["images_per_second"]["mean"] == 60.0
    assert rows[0]["minutes"]["mean"] == 1.0
    assert rows[0]["class_margin"]["mean"] == 1.0, "where the last one is missing, the one before"
    text = markdown(varied, rows)
    assert "| 0 | soft_margin | 2 | 3.00% ± 1.41 | 0.00% ± 0.00 |" in text
    assert csv_text(varied, rows).splitlines()[1].startswith("0,soft_margin,2,0.03,0.0141")
    assert draw(tmp_path, varied, rows) == ["accuracy_by_margin.png"]
    assert (tmp_path / "accuracy_by_margin.png").stat().st_size > 5000


def test_one_run_fails_and_the_other_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The real thing, at its smallest: an unknown head is told and does not stop the other."""
    out = tmp_path / "sweep"
    arguments = ["configs/digits_softmax", "--vary", "head=nothing,softmax", "num_epoch=1", "threads=1"]
    assert main([*arguments, "--jobs", "2", "--out", str(out), "--json"]) == 1
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert facts["failed"] == ["head=nothing_seed=1"]
    assert [row["runs"] for row in facts["rows"]] == [0, 1]
    assert "head 'nothing' is not among those here" in (out / "head=nothing_seed=1.out").read_text()
    before = (out / "head=softmax_seed=1" / "model.pt").stat().st_mtime_ns
    assert main([*arguments, "--out", str(out), "--table"]) == 0
    assert main([*arguments, "--out", str(out)]) == 1
    assert (out / "head=softmax_seed=1" / "model.pt").stat().st_mtime_ns == before, "a finished run was run again"


def test_a_stopped_sweep_saves_its_run_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    command = [
        sys.executable,
        "-m",
        "tools.sweep",
        "configs/digits_softmax",
        "num_epoch=400",
        "threads=1",
        "verbose=9999",
    ]
    process = subprocess.Popen([*command, "--out", str(out)], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    log, deadline = out / "seed=1.out", time.monotonic() + 120
    while not (log.is_file() and "step 30/" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert "the same command with resume=True goes on" in log.read_text()
    assert list((out / "seed=1" / "checkpoints").glob("step_*"))


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    assert main(["configs/digits_softmax", "--seeds", "0", "--out", str(tmp_path / "new")]) == 2
    assert main(["configs/digits_softmax", "--vary", "lr", "--out", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
