"""Checkpoints of whole runs: interrupted equals uninterrupted, and other numbers of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ranks import RankPool
from tests.training.runs import Weights, batches_of, make_run, weights_of
from training.state import _length, resume_run, save_run
from training.step import train_step
from utils.checkpoint import CheckpointError
from utils.schedule import Plan

HARD = {
    "num_epoch": 5,
    "augmentation": "pad_crop_flip", "gradient_acc": 2, "batch_size": 3, "warmup_epoch": 1.0,
    "margin_warmup_epochs": 1.0, "head": "arcface", "head_options": {"scale": 4.0},
}  # fmt: skip


def go(run: Any, first: int, stop: int) -> None:
    for step, batches in enumerate(batches_of(run, first, stop - first), first):
        train_step(run, batches, step)


def interrupted_run(folder: str, keys: dict[str, Any], saved_at: int, stop: int) -> Weights:
    """Steps up to `stop` with a checkpoint after `saved_at`."""
    run = make_run("norm", output=folder, **keys)
    go(run, 0, saved_at)
    save_run(run, saved_at)
    go(run, saved_at, stop)
    return weights_of(run)


def resumed_run(folder: str, keys: dict[str, Any], stop: int) -> tuple[int, list[str], Weights]:
    """A fresh run that continues from the checkpoint to `stop`."""
    run = make_run("norm", output=folder, **keys)
    resumed = resume_run(run)
    go(run, resumed.first_step, stop)
    return resumed.first_step, resumed.lines, weights_of(run)


@pytest.mark.parametrize(
    ("world_size", "keys"),
    [
        (1, {}),
        (1, {"optimizer": "adamw", "sample_rate": 0.4}),
        (2, {}),
        (2, {"optimizer": "adamw", "sample_rate": 0.4}),
        (3, {}),
    ],
)
def test_ten_steps_are_five_and_resume_and_five_bit_for_bit(
    ranks: RankPool, tmp_path: Path, world_size: int, keys: dict[str, Any]
) -> None:
    whole = ranks.run(world_size, interrupted_run, str(tmp_path), {**HARD, **keys}, 5, 10)
    resumed = ranks.run(world_size, resumed_run, str(tmp_path), {**HARD, **keys}, 10)
    for weights, (first_step, lines, others) in zip(whole, resumed, strict=True):
        assert first_step == 5
        assert lines == [f"resumed from {tmp_path}/checkpoints/step_000000005: 5 steps done"]
        assert weights.keys() == others.keys()
        assert [name for name in weights if not np.array_equal(weights[name], others[name])] == []


def hand_on(folder: str, batch_size: int, steps: int) -> tuple[list[str], Weights, Weights]:
    """Continues another world size's checkpoint for some steps and saves; weights as loaded and as saved."""
    run = make_run("norm", output=folder, batch_size=batch_size)
    resumed = resume_run(run)
    first_step, lines = resumed.first_step, resumed.lines
    loaded = weights_of(run)
    go(run, first_step, first_step + steps)
    save_run(run, first_step + steps)
    return lines, loaded, weights_of(run)


def test_two_ranks_then_three_then_one(ranks: RankPool, tmp_path: Path) -> None:
    _, _, two = ranks.run(2, hand_on, str(tmp_path), 6, 3)[0]
    lines, from_two, three = ranks.run(3, hand_on, str(tmp_path), 4, 1)[2]
    assert lines[0].endswith("step_000000003: 3 steps done")
    assert lines[1] == "resume: changed since then: config: batch_size 6 -> 4"
    assert lines[2] == "resume: changed since then: environment: ranks 2 -> 3"
    _, from_three, _ = ranks.run(1, hand_on, str(tmp_path), 12, 1)[0]
    for before, after in ((two, from_two), (three, from_three)):
        assert before["rows/momentum"].shape == (7, 6)
        assert float(np.abs(before["rows/momentum"]).sum()) > 0
        assert [
            name for name in before if "running" not in name and not np.array_equal(before[name], after[name])
        ] == []


def test_another_global_batch_goes_on_at_the_same_place_of_the_epoch(ranks: RankPool, tmp_path: Path) -> None:
    ranks.run(1, interrupted_run, str(tmp_path), {"batch_size": 4}, 6, 6)  # 24 of 48 images
    first_step, lines, _ = ranks.run(2, resumed_run, str(tmp_path), {"batch_size": 4}, 4)[0]
    assert first_step == 3
    assert lines[1] == "resume: a step takes 8 images, before 4: step 6 is step 3 now"


def test_resume_without_a_checkpoint_starts_with_one_line(ranks: RankPool, tmp_path: Path) -> None:
    first_step, lines, _ = ranks.run(1, resumed_run, str(tmp_path), {}, 1)[0]
    assert (first_step, lines) == (0, [f"resume: no checkpoint in {tmp_path}, starting from the beginning"])


def scalers(folder: str) -> tuple[float, float | None]:
    run = make_run(output=folder, precision="fp16")
    run.scaler.update(has_overflow=True)
    run.best_score = 0.75
    save_run(run, 1)
    other = make_run(output=folder, precision="fp16")
    resume_run(other)
    return other.scaler.scale, other.best_score


def test_scale_and_best_score_are_resumed(ranks: RankPool, tmp_path: Path) -> None:
    assert ranks.run(1, scalers, str(tmp_path))[0] == (32768.0, 0.75)


def test_resume_refuses_another_optimizer_and_another_shape(ranks: RankPool, tmp_path: Path) -> None:
    ranks.run(1, interrupted_run, str(tmp_path), {}, 1, 1)
    with pytest.raises(CheckpointError, match="written with optimizer 'sgd', this run has 'adamw'"):
        ranks.run(1, resumed_run, str(tmp_path), {"optimizer": "adamw"}, 1)
    with pytest.raises(CheckpointError, match=r"fc/weight: \(7, 6\) in the checkpoint, \(7, 5\) in this run"):
        ranks.run(1, resumed_run, str(tmp_path), {"embedding_size": 5}, 1)


def test_what_makes_a_step_another_step_is_said() -> None:
    old = Plan(12, 3, 8, 1)
    assert _length(Plan(6, 3, 16, 1), old) == "a step takes 16 images, before 8"
    assert _length(Plan(12, 3, 8, 2), old) == "a step takes 16 images, before 8"
    assert _length(Plan(14, 3, 8, 1), old) == "an epoch has 14 batches, before 12"
