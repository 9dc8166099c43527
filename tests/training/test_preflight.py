"""Each problem by its text, several at once, and that nothing is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.records import make_record_set
from training import preflight
from training.preflight import Inputs, inspect_run
from utils.config import Config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_record_set(tmp_path_factory.mktemp("data") / "set", [3, 4], 112, 112))


def inspect(data: str, tmp_path: Path, *, world_size: int = 1, **keys: Any) -> Inputs:
    settings: dict[str, Any] = {
        "rec": data, "network": "tiny", "embedding_size": 8, "batch_size": 2, "output": str(tmp_path / "run"),
    }  # fmt: skip
    inputs = inspect_run(Config(**{**settings, **keys}), device="cpu", world_size=world_size)
    assert not (tmp_path / "run").exists() or keys.get("made"), "a check must not write"
    return inputs


def test_a_good_config_has_no_problems_and_its_inputs_open(data: str, tmp_path: Path) -> None:
    inputs = inspect(data, tmp_path, num_classes=2, num_image=7)
    assert inputs.problems == []
    assert inputs.source is not None
    assert len(inputs.source) == 7


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"rec": "/nowhere/faces"}, "/nowhere/faces"),
        ({"num_classes": 3}, "num_classes = 3, but"),
        ({"num_image": 8}, "holds 7: leave num_image out"),
        ({"val_targets": ("lfw",)}, "val_targets: "),
        ({"precision": "fp16"}, "precision = 'fp16' needs a GPU, and this run is on the CPU: use precision=bf16"),
        ({"network": "digits"}, "takes images of 28 x 28 pixels"),
        ({"network": "r51"}, "network: unknown backbone 'r51'"),
        ({"batch_size": 1}, "batch normalisation needs 2: use batch_size=2 or more"),
        ({"init_from": "/nowhere/model.pt"}, "init_from: /nowhere/model.pt"),
    ],
)
def test_each_problem_by_its_text(data: str, tmp_path: Path, keys: dict[str, Any], text: str) -> None:
    (problem,) = inspect(data, tmp_path, **keys).problems
    assert text in problem


def test_all_problems_are_told_at_once(data: str, tmp_path: Path) -> None:
    assert len(inspect(data, tmp_path, num_classes=3, precision="fp16", val_targets=("a", "b")).problems) == 4


def test_too_many_ranks_for_the_images(data: str, tmp_path: Path) -> None:
    (problem,) = inspect(data, tmp_path, world_size=4).problems
    assert "on 4 rank(s) with 7 images leaves a rank with 1 image(s)" in problem
    assert "start fewer ranks" in problem


def test_a_folder_with_results_is_not_overwritten(data: str, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "training.log").write_text("a run that ended before it saved anything")
    assert inspect(data, tmp_path, output=str(folder)).problems == []
    (folder / "model.pt").write_bytes(b"")
    (problem,) = inspect(data, tmp_path, output=str(folder)).problems
    assert "already holds a run (model.pt): continue it with resume=True" in problem
    assert inspect(data, tmp_path, output=str(folder), resume=True).problems == []


def test_an_output_below_a_file(data: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (problem,) = inspect(data, tmp_path, output=str(tmp_path / "file" / "run")).problems
    assert f"output: cannot write to {tmp_path / 'file'}" in problem


def test_disk_space(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1_000

    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage)
    (problem,) = inspect(data, tmp_path).problems
    assert "0.0 GB free" in problem
    assert "keep_checkpoints=1" in problem
