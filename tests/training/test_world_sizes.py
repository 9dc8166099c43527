"""A run handed from one number of ranks to another: what follows its classes, what stays equal, and what differs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from tests.ranks import RankPool
from tests.training import runs
from tests.training.runs import Weights, batches_of, make_run, weights_of
from training.run import Run
from training.state import resume_run, save_run
from training.step import train_step

LEGS = (1, 2, 3, 1)  # ranks, one after the other
STEPS = 2  # of each leg: 8 steps, which is an epoch
BATCH = 6  # of all ranks
TOLERANCE = 1e-6


def build(classes: int, folder: str, keys: dict[str, Any], world_size: int) -> Run:
    with mock.patch.object(runs, "CLASSES", classes):
        return make_run(**{"output": folder, "batch_size": BATCH // world_size, **keys})


def leg(
    classes: int, folder: str, keys: dict[str, Any], first: int, stop: int
) -> tuple[list[float], list[list[int]], Weights, Weights]:
    """Goes on from the newest checkpoint; the losses, this rank's labels, weights as loaded and as saved."""
    run = build(classes, folder, keys, torch.distributed.get_world_size())
    resumed = resume_run(run)
    assert resumed.first_step == first
    loaded = weights_of(run)
    losses, labels = [], []
    for step, batches in enumerate(batches_of(run, first, stop - first), first):
        losses.append(train_step(run, batches, step).loss)
        labels.append(batches[0].labels.tolist())
    save_run(run, stop)
    return losses, labels, loaded, weights_of(run)


def uninterrupted(classes: int, keys: dict[str, Any], legs: int) -> list[list[Any]]:
    """The same steps in one go on one rank; as `travel`, nothing saved or loaded."""
    run, found = build(classes, "", keys, 1), []
    for number, batches in enumerate(batches_of(run, 0, legs * STEPS)):
        if number % STEPS == 0:
            found.append([([], [], {}, {})])
        losses, labels, _, weights = found[-1][0]
        losses.append(train_step(run, batches, number).loss)
        labels.append(batches[0].labels.tolist())
        weights.update(weights_of(run))
    return found


def travel(ranks: RankPool, folder: Path, classes: int, keys: dict[str, Any], legs: tuple[int, ...]) -> list[list[Any]]:
    """`leg` after `leg`, each with its number of ranks; by leg, then by rank."""
    return [
        ranks.run(world_size, leg, classes, str(folder), keys, number * STEPS, (number + 1) * STEPS)
        for number, world_size in enumerate(legs)
    ]


def global_labels(found: list[list[Any]]) -> list[list[int]]:
    """The labels of every global batch, from all ranks' slices."""
    return [
        [label for rank in of_leg for label in rank[1][step]] for of_leg in found for step in range(len(of_leg[0][1]))
    ]


def furthest(found: Weights, expected: Weights) -> float:
    """The largest difference of any number, relative to the largest of its tensor."""
    assert found.keys() == expected.keys()
    return max(
        float(np.abs(value - expected[name]).max() / max(1.0, np.abs(expected[name]).max()))
        for name, value in found.items()
        if value.size
    )


HEADS = {
    "softmax": {"head": "softmax"},
    "arcface, clipped over all": {
        "head": "arcface", "head_options": {"scale": 8.0}, "clip_norm": 0.5, "clip_scope": "all",
    },
    "curricularface, with a state": {"head": "curricularface", "head_options": {"scale": 8.0}},
    "subcenter_arcface": {"head": "subcenter_arcface", "head_options": {"scale": 8.0}},
    "uniface, with a parameter": {"head": "uniface", "head_options": {"scale": 8.0}},
}  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("head", HEADS)
def test_the_trajectory_is_that_of_one_rank(ranks: RankPool, tmp_path: Path, head: str, optimizer: str) -> None:
    # Adam's first steps are lr * sign(gradient): rounding that turns the sign of a gradient near 0 would be amplified.
    keys = {**HEADS[head], "optimizer": optimizer, "lr": 0.1 if optimizer == "sgd" else 0.001}
    alone = ranks.run(1, uninterrupted, 7, keys, len(LEGS))[0]
    moved = travel(ranks, tmp_path, 7, keys, LEGS)
    assert global_labels(moved) == global_labels(alone)
    for expected, of_leg in zip(alone, moved, strict=True):
        for losses, _, _, saved in of_leg:
            assert losses == pytest.approx(expected[0][0], rel=TOLERANCE)
            assert furthest(saved, expected[0][3]) < TOLERANCE


