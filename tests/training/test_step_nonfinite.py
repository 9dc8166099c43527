"""Numbers that are not finite on one of the ranks: skipped without a trace, or the end of the run, and a dump."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.ranks import RankPool
from tests.training.runs import batches_of, make_run, weights_of
from training.dump import MAX_DUMPS
from training.precision import LossScaler
from training.run import Run
from training.state import resume_run, save_run
from training.step import NonFiniteError, train_step

KEYS: dict[str, Any] = {"head": "adaface", "head_options": {"momentum": 0.3}, "on_nonfinite": "skip"}


def state_of(run: Run) -> dict[str, np.ndarray]:
    """Everything a step may move: weights, momentum, running statistics of backbone and head."""
    backbone = {
        f"optimizer/{index}/{name}": value.numpy().copy()
        for index, state in run.optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    return {**weights_of(run), **backbone}


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name, value in one.items() if not np.array_equal(value, other[name], equal_nan=True)]


def spoil(run: Run, where: str) -> Any:
    """Lets a number go wrong on the last rank; returns the hook's handle."""
    if dist.get_rank() != dist.get_world_size() - 1:
        return None
    net: Any = run.backbone
    if where == "image":
        return net.conv.register_forward_hook(lambda m, i, out: out.index_fill(0, torch.tensor([0]), np.nan))
    if where == "gradient":
        return net.conv.bias.register_hook(lambda g: torch.full_like(g, np.inf))
    if where == "prototypes":
        weight: Any = run.fc.weight
        return weight.register_hook(lambda g: g * np.nan)
    return net.norm.register_forward_hook(_break_variance)


def _break_variance(module: Any, inputs: Any, output: Any) -> None:
    """Leaves the output alone and puts another tensor in the buffer's place, as some modules do."""
    module.running_var = module.running_var * np.inf


def skipped(where: str) -> tuple[list[str], list[str], str, bool]:
    """Differences that a bad step leaves, at once and after one more step; what is told of it; whether it was there."""
    run, clean = make_run("norm", **KEYS), make_run("norm", **KEYS)
    first, second, third = batches_of(run, 0, 3)
    for each in (run, clean):
        train_step(each, first, 0)
    before = state_of(run)
    handle = spoil(run, where)
    result = train_step(run, second, 1)
    if handle is not None:
        handle.remove()
    at_once = differing(before, state_of(run))
    train_step(run, third, 2)
    train_step(clean, third, 2)
    (event,) = result.events
    told = event.kind == "skip" and event.fields["skipped"] == run.health.skipped == 1 and run.health.in_a_row == 0
    return at_once, differing(state_of(clean), state_of(run)), event.text, result.was_skipped and told


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("image", "the loss is not finite; first seen in the embeddings (6 of 6 rows) on rank "),
        ("gradient", "the gradient is not finite; first seen in the gradient of conv.bias on rank "),
        ("prototypes", "the gradient is not finite; first seen in the gradient of the prototypes on rank "),
        ("buffers", "a running statistic of the backbone is not finite after this batch. Skipped"),
    ],
)
def test_a_skipped_step_leaves_no_trace(ranks: RankPool, world_size: int, where: str, text: str) -> None:
    results = ranks.run(world_size, skipped, where)
    for at_once, later, told, was_skipped in results:
        assert (at_once, later, was_skipped) == ([], [], True)
        assert told.startswith("step 1 (epoch 0): ")
        assert text in told
        assert "Skipped, 1 in a row" in told
        assert told == results[0][2]


def too_many() -> tuple[list[bool], str]:
    """Two bad steps, a good one, and bad ones to the end; at most two in a row are allowed."""
    run = make_run("norm", **KEYS, max_nonfinite_steps=2, num_epoch=9)
    skips = []
    for step, batches in enumerate(batches_of(run, 0, 7)):
        handle = spoil(run, "gradient") if step != 2 else None
        try:
            skips.append(train_step(run, batches, step).was_skipped)
        except NonFiniteError as error:
            return skips, str(error)
        if handle is not None:
            handle.remove()
    return skips, "never"


@pytest.mark.parametrize("world_size", [1, 2])
def test_too_many_in_a_row_end_the_run(ranks: RankPool, world_size: int) -> None:
    for skips, text in ranks.run(world_size, too_many):
        assert skips == [True, True, False, True, True]
        assert text.startswith("step 5 (epoch ")
        assert "(3 steps in a row). Training stopped before the update" in text


