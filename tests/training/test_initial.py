"""What a run starts from when told to start from another."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from backbones import build_backbone
from tests.ranks import RankPool
from tests.training.runs import folder_of, make_run
from training.initial import load_initial_weights
from training.state import save_model
from utils.checkpoint import CheckpointError
from utils.safetensors_files import write_safetensors


def initial(folder: str, network: str, embedding_size: int) -> tuple[list[str], bool]:
    run = make_run("norm", output=folder)
    save_model(run, "model.pt")
    other = make_run(network, init_from=folder, embedding_size=embedding_size, seed=99)
    lines = load_initial_weights(other)
    same = torch.equal(run.backbone.conv.weight, other.backbone.conv.weight)  # type: ignore[arg-type]
    assert (folder_of(run) / "model.pt").exists()
    return lines, same


def test_initial_weights_report_what_was_taken(ranks: RankPool, tmp_path: Path) -> None:
    lines, same = ranks.run(1, initial, str(tmp_path), "norm", 6)[0]
    assert (lines, same) == (
        [f"init_from: 9 of 9 tensors (406 of 406 parameters) taken from {tmp_path}/model.pt"],
        True,
    )
    lines, same = ranks.run(1, initial, str(tmp_path), "plain", 5)[0]
    assert same
    assert lines == [
        f"init_from: 2 of 4 tensors (112 of 297 parameters) taken from {tmp_path}/model.pt",
        "init_from: 2 tensors (185 parameters) left as initialised: fc 2 of 2",
        "init_from: 7 tensors of the file not used",
        "init_from: no such name here: norm.weight, norm.bias, norm.running_mean, norm.running_var, "
        "norm.num_batches_tracked",
        "init_from: of another shape: fc.weight 6 x 36, here 5 x 36, fc.bias 6, here 5",
    ]


def reported(folder: str, weights: str) -> dict[str, object]:
    run = make_run("norm", init_from=weights, output=folder, embedding_size=5)
    load_initial_weights(run)
    report: dict[str, object] = json.loads((folder_of(run) / "init_report.json").read_text())
    return report


def test_the_report_counts_by_module(ranks: RankPool, tmp_path: Path) -> None:
    given = {
        "module.conv.weight": torch.zeros(4, 3, 3, 3),
        "module.norm.weight": torch.zeros(36),
        "module.fc.weight": torch.zeros(6, 36),
        "module.head.bias": torch.zeros(2, 2),
    }
    file = tmp_path / "backbone.pth"
    torch.save({"epoch": 3, "state_dict_backbone": given}, file)
    report = ranks.run(2, reported, str(tmp_path / "run"), str(file))[1]
    zero = {"tensors": 0, "parameters": 0}
    assert report == {
        "prototypes": None,
        "backbone": {
            "path": str(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "weights_of": None,
            "loaded": {"tensors": 2, "parameters": 144},
            "initialised": {"tensors": 7, "parameters": 225},
            "skipped": {"tensors": 2, "parameters": 220},
            "modules": {
                "conv": {
                    "loaded": {"tensors": 1, "parameters": 108}, "initialised": {"tensors": 1, "parameters": 4},
                    "skipped": zero,
                },
                "fc": {
                    "loaded": zero, "initialised": {"tensors": 2, "parameters": 185},
                    "skipped": {"tensors": 1, "parameters": 216},
                },
                "norm": {
                    "loaded": {"tensors": 1, "parameters": 36}, "initialised": {"tensors": 4, "parameters": 36},
                    "skipped": zero,
                },
                "head": {"loaded": zero, "initialised": zero, "skipped": {"tensors": 1, "parameters": 4}},
            },
            "initialised_names": [
                "conv.bias", "fc.bias", "norm.bias", "norm.running_mean", "norm.running_var",
                "norm.num_batches_tracked", "fc.weight",
            ],
            "skipped_names": [
                {"name": "head.bias", "reason": "no such name"},
                {"name": "fc.weight", "reason": "shape", "there": [6, 36], "here": [5, 36]},
            ],
        },
    }  # fmt: skip


def test_weights_that_are_no_numbers_are_refused(ranks: RankPool, tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.full((4, 3, 3, 3), float("nan"))}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"1 tensors hold NaN or infinity, first conv\.weight"):
        ranks.run(1, reported, str(tmp_path / "run"), str(tmp_path / "model.pt"))


def from_safetensors(folder: str) -> tuple[list[str], bool]:
    run = make_run("norm")
    path = Path(folder) / "model.safetensors"
    write_safetensors(path, run.backbone.state_dict(), {})
    other = make_run("norm", init_from=str(path), seed=99)
    return load_initial_weights(other), torch.equal(run.backbone.conv.weight, other.backbone.conv.weight)  # type: ignore[arg-type]


def test_a_run_starts_from_safetensors(ranks: RankPool, tmp_path: Path) -> None:
    lines, same = ranks.run(1, from_safetensors, str(tmp_path))[0]
    taken = f"init_from: 9 of 9 tensors (406 of 406 parameters) taken from {tmp_path}/model.safetensors"
    assert (lines, same) == ([taken], True)


def foreign(path: str) -> None:
    torch.save({"other.weight": torch.zeros(2, 2)}, path)
    load_initial_weights(make_run(init_from=path))


def of_another_net(path: str) -> None:
    torch.save(build_backbone("digits", in_channels=1).state_dict(), path)
    load_initial_weights(make_run(init_from=path))


def test_the_net_that_the_weights_belong_to_is_named(ranks: RankPool, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Choose network=digits$"):
        ranks.run(1, of_another_net, str(tmp_path / "model.pt"))


def test_weights_of_another_net_are_refused(ranks: RankPool, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no weights of network 'plain'.*other\.weight"):
        ranks.run(1, foreign, str(tmp_path / "model.pt"))
