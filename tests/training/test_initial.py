"""What a run starts from when told to start from another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.ranks import RankPool
from tests.training.runs import folder_of, make_run
from training.initial import load_initial_weights
from training.state import save_model
from utils.checkpoint import CheckpointError


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
    assert (lines, same) == ([f"init_from: 9 of 9 tensors taken from {tmp_path}/model.pt"], True)
    lines, same = ranks.run(1, initial, str(tmp_path), "plain", 5)[0]
    assert same
    assert lines[0] == f"init_from: 2 of 4 tensors taken from {tmp_path}/model.pt"
    assert lines[1].startswith("init_from: not used: norm.weight")
    assert lines[2] == "init_from: of another shape: fc.weight (6, 36), here (5, 36), fc.bias (6,), here (5,)"


def foreign(path: str) -> None:
    torch.save({"other.weight": torch.zeros(2, 2)}, path)
    load_initial_weights(make_run(init_from=path))


def test_weights_of_another_net_are_refused(ranks: RankPool, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no weights of network 'plain'.*other\.weight"):
        ranks.run(1, foreign, str(tmp_path / "model.pt"))
