"""Heads with numbers of their own in the real training path: learned, running, by step, by label, sub-centres."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from losses import HEADS
from tests.ranks import RankPool
from tests.training.runs import Weights, batches_of, make_run, weights_of
from training.state import resume_run, save_run
from training.step import train_step

STATEFUL: dict[str, dict[str, Any]] = {
    "uniface": {"scale": 8.0},
    "adaface": {"momentum": 0.3},
    "curricularface": {"momentum": 0.3},
    "subcenter_arcface": {"scale": 8.0, "sub_centers": 2},
    "elasticface_arc": {"std": 0.2},
    "lsoftmax": {"base": 5.0, "gamma": 1.0, "power": 1.0},
    "ldam": {},
    "normface": {"scale": 8.0, "class_weights": [1, 2, 3, 4, 5, 6, 7]},
}
OWN_NUMBERS = {"uniface": "bias", "adaface": "norm_mean", "curricularface": "mean_cosine"}


def run_to(folder: str, keys: dict[str, Any], save_at: int | None, stop: int) -> Weights:
    """Steps from the checkpoint, or from the beginning, up to ``stop``; saves after ``save_at``."""
    run = make_run("norm", output=folder, num_epoch=5, **keys)
    first = 0 if save_at is not None else resume_run(run).first_step
    for step, batches in enumerate(batches_of(run, first, stop - first), first):
        train_step(run, batches, step)
        if step + 1 == save_at:
            save_run(run, save_at)
    return weights_of(run)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", STATEFUL)
def test_resuming_changes_no_bit(ranks: RankPool, tmp_path: Path, name: str, optimizer: str) -> None:
    keys = {"head": name, "head_options": STATEFUL[name], "optimizer": optimizer, "lr": 0.01, "batch_size": 4}
    whole = ranks.run(2, run_to, str(tmp_path), keys, 2, 4)
    resumed = ranks.run(2, run_to, str(tmp_path), keys, None, 4)
    for weights, others in zip(whole, resumed, strict=True):
        assert weights.keys() == others.keys()
        assert [key for key in weights if not np.array_equal(weights[key], others[key])] == []
    if name in OWN_NUMBERS:
        assert f"fc/head.{OWN_NUMBERS[name]}" in whole[0]
        assert all(np.array_equal(whole[0][key], whole[1][key]) for key in whole[0] if key.startswith("fc/head."))
    if name == "subcenter_arcface":
        assert whole[0]["fc/weight"].shape == whole[0][f"rows/{'momentum' if optimizer == 'sgd' else 'mean'}"].shape
        assert whole[0]["fc/weight"].shape == (7, 2, 6)


def loaded(folder: str, keys: dict[str, Any]) -> Weights:
    """What a run of any world size takes over from the checkpoint."""
    run = make_run("norm", output=folder, num_epoch=5, **keys)
    resume_run(run)
    return weights_of(run)


@pytest.mark.parametrize("name", ["uniface", "subcenter_arcface", "adaface"])
def test_another_number_of_ranks_takes_over_the_same_numbers(ranks: RankPool, tmp_path: Path, name: str) -> None:
    keys = {"head": name, "head_options": STATEFUL[name], "optimizer": "adamw"}
    saved = ranks.run(2, run_to, str(tmp_path), {**keys, "batch_size": 6}, 2, 2)[0]
    for world_size, batch_size in ((1, 12), (3, 4)):
        found = ranks.run(world_size, loaded, str(tmp_path), {**keys, "batch_size": batch_size})[-1]
        own = [key for key in saved if not key.startswith("backbone/norm.running")]
        assert [key for key in own if not np.array_equal(saved[key], found[key])] == []


def one_step(name: str) -> tuple[float, float]:
    """Loss of one step of the real training path, and the largest entry of the prototypes after it."""
    run = make_run("plain", head=name, lr=0.01)
    report = train_step(run, batches_of(run, 0, 1)[0], 0)
    return float(report.loss), float(torch.as_tensor(run.fc.weight.detach()).abs().max())


def every_head() -> dict[str, tuple[float, float]]:
    return {name: one_step(name) for name in HEADS}


def test_every_head_takes_a_step(ranks: RankPool) -> None:
    for found in ranks.run(2, every_head):
        assert set(found) == set(HEADS)
        assert all(np.isfinite(value).all() for value in found.values())
