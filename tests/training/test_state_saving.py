"""Saving beside the steps: the same bits as saving in between, failures on all ranks at once, one save at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.ranks import RankPool
from tests.training.runs import Weights, folder_of, make_run, weights_of
from tests.training.test_state import HARD, go
from tests.utils.test_checkpoint_damage import flip
from training.run import Run
from training.state import resume_run, save_run
from utils.checkpoint import CheckpointError, complete_checkpoints
from utils.checkpoint_saver import CheckpointSaver
from utils.files import HashedFile


class Gate:
    """Holds what `save_checkpoint` writes until it is opened, so that steps certainly happen meanwhile."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.opened, write = threading.Event(), HashedFile.write

        def held(file: HashedFile, data: Any) -> int:
            assert self.opened.wait(30)
            return write(file, data)

        patch.setattr(HashedFile, "write", held)


def saved_meanwhile(folder: str, keys: dict[str, Any], saved_at: int, stop: int) -> tuple[Weights, list[str]]:
    """Steps up to `stop` while the checkpoint of step `saved_at` is written; weights at the end, checkpoints before."""
    run = make_run("norm", output=folder, async_save=True, **keys)
    go(run, 0, saved_at)
    with pytest.MonkeyPatch.context() as patch:
        gate = Gate(patch)
        save_run(run, saved_at)
        go(run, saved_at, stop)
        before = [path.name for path in complete_checkpoints(Path(folder) / "checkpoints")]
        gate.opened.set()
        run.saver.wait()
    return weights_of(run), before


def resumed(folder: str, keys: dict[str, Any], stop: int) -> tuple[int, Weights]:
    run = make_run("norm", output=folder, **keys)
    first_step = resume_run(run).first_step
    model = torch.load(folder_of(run) / "model.pt", weights_only=True)
    own = run.backbone.state_dict()
    assert model.keys() == own.keys()
    assert all(torch.equal(model[name], own[name]) for name in own), "model.pt and checkpoint are of one moment"
    go(run, first_step, stop)
    return first_step, weights_of(run)


@pytest.mark.parametrize("world_size", [1, 3])
def test_steps_taken_while_a_checkpoint_is_written_are_not_in_it(
    ranks: RankPool, tmp_path: Path, world_size: int
) -> None:
    keys = {**HARD, "sample_rate": 0.4, "optimizer": "adamw"}
    whole = ranks.run(world_size, saved_meanwhile, str(tmp_path), keys, 4, 7)
    again = ranks.run(world_size, resumed, str(tmp_path), keys, 7)
    for (weights, before), (first_step, others) in zip(whole, again, strict=True):
        assert before == [], "nothing counts before it is whole"
        assert first_step == 4
        assert [name for name in weights if not np.array_equal(weights[name], others[name])] == []


def saved_twice(folder: str, is_resumed: bool) -> tuple[list[str], Weights]:
    """Six steps, or what is left of them, with checkpoints after 2 and 4."""
    run = make_run("norm", output=folder, **HARD)
    begun = resume_run(run) if is_resumed else None
    for first, last in ((0, 2), (2, 4), (4, 6)):
        if begun is None or first >= begun.first_step:
            go(run, first, last)
            if last < 6:
                save_run(run, last)
    return begun.lines if begun else [], weights_of(run)


def test_one_flipped_bit_costs_a_checkpoint_and_changes_no_bit_of_the_end(ranks: RankPool, tmp_path: Path) -> None:
    whole = ranks.run(2, saved_twice, str(tmp_path), False)
    newest = tmp_path / "checkpoints" / "step_000000004"
    flip(max(newest.glob("*.distcp"), key=lambda path: path.stat().st_size))
    for (_, weights), (lines, others) in zip(whole, ranks.run(2, saved_twice, str(tmp_path), True), strict=True):
        assert "step_000000002 is used instead" in lines[0]
        assert lines[1].endswith("step_000000002: 2 steps done")
        assert [name for name in weights if not np.array_equal(weights[name], others[name])] == []


def files_of(folder: str, async_save: bool) -> dict[str, bytes]:
    """The checkpoint's tensors after some steps, byte by byte as they lie in the files."""
    run = make_run("norm", output=f"{folder}/{async_save}", async_save=async_save, **HARD)
    go(run, 0, 3)
    save_run(run, 3)
    run.saver.wait()
    dist.barrier()
    path = folder_of(run) / "checkpoints" / "step_000000003"
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.distcp"))}


