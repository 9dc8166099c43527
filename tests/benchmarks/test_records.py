"""The record benchmark: what its tables and JSON hold, what is said of absent peers, stages that sum up."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from benchmarks import record_stages
from benchmarks.record_others import Speeds, images_only, serve
from benchmarks.records import BARE, HERE, WORKER, main, speed_table
from sources.records import RecordSource
from utils.images import encode_jpeg
from utils.record_set import write_record_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """16 images of 4 identities, with set header and identity records."""
    rng = np.random.default_rng(0)
    jpegs = [encode_jpeg(rng.integers(0, 256, (112, 112, 3), np.uint8)) for _ in range(16)]
    write_record_set(tmp_path, [4] * 4, ((jpeg, "x.jpg") for jpeg in jpegs), (112, 112))
    return tmp_path


def test_the_command_measures_ours_and_says_what_is_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("ARCFACE_TORCH", "MXNET_PYTHON", "DALI_PYTHON"):
        monkeypatch.delenv(variable, raising=False)
    arguments = ["--data", str(folder), "--rounds", "2", "--images", "16", "--batch", "4", "--results", str(tmp_path)]
    assert main([*arguments, "--dali-python", "/no/such/python"]) == 0
    printed = capsys.readouterr().out
    assert "arcface_torch left out" in printed
    assert "mxnet not run: no --mxnet-python" in printed
    assert "dali not run: [Errno 2]" in printed
    written = json.loads((tmp_path / "records.json").read_text(encoding="utf-8"))
    assert set(written["images_per_cpu_second"]) == {BARE, HERE, WORKER}
    assert all(len(rounds) == 2 for rounds in written["images_per_cpu_second"].values())
    assert all(len(rounds) == 2 for rounds in written["images_per_second"].values())
    assert written["ratio_to"] is None


def test_ratios_and_shares_by_hand() -> None:
    speeds = Speeds({BARE: [90.0, 110.0, 100.0], HERE: [1.0, 3.0, 2.0]})
    text = speed_table({BARE: [100.0, 100.0, 200.0], HERE: [90.0, 80.0, 120.0]}, speeds, None)
    assert f"| {HERE} | 90 | 80 .. 120 | 80% | - | 2 |" in text


def test_images_per_second_of_both_clocks() -> None:
    speeds = Speeds()
    assert speeds.add("x", 100, 2.0, 4.0) == 50.0
    assert speeds.wall == {"x": [25.0]}


def test_stages_sum_to_the_loader(folder: Path) -> None:
    costs = record_stages.stages(RecordSource(folder / "train.rec"), 4, rounds=1, batches=2)
    assert list(costs)[2:] == [record_stages.DECODE, record_stages.CHECKS, list(costs)[4], record_stages.REST]
    assert sum(costs.values()) > 0


def test_an_index_without_header_and_identities(folder: Path) -> None:
    source = RecordSource(folder / "train.rec")
    with ExitStack() as stack:
        place = images_only(source, stack)
        lines = (place / "images.idx").read_text(encoding="ascii").splitlines()
        assert [int(line.split()[0]) for line in lines] == list(range(1, 17))
        assert [int(line.split()[1]) for line in lines] == [source.reader.offset(key) for key in range(1, 17)]
        assert (place / "train.rec").read_bytes() == source.path.read_bytes()


def test_another_python_without_the_package_is_a_reason(folder: Path) -> None:
    with ExitStack() as stack:
        contestants, versions, why = serve(sys.executable, "dali", folder, "", 4, Speeds(), stack)
    assert (contestants, versions) == ({}, {})
    assert "nvidia" in why