@pytest.mark.parametrize("classes", [40, 7, 2])
@pytest.mark.parametrize(
    "keys",
    [
        {"sample_rate": 0.1},
        {"sample_rate": 0.1, "optimizer": "adamw", "lr": 0.001},
        {"optimizer": "adamw", "lr": 0.001, "head": "subcenter_arcface", "head_options": {"sub_centers": 2}},
    ],
)
def test_states_follow_their_classes(ranks: RankPool, tmp_path: Path, classes: int, keys: dict[str, Any]) -> None:
    """Three ranks hold 14, 14 and 12 of 40 classes; 3, 3 and 1 of 7; 1, 1 and none of 2."""
    found = travel(ranks, tmp_path, classes, keys, LEGS)
    for before, after in pairwise(found):
        saved = before[0][3]
        for _, _, loaded, _ in after:
            assert [name for name in saved if not np.array_equal(saved[name], loaded[name])] == []
    last = found[-1][0][3]
    for name in ("mean", "mean_square") if keys.get("optimizer") == "adamw" else ("momentum",):
        assert last[f"rows/{name}"].shape[0] == classes
        assert np.abs(last[f"rows/{name}"]).max() > 0
    if "sample_rate" in keys and keys.get("optimizer") == "adamw" and classes == 40:
        assert len(set(last["rows/row_step"].tolist())) > 1, "sampled rows have counted steps of their own"


def sampled_with(folder: str, world_size: int) -> tuple[list[int], list[int]]:
    """The classes of this rank that took part in a step, and the labels of its images."""
    run = build(40, folder, {"sample_rate": 0.1}, world_size)
    batches = batches_of(run, 0, 1)[0]
    train_step(run, batches, 0)
    return run.fc.sampled_classes.tolist(), batches[0].labels.tolist()


def test_sampled_negatives_depend_on_the_number_of_ranks(ranks: RankPool, tmp_path: Path) -> None:
    """What docs/reliability.md says: every rank draws its own; the classes of the batch are always in."""
    ((alone, labels),) = ranks.run(1, sampled_with, str(tmp_path), 1)
    apart = [label for sampled, _ in ranks.run(3, sampled_with, str(tmp_path), 3) for label in sampled]
    assert set(labels) <= set(alone) & set(apart)
    assert sorted(alone) != sorted(apart)


def buffers_after_a_step(folder: str, world_size: int) -> dict[str, np.ndarray]:
    """This rank's running statistics before they are averaged, and after saving."""
    run = build(7, folder, {"network": "norm"}, world_size)
    train_step(run, batches_of(run, 0, 1)[0], 0)
    own = run.backbone.norm.running_mean.clone().numpy()  # type: ignore[union-attr, operator]
    save_run(run, 1)
    return {"own": own, "saved": run.backbone.norm.running_mean.clone().numpy()}  # type: ignore[union-attr, operator]


def test_batch_statistics_are_of_a_ranks_own_images_and_averaged_when_saved(ranks: RankPool, tmp_path: Path) -> None:
    """What docs/reliability.md says of BatchNorm: another number of ranks is another size of normalised batches."""
    alone = ranks.run(1, buffers_after_a_step, str(tmp_path / "1"), 1)[0]
    found = ranks.run(3, buffers_after_a_step, str(tmp_path / "3"), 3)
    assert np.array_equal(alone["own"], alone["saved"])
    mean = np.mean([rank["own"] for rank in found], axis=0)
    for rank in found:
        assert np.abs(rank["own"] - mean).max() > 1e-3, "each rank has seen other images"
        assert np.allclose(rank["saved"], mean, atol=1e-6)
    # In the first step the weights are still equal, so the mean of the ranks' means is that of the global batch.
    assert np.allclose(mean, alone["own"], atol=1e-6)