def test_both_ways_write_the_same_bytes_each_tensor_once(ranks: RankPool, tmp_path: Path) -> None:
    between, beside = (ranks.run(2, files_of, str(tmp_path), way)[0] for way in (False, True))
    assert list(between) == ["__0_0.distcp", "__1_0.distcp"]
    assert between == beside


def save_twice(run: Run, known: list[bool]) -> None:
    """As the loop does at two checkpoints; appends whether the saver knew of a failure in between."""
    save_run(run, 3)
    thread = run.saver._thread
    assert thread is not None
    thread.join()
    known.append(run.saver.has_failed)
    save_run(run, 3)


def full_disk(folder: str, rank_with_full_disk: int, async_save: bool, at: str) -> tuple[list[str], list[bool], str]:
    """Checkpoints left, whether the saver knew before it was asked, and the error."""
    run = make_run("norm", output=folder, async_save=async_save, **HARD)
    go(run, 0, 2)
    save_run(run, 2)
    run.saver.wait()
    go(run, 2, 3)

    def write(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    known: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == rank_with_full_disk:
            if at == "tensors":
                patch.setattr(HashedFile, "write", write)
            else:
                patch.setattr("training.state.whole_file", write)
        with pytest.raises(CheckpointError) as caught:
            save_twice(run, known)
    dist.barrier()
    return sorted(path.name for path in (Path(folder) / "checkpoints").iterdir()), known, str(caught.value)


@pytest.mark.parametrize("async_save", [False, True])
@pytest.mark.parametrize("full", [0, 1])
def test_a_full_disk_on_one_rank_is_an_error_on_all_and_leaves_the_last_checkpoint(
    ranks: RankPool, tmp_path: Path, async_save: bool, full: int
) -> None:
    results = ranks.run(2, full_disk, str(tmp_path), full, async_save, "tensors")
    for names, known, text in results:
        assert names == ["step_000000002"], "and the room of the half written one is free again"
        assert known == [True] * async_save
        assert f"writing failed: rank {full}: OSError: [Errno 28] No space left on device" in text
        assert text.endswith("Earlier checkpoints are untouched")
    assert ranks.run(2, resumed, str(tmp_path), HARD, 3)[1][0] == 2


def test_a_model_that_cannot_be_written_is_an_error_on_all_ranks(ranks: RankPool, tmp_path: Path) -> None:
    for _, known, text in ranks.run(2, full_disk, str(tmp_path), 0, True, "model"):
        assert known == [True]
        assert text.startswith(f"writing {tmp_path}/model.pt: [Errno 28] No space left")


def one_at_a_time() -> list[str]:
    """Which writes began and ended, in order; the tensor each of them saw."""
    saver, events, value = CheckpointSaver(), [], torch.zeros(2)

    def write(tensors: Any, _: Any) -> None:
        events.append(f"begin {tensors['a'].tolist()}")
        threading.Event().wait(0.05)
        events.append(f"end {tensors['a'].tolist()}")

    for _ in range(3):
        saver.start({"a": value}, write)
        value += 1
    saver.wait()
    saver.wait()
    return events


def test_a_save_waits_for_the_one_before_and_sees_its_own_moment(ranks: RankPool) -> None:
    expected = [f"{what} [{value}.0, {value}.0]" for value in range(3) for what in ("begin", "end")]
    assert ranks.run(2, one_at_a_time) == [expected, expected]


def no_memory() -> str:
    saver = CheckpointSaver()

    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("cannot allocate memory")

    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == 1:
            patch.setattr("utils.checkpoint_saver._empty_on_host", fail)
        with pytest.raises(CheckpointError) as caught:
            saver.start({"a": torch.zeros(2)}, lambda *_: None)
    return str(caught.value)


def test_no_memory_for_the_copy_on_one_rank_is_told_on_all(ranks: RankPool) -> None:
    texts = ranks.run(2, no_memory)
    assert texts[0] == texts[1]
    assert "use async_save=False: cannot allocate memory" in texts[0]


def unexpected() -> str:
    saver = CheckpointSaver()

    def write(*_: Any) -> None:
        if dist.get_rank() == 1:
            raise ZeroDivisionError("a bug")

    saver.start({"a": torch.zeros(2)}, write)
    with pytest.raises(CheckpointError) as caught:
        saver.wait()
    return str(caught.value)


def test_what_nobody_expected_in_the_thread_is_told_too(ranks: RankPool) -> None:
    assert ranks.run(2, unexpected) == ["saving in the background failed: ZeroDivisionError: a bug"] * 2