def bad_weight(name: str, value: float) -> str:
    run = make_run("norm", **KEYS)
    if dist.get_rank() == dist.get_world_size() - 1:
        with torch.no_grad():
            weight = run.fc.weight if name == "prototypes" else run.backbone.get_parameter(name)
            weight.view(-1)[0] = value
    with pytest.raises(NonFiniteError) as caught:
        train_step(run, batches_of(run, 0, 1)[0], 0)
    return str(caught.value)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("norm.weight", np.nan, "first seen in the weights themselves, norm.weight, on rank "),
        ("conv.bias", np.inf, "first seen in the weights themselves, conv.bias, on rank "),  # hidden behind a tanh
        ("prototypes", np.nan, "first seen in the prototypes themselves on rank "),
        ("prototypes", -np.inf, "first seen in the prototypes themselves on rank "),
    ],
)
def test_a_bad_weight_ends_the_run_whatever_the_policy(
    ranks: RankPool, world_size: int, name: str, value: float, text: str
) -> None:
    results = ranks.run(world_size, bad_weight, name, value)
    assert len(set(results)) == 1
    assert results[0].startswith(f"step 0 (epoch 0): a weight is not finite; {text}{world_size - 1}. Training stopped")


def overflow() -> tuple[list[str], list[float], int, dict[str, Any], str]:
    """An fp16 overflow on the last rank, between two good steps."""
    run = make_run("norm", **{**KEYS, "on_nonfinite": "stop"})
    run.scaler = LossScaler(is_active=True)
    first, second, third = batches_of(run, 0, 3)
    scales = [train_step(run, first, 0).loss_scale]
    before = state_of(run)
    handle = spoil(run, "gradient")
    result = train_step(run, second, 1)
    if handle is not None:
        handle.remove()
    moved = differing(before, state_of(run))
    scales += [result.loss_scale, train_step(run, third, 2).loss_scale]
    return moved, scales, run.health.skipped, run.scaler.state_dict(), result.events[0].text


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_overflow_is_skipped_without_a_trace_and_scales_stay_in_step(ranks: RankPool, world_size: int) -> None:
    results = ranks.run(world_size, overflow)
    for moved, scales, count, scaler, text in results:
        assert (moved, scales, count) == ([], [65536.0, 65536.0, 32768.0], 1)
        assert scaler == results[0][3] == {"scale": 32768.0, "good_steps": 1}
        assert text.startswith("step 1 skipped: fp16 overflow in the gradient of conv.bias on rank ")
        assert text.endswith("loss scale 65536 halved")


def bad_steps(folder: str, free: int | None) -> list[str]:
    """What is told of four bad steps."""
    run = make_run("norm", **KEYS, output=folder)
    usage = shutil.disk_usage(folder)
    spoil(run, "gradient")
    with pytest.MonkeyPatch.context() as patch:
        if free is not None:
            patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
        return [train_step(run, batches, step).events[0].text for step, batches in enumerate(batches_of(run, 0, 4))]


def test_the_first_three_bad_steps_are_dumped(ranks: RankPool, tmp_path: Path) -> None:
    (tmp_path / "dumps").mkdir()
    (tmp_path / "dumps" / ".step_000000000.partial").mkdir()  # of a run that died meanwhile
    for told in ranks.run(2, bad_steps, str(tmp_path), None):
        assert [f"`python -m tools.replay {tmp_path}/dumps/step_00000000{i}`" in told[i] for i in range(MAX_DUMPS)]
        assert told[3].endswith(f"no dump: {tmp_path}/dumps holds 3 already")
    folders = sorted(tmp_path.glob("dumps/*"))
    assert [folder.name for folder in folders] == ["step_000000000", "step_000000001", "step_000000002"]
    names = {"dump.json", "shared.pt", "rank_000.pt", "rank_001.pt"}
    assert [{path.name for path in folder.iterdir()} for folder in folders] == [names] * 3


def test_a_full_disk_gets_no_dump(ranks: RankPool, tmp_path: Path) -> None:
    for told in ranks.run(2, bad_steps, str(tmp_path), 10_000_000):
        assert all("no dump: it needs 0.0 GB and a reserve of 1.1 GB, 0.0 GB are free" in line for line in told)
    assert list(tmp_path.glob("dumps/*")) == []


def resumed_health(folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run remembers after a skipped step, and what the run that continues it does."""
    run = make_run("norm", **KEYS, output=folder)
    first, second = batches_of(run, 0, 2)
    train_step(run, first, 0)
    handle = spoil(run, "gradient")
    train_step(run, second, 1)
    if handle is not None:
        handle.remove()
    save_run(run, 2, wait=True)
    other = make_run("norm", **KEYS, output=folder)
    resume_run(other)
    return run.health.state_dict(), other.health.state_dict()


def test_what_was_skipped_is_resumed(ranks: RankPool, tmp_path: Path) -> None:
    for saved, loaded in ranks.run(2, resumed_health, str(tmp_path)):
        assert loaded == saved
        assert (saved["skipped"], saved["in_a_row"], saved["spikes"]["count"]) == (1, 1, 1)
