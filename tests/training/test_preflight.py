"""Each problem by its text, several at once, and that nothing is touched."""

from __future__ import annotations

import math
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset import build_loader, open_source
from tests.records import make_record_set
from training import preflight
from training.inputs import Inputs
from training.preflight import inspect_run
from training.resources import disk_needed, memory_needed, shared_memory_needed, sizes_of
from utils import batch_stream
from utils.config import Config
from utils.shared_slots import SharedSlots


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_record_set(tmp_path_factory.mktemp("data") / "set", [3, 4], 112, 112))


def inspect(data: str, tmp_path: Path, *, world_size: int = 1, is_thorough: bool = False, **keys: Any) -> Inputs:
    settings: dict[str, Any] = {
        "rec": data, "network": "tiny", "embedding_size": 8, "batch_size": 2, "output": str(tmp_path / "run"),
    }  # fmt: skip
    inputs = inspect_run(Config(**{**settings, **keys}), device="cpu", world_size=world_size, is_thorough=is_thorough)
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
    (problem,) = inspect(data, tmp_path, output=str(folder), resume=True).problems
    assert "holds model.pt of a run, but no checkpoint to resume it from: put its checkpoints back" in problem
    (folder / "model.pt").rename(folder / "best.pt")  # killed before its first checkpoint
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
    assert "has 1.0 kB free" in problem
    assert "keep_checkpoints=1" in problem


def test_what_a_checkpoint_of_this_run_takes_is_not_asked_for_twice(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old" / "checkpoints" / "step_000000002"
    old.mkdir(parents=True)
    (old / "manifest.json").write_text("x" * 1_000_000)
    keys = {"output": str(tmp_path / "old"), "resume": True}
    inputs = inspect(data, tmp_path, **keys)
    assert inputs.problems == []
    assert inputs.sizes is not None
    needed = disk_needed(Config(rec=data, batch_size=2), inputs.sizes, 3 * 20)

    class Usage:
        free = needed - 999_999

    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage)
    assert inspect(data, tmp_path, **keys).problems == []
    Usage.free -= 2
    (problem,) = inspect(data, tmp_path, **keys).problems
    assert "28.8 MB free" in problem


def test_limits_of_the_machine(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "shared_memory_free", lambda: 7 * 2 * 112 * 112 * 3 - 1)
    monkeypatch.setattr(preflight, "open_files_allowed", lambda: 100)
    shared, files = inspect(data, tmp_path, num_workers=2).problems
    assert "527 kB of shared memory, and /dev/shm has 527 kB" in shared
    assert "--shm-size" in shared
    assert "opens up to 160 files, and 100 are allowed: raise the limit with `ulimit -n`" in files
    assert inspect(data, tmp_path, num_workers=0).problems != [shared, files]
    monkeypatch.undo()
    assert inspect(data, tmp_path, num_workers=2).problems == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_shared_memory_is_what_the_loader_takes(data: str, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    taken: list[int] = []

    class Counted(SharedSlots):
        def __init__(self, count: int, shape: tuple[int, ...]) -> None:
            taken.append(count * math.prod(shape))
            raise KeyboardInterrupt  # before any reader starts

    monkeypatch.setattr(batch_stream, "SharedSlots", Counted)
    source = open_source(data)
    stream = build_loader(
        source, seed=0, batch_size=3, rank=0, world_size=1, first_batch=0, last_batch=1, num_workers=workers
    )
    with pytest.raises(KeyboardInterrupt):
        next(iter(stream))
    config = Config(rec=data, batch_size=3, num_workers=workers)
    sizes = sizes_of(config, torch.nn.Linear(1, 1), source)
    assert [shared_memory_needed(config, sizes, 1)] == taken
    assert shared_memory_needed(config, sizes, 4) == 4 * taken[0]


def test_sub_centres_and_states_count() -> None:
    config = Config(num_classes=10, embedding_size=4, head="subcenter_arcface", head_options={"sub_centers": 3})
    sizes = sizes_of(config, torch.nn.Linear(2, 2), None)
    assert (sizes.backbone, sizes.prototypes) == (24, 480)
    assert sizes.checkpoint == 2 * (24 + 480)
    assert sizes_of(replace(config, optimizer="adamw"), torch.nn.Linear(2, 2), None).checkpoint == 3 * (24 + 480)
    # weight, momentum and gradient of half the classes, and of the backbone
    assert memory_needed(config, sizes, 2) == 3 * 240 + 3 * 24
    assert memory_needed(replace(config, sample_rate=0.1), sizes, 2) == 2 * 240 + 2 * 24 + 3 * 24


def test_a_look_at_the_data_leaves_nothing(data: str, tmp_path: Path) -> None:
    inputs = inspect(data, tmp_path, is_thorough=True)
    assert inputs.problems == []
    assert list(tmp_path.iterdir()) == []
    told = [line for heading, line in inputs.findings if heading == "data"]
    assert told[0] == "7 images of 2 classes: 3 to 4 each, median 4; 0 with a single one"
    assert told[1] == "the index ends where train.rec does"
    assert told[2].startswith("7 images read, ")
    assert told[2].endswith("112 x 112 x 3: 0 unreadable, 0 grey, 0 of one colour")
    assert inputs.write_speed > 0
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "mine").write_text("stays")
    assert inspect(data, tmp_path, is_thorough=True, output=str(folder)).problems == []
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_a_write_that_fails(data: str, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        (problem,) = inspect(data, tmp_path, is_thorough=True).problems
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert problem == f"output: cannot write in {tmp_path}: File too large: choose another with output=FOLDER"
    assert list(tmp_path.iterdir()) == []


def test_memory_that_cannot_be_enough(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"rec": "synthetic:1000000:1000000", "embedding_size": 512, "is_thorough": True}
    weights = 4 * 1_000_000 * 512
    monkeypatch.setattr(preflight, "memory_available", lambda *_: int(2.9 * weights))
    monkeypatch.setattr(preflight, "IMAGES", 4, raising=False)
    (problem,) = inspect(data, tmp_path, **keys).problems
    assert problem.startswith(
        "memory: weights, sgd states and gradients need 6.2 GB on each of 1 rank(s), 6.1 GB of it"
    )
    assert problem.endswith("5.9 GB of the machine are free for each: sample_rate=0.1 or 2 ranks would fit")
    monkeypatch.setattr(preflight, "memory_available", lambda *_: 1000)
    (problem,) = inspect(data, tmp_path, **keys).problems
    assert problem.endswith("use a smaller network or embedding_size")
