"""Checkpoints: whole or not at all, on any number of ranks, with damage named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from tests.ranks import RankPool
from utils.checkpoint import (
    CheckpointError,
    empty_tensors,
    latest_checkpoint,
    load_checkpoint,
    read_manifest,
    save_checkpoint,
    stored_shapes,
)

ROWS = torch.arange(10.0).reshape(5, 2)


def tensors_of_this_rank(fill: float | None = None) -> dict[str, Tensor]:
    """A replicated tensor and a matrix of 5 rows split over the ranks."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    chunks = ROWS.chunk(dist.get_world_size())
    local = chunks[dist.get_rank()].clone() if dist.get_rank() < len(chunks) else ROWS[:0].clone()
    replicated = torch.tensor([1.0, 2.0])
    if fill is not None:
        local.fill_(fill)
        replicated.fill_(fill)
    rows = DTensor.from_local(local, mesh, [Shard(0)], shape=ROWS.shape, stride=ROWS.stride())
    return {"backbone/weight": replicated, "fc/weight": rows}


def save(folder: str, step: int, keep: int = 2) -> None:
    save_checkpoint(Path(folder), step, tensors_of_this_rank(), {"steps_done": step}, keep=keep)


def load(folder: str) -> tuple[dict[str, object], list[float], list[list[float]]]:
    path = latest_checkpoint(Path(folder))
    assert path is not None
    tensors = tensors_of_this_rank(fill=-1.0)
    progress = load_checkpoint(path, tensors)
    rows = tensors["fc/weight"]
    assert isinstance(rows, DTensor)
    return progress, tensors["backbone/weight"].tolist(), rows.to_local().tolist()


@pytest.mark.parametrize(("writers", "readers"), [(1, 1), (2, 3), (3, 1)])
def test_another_number_of_ranks_loads_the_same_rows(
    ranks: RankPool, tmp_path: Path, writers: int, readers: int
) -> None:
    ranks.run(writers, save, str(tmp_path), 7)
    results = ranks.run(readers, load, str(tmp_path))
    assert [row for result in results for row in result[2]] == ROWS.tolist()
    assert all(result[:2] == ({"steps_done": 7}, [1.0, 2.0]) for result in results)
    assert read_manifest(tmp_path / "step_000000007")["world_size"] == writers


def save_and_prune(folder: str) -> None:
    for step in (1, 2, 3):
        save(folder, step)
    leftover = Path(folder) / ".step_000000004.partial"
    leftover.mkdir()
    (leftover / "__0_0.distcp").write_bytes(b"half")


def test_newest_are_kept_and_leftovers_never_loaded(ranks: RankPool, tmp_path: Path) -> None:
    ranks.run(1, save_and_prune, str(tmp_path))
    (tmp_path / "step_000000009").mkdir()  # no manifest: not a checkpoint
    assert latest_checkpoint(tmp_path) == tmp_path / "step_000000003"
    ranks.run(1, save, str(tmp_path), 5, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000000005", "step_000000009"]
    ranks.run(1, save, str(tmp_path), 4, 2)
    assert latest_checkpoint(tmp_path) == tmp_path / "step_000000004", "a later step is of a past that was left"
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_shapes_and_empty_tensors_come_from_the_file(ranks: RankPool, tmp_path: Path) -> None:
    ranks.run(2, save, str(tmp_path), 1)
    path = tmp_path / "step_000000001"
    assert stored_shapes(path) == {"backbone/weight": torch.Size([2]), "fc/weight": torch.Size([5, 2])}
    assert {name: tensor.shape for name, tensor in empty_tensors(path, "fc/").items()} == {
        "fc/weight": torch.Size([5, 2])
    }


def load_other_model(folder: str) -> None:
    load_checkpoint(Path(folder), {"backbone/weight": torch.zeros(3), "backbone/bias": torch.zeros(1)})


def test_a_checkpoint_of_another_model_is_refused_by_name_and_shape(ranks: RankPool, tmp_path: Path) -> None:
    ranks.run(1, save, str(tmp_path), 1)
    with pytest.raises(CheckpointError) as caught:
        ranks.run(1, load_other_model, str(tmp_path / "step_000000001"))
    text = str(caught.value)
    assert "backbone/bias: not in the checkpoint" in text
    assert "backbone/weight: (2,) in the checkpoint, (3,) in this run" in text
    assert "config.json" in text


@pytest.mark.parametrize("damage", ["short", "gone", "manifest", "changed"])
def test_damage_is_named(ranks: RankPool, tmp_path: Path, damage: str) -> None:
    ranks.run(1, save, str(tmp_path), 1)
    path = tmp_path / "step_000000001"
    data, manifest = path / "__0_0.distcp", path / "manifest.json"
    if damage == "short":
        data.write_bytes(data.read_bytes()[:-1])
    elif damage == "gone":
        data.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "progress": {"steps_done": 2}}))
    texts = {
        "short": "__0_0.distcp should hold",
        "gone": "but is missing",
        "manifest": "cannot be read",
        "changed": "manifest.json was changed after it was written",
    }
    with pytest.raises(CheckpointError, match=texts[damage]) as caught:
        read_manifest(path)
    assert "Delete this folder to resume from an earlier one" in str(caught.value)


def test_unwritable_folder_fails_on_every_rank_instead_of_hanging(ranks: RankPool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Earlier checkpoints are untouched"):
        ranks.run(2, save, str(tmp_path / "file"), 1)


def save_with(folder: str, fault: str) -> str:
    """What a save says on this rank when something goes wrong on one of them."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def elsewhere(state: dict[str, Tensor], storage_writer: FileSystemWriter, **keys: Any) -> None:
        dcp_save(state, storage_writer=storage_writer, **keys)
        if dist.get_rank() == 0:  # as on a node whose folder of this name is another disk
            (Path(storage_writer.path) / "__1_0.distcp").unlink()

    progress = {"best_score": float("nan") if fault == "nan" else 0.5}
    with pytest.MonkeyPatch.context() as patch:
        if fault == "full" and dist.get_rank() == 1:
            patch.setattr(FileSystemWriter, "write_data", full)
        if fault == "elsewhere":
            patch.setattr("utils.checkpoint.dcp_save", elsewhere)
        with pytest.raises(CheckpointError) as caught:
            save_checkpoint(Path(folder), 2, tensors_of_this_rank(), progress)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fault", "text"),
    [("full", "No space left on device"), ("elsewhere", "__1_0.distcp is not here"), ("nan", "not JSON compliant")],
)
def test_a_save_that_fails_on_one_rank_says_why_on_all_and_keeps_the_last(
    ranks: RankPool, tmp_path: Path, fault: str, text: str
) -> None:
    ranks.run(2, save, str(tmp_path), 1)
    texts = ranks.run(2, save_with, str(tmp_path), fault)
    assert all(text in found and "untouched" in found for found in texts), texts
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.name == "step_000000001"
