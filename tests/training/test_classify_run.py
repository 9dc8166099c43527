"""A classification in the course of a run: what it logs and leaves, on 1 and 2 ranks, and what is refused before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from eval.classification import main as classify_command
from eval.classification_files import read_embedded, read_prototypes
from eval.classification_metrics import classify
from sources.digits import open_digits
from tests.ranks import RankPool
from training.preflight import inspect_run
from utils.config import Config
from utils.distributed import Ranks
from utils.images import ImageError

KEYS = {
    "task": "classification", "rec": "digits", "network": "digits", "embedding_size": 2, "head": "cosface",
    "head_options": {"margin": 0.1, "scale": 8.0}, "num_epoch": 2, "batch_size": 120, "lr": 0.1, "verbose": 0,
    "augmentation": "none", "num_workers": 0, "lr_schedule": "step", "lr_milestones": (1,), "threads": 1,
    "async_save": False,
}  # fmt: skip


def run_here(output: str, keys: dict[str, Any]) -> int:
    """A whole run on the ranks of the pool's group."""
    config = Config(**{**KEYS, **keys, "output": output}, name="digits_test")
    inputs = inspect_run(config, device="cpu")
    assert not inputs.problems, inputs.problems
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return train.train(config, inputs, Ranks(rank, world_size, rank, world_size, torch.device("cpu")), [])


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "classification"]


@pytest.fixture(scope="module")
def folder(ranks: RankPool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on one rank."""
    path = tmp_path_factory.mktemp("run")
    assert ranks.run(1, run_here, str(path), {}) == [0]
    return path


def test_it_learns_and_logs_every_test(folder: Path) -> None:
    lines = lines_of(folder)
    assert [(line["dataset"], line["epoch"]) for line in lines] == [("test", 0), ("test", 1), ("test", 2), ("train", 2)]
    assert lines[0]["top1"] < 0.2
    assert lines[2]["top1"] > 0.3
    assert {"top5", "error", "class_margin", "sample_margin_min", "sample_margin_mean", "prototype_norm_ratio"} <= set(
        lines[0]
    )
    assert (folder / "best.pt").is_file()
    assert "tested on 355 images" in (folder / "training.log").read_text()


def test_what_it_leaves_agrees(folder: Path) -> None:
    kept, prototypes = read_embedded(folder / "classification" / "test.npz"), read_prototypes(folder)
    assert prototypes.is_normalized
    assert np.array_equal(kept.prototypes, prototypes.weight.numpy())
    assert kept.class_counts.tolist() == open_digits("train").class_counts().tolist()
    result = classify(
        torch.from_numpy(kept.embeddings), torch.from_numpy(kept.labels), prototypes.weight, normalize_prototypes=True
    )
    last = lines_of(folder)[2]
    assert result.top1 == last["top1"]
    assert result.to_dict()["class_accuracy"] == json.loads((folder / "classification" / "test.json").read_text())[
        "class_accuracy"
    ]  # fmt: skip
    snapshots = sorted((folder / "classification" / "snapshots").iterdir())
    assert [read_embedded(path).epoch for path in snapshots] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_the_command_finds_the_same(folder: Path, tmp_path: Path, checkpoint: str) -> None:
    arguments = [str(folder), "--checkpoint", checkpoint, "--out", str(tmp_path), "--device", "cpu"]
    assert classify_command(arguments) == 0
    found = json.loads((tmp_path / "test.json").read_text())["top1"]
    tops = [line["top1"] for line in lines_of(folder) if line["dataset"] == "test"]
    assert found == pytest.approx(tops[-1] if checkpoint == "last" else max(tops[1:]))
    assert read_embedded(tmp_path / "test.npz").embeddings.shape == (355, 2)


def test_the_command_takes_other_images(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert classify_command([str(folder), "--data", "digits:train", "--name", "again", "--out", str(tmp_path)]) == 0
    train_line = lines_of(folder)[3]
    assert json.loads((tmp_path / "again.json").read_text())["top1"] == pytest.approx(train_line["top1"])
    assert classify_command([str(folder), "--data", "synthetic:10:20", "--out", str(tmp_path)]) == 2
    assert "network digits takes (28, 28, 1)" in capsys.readouterr().err
    assert classify_command([str(folder), "--name", "../evil"]) == 2


@pytest.mark.parametrize("head", ["softmax", "subcenter_arcface"])
def test_two_ranks_find_what_one_finds(ranks: RankPool, tmp_path: Path, head: str) -> None:
    keys = {"head": head, "head_options": {}, "num_epoch": 1, "lr_schedule": "cosine", "lr_milestones": ()}
    one, two = tmp_path / "one", tmp_path / "two"
    assert ranks.run(1, run_here, str(one), {**keys, "batch_size": 240}) == [0]
    assert ranks.run(2, run_here, str(two), {**keys, "batch_size": 120}) == [0, 0]
    for first, second in zip(lines_of(one), lines_of(two), strict=True):
        assert first["num_images"] == second["num_images"]
        # batch statistics are those of each rank, so the nets differ a little; before the first step they do not
        if first["step"] == 0:
            assert first["top1"] == pytest.approx(second["top1"])
            assert first["prototype_norm_ratio"] == pytest.approx(second["prototype_norm_ratio"])
    assert read_prototypes(two).weight.shape == read_prototypes(one).weight.shape


def problems(**keys: Any) -> list[str]:
    return inspect_run(Config(**{**KEYS, "output": "/nowhere/at/all", **keys}), device="cpu").problems


def test_test_images_must_be_there_and_fit() -> None:
    assert problems() == []
    cases: list[tuple[dict[str, Any], str]] = [
        ({"rec": "digits:test"}, "test: digits:test has no test half of its own"),
        ({"test": "mnist:/nowhere"}, "test: mnist:/nowhere: there is no folder '/nowhere'"),
        ({"test": "synthetic:10:40"}, "test: synthetic:10:40 holds 10 classes of images of 112 x 112 x 3"),
    ]
    for keys, words in cases:
        found = problems(**keys)
        assert any(problem.startswith(words) for problem in found), found


def run_with_a_bad_image(output: str) -> int:
    """A run whose last training image cannot be read when the training images are classified at its end."""
    config = Config(**{**KEYS, "num_epoch": 1, "lr_schedule": "cosine", "lr_milestones": (), "output": output})
    inputs = inspect_run(config, device="cpu")
    source, read = inputs.source, type(inputs.source).read
    assert source is not None

    def read_or_fail(self: Any, index: int) -> Any:
        if self is source and index == len(source) - 1 and (Path(output) / "classification" / "test.json").exists():
            raise ImageError("torn")
        return read(self, index)

    type(source).read = read_or_fail  # type: ignore[method-assign]
    try:
        return train.train(config, inputs, Ranks(0, 1, 0, 1, torch.device("cpu")), [])
    finally:
        type(source).read = read  # type: ignore[method-assign]


def test_a_training_image_that_cannot_be_read_does_not_end_a_finished_run(ranks: RankPool, tmp_path: Path) -> None:
    assert ranks.run(1, run_with_a_bad_image, str(tmp_path)) == [0]
    assert "the training images are not classified: torn" in (tmp_path / "training.log").read_text()
    assert {line["dataset"] for line in lines_of(tmp_path)} == {"test"}
    assert (tmp_path / "report.html").is_file()
